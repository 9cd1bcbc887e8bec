//! Opens one socket for each line of standard input, in the way that the line names, and prints the outcome.
//!
//! | command | effect |
//! | --- | --- |
//! | `serve ADDR:PORT WORD` | answers there with that word over TCP and UDP from now on: `ok` |
//! | `bind ADDR:PORT` | binds a TCP socket there without listening: `ok` |
//! | `listen WORD` | listens on that socket, and answers with that word from now on: `ok` |
//! | `try HOW ADDR:PORT [bind ADDR] [nonblocking]` | sends a request there: `WORD PEER FROM FROM`, or the step that failed and its errno |
//!
//! PEER is the result of getpeername(2), FROM those of recvfrom(2) and recvmsg(2); `-` if there is none.
#![expect(clippy::print_stdout, reason = "its answers are its output")]

/// The ways that only TCP has.
mod stream;
/// The ways by io_uring instead of system calls.
mod uring;

use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use proxymatic_tests::eventually::uninterrupted;
pub(crate) use proxymatic_tests::lab::PATIENCE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, Protocol, RecvAncillaryBuffer, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, listen,
    recvmsg, sendto, socket_with,
};

const BACKLOG: i32 = 16;
const QUESTION: &[u8] = b"?";

/// The outcome, or the step that failed with the error.
type Outcome<T = Answer> = Result<T, (&'static str, io::Error)>;

/// What a program sees of a successful attempt.
struct Answer {
    word: String,
    peer: Option<SocketAddr>,
    from: [Option<SocketAddr>; 2],
}

/// Executes one line.
struct Attempt {
    to: SocketAddr,
    bind: Option<IpAddr>,
    nonblocking: bool,
}

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
        ["serve", at, word] => {
            serve(at.parse()?, word.as_bytes())?;
            return Ok("ok".to_owned());
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

impl Attempt {
    fn socket(&self, kind: SocketType, protocol: Option<Protocol>) -> Outcome<OwnedFd> {
        let family = if self.to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let nonblocking = if self.nonblocking { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
        let socket = at("socket", socket_with(family, kind, SocketFlags::CLOEXEC | nonblocking, protocol))?;
        if let Some(address) = self.bind {
            at("bind", bind(&socket, &SocketAddr::new(address, 0)))?;
        }
        Ok(socket)
    }

    fn datagrams_of_a_connected_socket(&self) -> Outcome {
        let socket = UdpSocket::from(self.socket(SocketType::DGRAM, None)?);
        at("timeout", socket.set_read_timeout(Some(PATIENCE)))?;
        at("connect", connect(&socket, &self.to))?;
        let peer = at("peer", socket.peer_addr())?;
        at("send", socket.send(QUESTION))?;
        let (word, first) = at("receive", self.receive_from(&socket))?;
        at("send", socket.send(QUESTION))?;
        let second = at("receive", self.receive_message(&socket))?;
        Ok(Answer { word, peer: Some(peer), from: [Some(first), second] })
    }

    fn datagrams(&self) -> Outcome {
        let socket = UdpSocket::from(self.socket(SocketType::DGRAM, None)?);
        at("timeout", socket.set_read_timeout(Some(PATIENCE)))?;
        self.hear_of_closed_ports(&socket)?;
        at("send", sendto(&socket, QUESTION, SendFlags::empty(), &self.to))?;
        let (word, first) = at("receive", self.receive_from(&socket))?;
        at("send", sendto(&socket, QUESTION, SendFlags::empty(), &self.to))?;
        let second = at("receive", self.receive_message(&socket))?;
        Ok(Answer { word, peer: socket.peer_addr().ok(), from: [Some(first), second] })
    }

    /// Without this option an unconnected socket gets no ICMP errors and waits for ever (ip(7), IP_RECVERR).
    fn hear_of_closed_ports(&self, socket: impl AsFd) -> Outcome<()> {
        at("option", setsockopt(&socket, sockopt::Ipv4RecvErr, &true))?;
        if self.to.is_ipv6() {
            at("option", setsockopt(&socket, sockopt::Ipv6RecvErr, &true))?;
        }
        Ok(())
    }

    fn receive_from(&self, socket: &UdpSocket) -> io::Result<(String, SocketAddr)> {
        let mut buffer = [0; 64];
        self.ready(socket, PollFlags::IN)?;
        let (length, from) = uninterrupted(|| socket.recv_from(&mut buffer))?;
        Ok((text(&buffer[..length]), from))
    }

    fn receive_message(&self, socket: &UdpSocket) -> io::Result<Option<SocketAddr>> {
        self.ready(socket, PollFlags::IN)?;
        uninterrupted(|| {
            let mut buffer = [0; 64];
            let (mut into, mut no_control) = ([IoSliceMut::new(&mut buffer)], RecvAncillaryBuffer::default());
            let message = recvmsg(socket, &mut into, &mut no_control, RecvFlags::empty())?;
            message.address.map(|from| SocketAddr::try_from(from).map_err(io::Error::from)).transpose()
        })
    }

    /// Waits with poll(2), as programs with nonblocking sockets do; on a blocking socket the kernel waits.
    fn ready(&self, socket: impl AsFd, wanted: PollFlags) -> io::Result<()> {
        if !self.nonblocking {
            return Ok(());
        }
        let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&socket, wanted)], Some(&patience))? {
            0 => Err(Errno::ETIMEDOUT.into()),
            _ => Ok(()),
        }
    }
}

fn serve(at: SocketAddr, word: &[u8]) -> io::Result<()> {
    let (listener, socket) = (TcpListener::bind(at)?, UdpSocket::bind(at)?);
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

fn at<T, E: Into<io::Error>>(step: &'static str, outcome: Result<T, E>) -> Outcome<T> {
    outcome.map_err(|error| (step, error.into()))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
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
