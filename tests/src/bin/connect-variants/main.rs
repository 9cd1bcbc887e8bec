//! Opens one socket for each line of standard input, in the way that the line names, and prints the outcome.
//!
//! | command | effect |
//! | --- | --- |
//! | `serve ADDR:PORT WORD [device NAME]` | answers there with that word over TCP and UDP from now on, on sockets that are bound to the interface: `ok`, or the errno |
//! | `bind ADDR:PORT` | binds a TCP socket there without listening: `ok` |
//! | `listen WORD` | listens on that socket, and answers with that word from now on: `ok` |
//! | `try HOW ADDR:PORT [bind ADDR] [nonblocking]` | sends a request there: `WORD PEER FROM FROM`, or the step that failed and its errno |
//!
//! PEER is the result of getpeername(2), FROM those of recvfrom(2) and recvmsg(2); `-` if there is none.
#![expect(clippy::print_stdout, reason = "its answers are its output")]

/// One attempt, and the ways by datagrams.
mod attempt;
/// The ways that only TCP has.
mod stream;
/// The ways by io_uring instead of system calls.
mod uring;

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

use self::attempt::{Answer, Attempt};

const BACKLOG: i32 = 16;

fn main() -> Result<()> {
    let mut bound = None;
    for line in io::stdin().lines() {
        let line = line?;
        let order: Vec<_> = line.split_whitespace().collect();
        println!("{}", obey(&order, &mut bound).with_context(|| line.clone())?);
    }
    Ok(())
}

fn obey(order: &[&str], bound: &mut Option<OwnedFd>) -> Result<String> {
    let outcome = match *order {
        ["bind", at] => {
            *bound = Some(bind_only(at.parse()?)?);
            return Ok("ok".to_owned());
        }
        ["listen", word] => {
            let socket = bound.take().context("nothing is bound")?;
            listen(&socket, BACKLOG)?;
            answer_streams(socket.into(), word.as_bytes());
            return Ok("ok".to_owned());
        }
        ["serve", at, word, ref device @ ..] => {
            let device = if let ["device", name] = device { Some(*name) } else { None };
            return Ok(serve(at.parse()?, word.as_bytes(), device).map_or_else(|error| name(&error), |()| "ok".into()));
        }
        ["try", how, to, ref more @ ..] => {
            let (bind, more) = match more {
                ["bind", address, more @ ..] => (Some(address.parse()?), more),
                more => (None, more),
            };
            let attempt = Attempt { to: to.parse()?, bind, nonblocking: more == ["nonblocking"] };
            match how {
                "tcp" => stream::connected(&attempt, None),
                "mptcp" => stream::connected(&attempt, Some(rustix::net::ipproto::MPTCP)),
                "fastopen" => stream::fast_open(&attempt),
                "fastopen-connect" => stream::fast_open_connect(&attempt),
                "udp" => attempt.datagrams_of_a_connected_socket(),
                "udp-unconnected" => attempt.datagrams(),
                "uring-tcp" => uring::stream(&attempt, false),
                "uring-tcp-async" => uring::stream(&attempt, true),
                "uring-udp" => uring::datagram(&attempt),
                _ => bail!("no such way"),
            }
        }
        _ => bail!("no such order"),
    };
    Ok(match outcome {
        Ok(Answer { word, peer, from: [first, second] }) => {
            format!("{word} {} {} {}", or_dash(peer), or_dash(first), or_dash(second))
        }
        Err((step, error)) => format!("{step} {}", name(&error)),
    })
}

fn serve(at: SocketAddr, word: &[u8], device: Option<&str>) -> io::Result<()> {
    let (listener, socket) = match device {
        None => (TcpListener::bind(at)?, UdpSocket::bind(at)?),
        Some(device) => {
            let listener = on_device(at, SocketType::STREAM, device)?;
            listen(&listener, BACKLOG)?;
            (listener.into(), on_device(at, SocketType::DGRAM, device)?.into())
        }
    };
    let answer = word.to_vec();
    thread::spawn(move || -> io::Result<()> {
        let mut buffer = [0; 64];
        loop {
            let (_, from) = socket.recv_from(&mut buffer)?;
            socket.send_to(&answer, from)?;
        }
    });
    answer_streams(listener, word);
    Ok(())
}

/// Binds a socket to an interface (SO_BINDTODEVICE) and then to an address, as systemd-resolved does.
fn on_device(at: SocketAddr, kind: SocketType, device: &str) -> io::Result<OwnedFd> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    setsockopt(&socket, sockopt::BindToDevice, &device.into())?;
    bind(&socket, &at)?;
    Ok(socket)
}

fn bind_only(at: SocketAddr) -> io::Result<OwnedFd> {
    let family = if at.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&socket, &at)?;
    Ok(socket)
}

fn answer_streams(listener: TcpListener, word: &[u8]) {
    let answer = word.to_vec();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            thread::spawn(move || reply(stream, &answer));
        }
    });
}

/// Answers each segment with one word, until the peer closes.
fn reply(mut stream: TcpStream, word: &[u8]) -> io::Result<()> {
    let mut buffer = [0; 64];
    while stream.read(&mut buffer)? > 0 {
        stream.write_all(word)?;
    }
    Ok(())
}

fn or_dash(address: Option<SocketAddr>) -> String {
    address.map_or_else(|| "-".to_owned(), |address| address.to_string())
}

/// The errno's name, if it has one.
fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string().replace(' ', "-"),
    }
}
