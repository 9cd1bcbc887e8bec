//! Performs UDP socket calls, one command per line of standard input. It answers each line with one line: `ok`, the
//! requested value, or the name of an errno.
//!
//! | command | effect |
//! | --- | --- |
//! | `serve ADDR:PORT WORD` | answers each datagram there with that word from now on |
//! | `open NAME` | a new socket, IPv4, not bound |
//! | `open6 NAME` | a new socket, IPv6, not bound |
//! | `connect NAME ADDR:PORT` | connect(2) |
//! | `ask NAME` | sends to the peer; returns the reply |
//! | `askto NAME ADDR:PORT` | sends without a connection; returns the reply and its sender |
//! | `sendto NAME ADDR:PORT`, `receive NAME` | the two halves of `askto` |
//! | `local NAME`, `peer NAME` | getsockname(2), getpeername(2) |
//! | `error NAME` | waits until the socket has an error; returns it |
//! | `dup NAME OTHER` | dup(2): one socket, two descriptors |
//! | `lend NAME CHILD` | a child process inherits the socket, and waits |
//! | `close NAME` | closes it, or ends that child |
#![expect(clippy::print_stdout, reason = "its answers are its output")]

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use proxymatic_tests::eventually::uninterrupted;
use proxymatic_tests::lab::PATIENCE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

fn main() -> Result<()> {
    let (mut sockets, mut children) = (BTreeMap::new(), BTreeMap::new());
    for line in io::stdin().lines() {
        let line = line?;
        let order: Vec<_> = line.split_whitespace().collect();
        let answer = obey(&mut sockets, &mut children, &order).with_context(|| line.clone())?;
        println!("{}", answer.unwrap_or_else(|error| name(&error)));
    }
    Ok(())
}

/// The outer error is an invalid line, the inner one an error of the kernel.
fn obey(
    sockets: &mut BTreeMap<String, UdpSocket>,
    children: &mut BTreeMap<String, Child>,
    order: &[&str],
) -> Result<io::Result<String>> {
    let socket = |name: &str| sockets.get(name).with_context(|| format!("no socket is called {name}"));
    Ok(match *order {
        ["serve", at, word] => serve(at.parse()?, word.to_owned()),
        ["open", name] => {
            sockets.insert(name.to_owned(), open(AddressFamily::INET)?);
            Ok("ok".into())
        }
        ["open6", name] => {
            sockets.insert(name.to_owned(), open(AddressFamily::INET6)?);
            Ok("ok".into())
        }
        ["connect", name, to] => socket(name)?.connect(to.parse::<SocketAddr>()?).map(|()| "ok".into()),
        ["ask", name] => ask(socket(name)?),
        ["askto", name, to] => ask_to(socket(name)?, to.parse()?),
        ["sendto", name, to] => socket(name)?.send_to(b"?", to.parse::<SocketAddr>()?).map(|_| "ok".into()),
        ["receive", name] => receive(socket(name)?),
        ["dup", name, other] => {
            let copy = socket(name)?.try_clone()?;
            sockets.insert(other.to_owned(), copy);
            Ok("ok".into())
        }
        ["lend", name, child] => {
            let copy = OwnedFd::from(socket(name)?.try_clone()?);
            // Its output: nothing reads from the socket, and it ends only on a command.
            let heir = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::from(copy)).spawn()?;
            children.insert(child.to_owned(), heir);
            Ok("ok".into())
        }
        ["close", name] if children.contains_key(name) => {
            let mut child = children.remove(name).context("no such child")?;
            child.kill().and_then(|()| child.wait()).map(|_| "ok".into())
        }
        ["local", name] => socket(name)?.local_addr().map(|address| address.to_string()),
        ["peer", name] => socket(name)?.peer_addr().map(|address| address.to_string()),
        ["error", name] => error(socket(name)?),
        ["close", name] => {
            sockets.remove(name).map(|_| Ok("ok".into())).with_context(|| format!("no socket {name}"))?
        }
        _ => bail!("no such order"),
    })
}

fn open(family: AddressFamily) -> Result<UdpSocket> {
    let socket = UdpSocket::from(socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?);
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn serve(at: SocketAddr, word: String) -> io::Result<String> {
    let socket = UdpSocket::bind(at)?;
    thread::spawn(move || -> io::Result<()> {
        let mut buffer = [0; 64];
        loop {
            let (_, from) = socket.recv_from(&mut buffer)?;
            socket.send_to(word.as_bytes(), from)?;
        }
    });
    Ok("ok".into())
}

fn ask(socket: &UdpSocket) -> io::Result<String> {
    let mut buffer = [0; 64];
    socket.send(b"?")?;
    let length = uninterrupted(|| socket.recv(&mut buffer))?;
    Ok(String::from_utf8_lossy(&buffer[..length]).into())
}

fn ask_to(socket: &UdpSocket, to: SocketAddr) -> io::Result<String> {
    socket.send_to(b"?", to)?;
    receive(socket)
}

fn receive(socket: &UdpSocket) -> io::Result<String> {
    let mut buffer = [0; 64];
    let (length, from) = uninterrupted(|| socket.recv_from(&mut buffer))?;
    Ok(format!("{} {from}", String::from_utf8_lossy(&buffer[..length])))
}

/// An error wakes a program that waits in poll(2) or epoll(7), whatever it waits for.
fn error(socket: &UdpSocket) -> io::Result<String> {
    let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    if poll(&mut [PollFd::new(socket, PollFlags::empty())], Some(&patience))? == 0 {
        return Ok("none".into());
    }
    Ok(socket.take_error()?.map_or_else(|| "none".into(), |error| name(&error)))
}

/// The errno's name, if it has one.
fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    }
}
