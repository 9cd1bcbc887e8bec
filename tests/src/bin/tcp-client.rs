//! Performs TCP socket calls, one command per line of standard input. It answers each line with one line: `ok`, the
//! requested value, or the name of an errno. The process's end closes the remaining sockets.
//!
//! | command | effect |
//! | --- | --- |
//! | `connect NAME ADDR:PORT` | connect(2), on the socket of that name or on a new one |
//! | `begin NAME ADDR:PORT`, `finish NAME` | the same without blocking; waits for the outcome |
//! | `unconnect NAME` | connect(2) to AF_UNSPEC, which disconnects the socket |
//! | `peer NAME` | getpeername(2) |
//! | `ask NAME` | one HTTP request; returns the name of the replica |
//! | `dup NAME OTHER` | dup(2): one socket, two descriptors |
//! | `lend NAME CHILD` | a child process inherits the socket, and waits on it |
//! | `close NAME` | closes that descriptor, or ends that child |
//! | `bind NAME ADDR:PORT` | bind(2) |
//! | `mark NAME NUMBER` | SO_MARK |
//! | `who COUNT ADDR:PORT` | that many requests, a socket each; returns the replica or the errno of each |
//! | `who COUNT ADDR:PORT from PORT` | the same from sockets bound to that port, the next one and so on |
#![expect(clippy::print_stdout, reason = "its answers are its output")]

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use proxymatic_tests::http::{self, Url};
use proxymatic_tests::lab::PATIENCE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, connect_unspec, socket_with};

/// A named object.
enum Held {
    Socket(TcpStream),
    Child(Child),
}

#[derive(Default)]
struct SocketProgram(BTreeMap<String, Held>);

fn main() -> Result<()> {
    let mut client = SocketProgram::default();
    for line in io::stdin().lines() {
        let line = line?;
        let answer = client.obey(&line.split_whitespace().collect::<Vec<_>>()).with_context(|| line.clone())?;
        println!("{}", answer.unwrap_or_else(|error| name(&error)));
    }
    Ok(())
}

impl SocketProgram {
    /// The outer error is an invalid line, the inner one an error of the kernel.
    fn obey(&mut self, order: &[&str]) -> Result<io::Result<String>> {
        let outcome = match *order {
            ["connect", name, to] => {
                let to: SocketAddr = to.parse()?;
                self.open(name)?.set_nonblocking(false)?;
                connect(self.socket(name)?, &to).map_err(io::Error::from).map(done)
            }
            ["begin", name, to] => {
                let to: SocketAddr = to.parse()?;
                self.open(name)?.set_nonblocking(true)?;
                connect(self.socket(name)?, &to).map_err(io::Error::from).map(done)
            }
            ["finish", name] => finish(self.socket(name)?).map(done),
            ["bind", name, at] => {
                let at: SocketAddr = at.parse()?;
                bind(self.open(name)?, &at).map_err(io::Error::from).map(done)
            }
            ["mark", name, number] => {
                let number: u32 = number.parse()?;
                setsockopt(self.open(name)?, sockopt::Mark, &number).map_err(io::Error::from).map(done)
            }
            ["who", count, to] => Ok(who(count.parse()?, to.parse()?, None)),
            ["who", count, to, "from", first] => Ok(who(count.parse()?, to.parse()?, Some(first.parse()?))),
            ["unconnect", name] => connect_unspec(self.socket(name)?).map_err(io::Error::from).map(done),
            ["peer", name] => self.socket(name)?.peer_addr().map(|peer| peer.to_string()),
            ["ask", name] => ask(self.socket(name)?),
            ["dup", name, other] => {
                let copy = self.socket(name)?.try_clone()?;
                self.0.insert(other.to_owned(), Held::Socket(copy));
                Ok(done(()))
            }
            ["lend", name, child] => {
                let copy = OwnedFd::from(self.socket(name)?.try_clone()?);
                let heir = Command::new("cat").stdin(Stdio::from(copy)).stdout(Stdio::null()).spawn()?;
                self.0.insert(child.to_owned(), Held::Child(heir));
                Ok(done(()))
            }
            ["close", name] => match self.0.remove(name).with_context(|| format!("nothing is called {name}"))? {
                Held::Socket(socket) => {
                    drop(socket);
                    Ok(done(()))
                }
                Held::Child(mut child) => child.kill().and_then(|()| child.wait()).map(|_| done(())),
            },
            _ => bail!("no such order"),
        };
        Ok(outcome)
    }

    /// Returns the socket with this name, which is made if there is none.
    fn open(&mut self, name: &str) -> Result<&TcpStream> {
        if !self.0.contains_key(name) {
            let socket = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
            self.0.insert(name.to_owned(), Held::Socket(socket.into()));
        }
        self.socket(name)
    }

    fn socket(&self, name: &str) -> Result<&TcpStream> {
        match self.0.get(name) {
            Some(Held::Socket(socket)) => Ok(socket),
            _ => bail!("no socket is called {name}"),
        }
    }
}

/// Returns the names of the replicas that answer this many requests, with blanks between.
fn who(count: u16, to: SocketAddr, from: Option<u16>) -> String {
    let once = |nth| {
        let socket = TcpStream::from(socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?);
        if let Some(first) = from {
            setsockopt(&socket, sockopt::ReuseAddr, &true)?;
            bind(&socket, &SocketAddr::from((Ipv4Addr::UNSPECIFIED, first + nth)))?;
        }
        // Close with a reset, so that the local port is free at once.
        setsockopt(&socket, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        connect(&socket, &to)?;
        ask(&socket)
    };
    (0..count).map(|nth| once(nth).unwrap_or_else(|error| name(&error))).collect::<Vec<_>>().join(" ")
}

fn finish(socket: &TcpStream) -> io::Result<()> {
    let patience = Timespec::try_from(PATIENCE).map_err(io::Error::other)?;
    let mut waiting = [PollFd::new(socket, PollFlags::OUT)];
    if poll(&mut waiting, Some(&patience))? == 0 {
        return Err(Errno::ETIMEDOUT.into());
    }
    socket.take_error()?.map_or(Ok(()), Err)
}

fn ask(socket: &TcpStream) -> io::Result<String> {
    let peer = socket.peer_addr()?;
    let mut stream = socket.try_clone()?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(http::exchange(&mut stream, "GET", &Url::new(peer, "/"), "")?.body.trim().to_owned())
}

fn done(_: ()) -> String {
    "ok".to_owned()
}

/// The errno's name, if it has one.
fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    }
}
