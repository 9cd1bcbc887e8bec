//! Does with sockets what it is told, one line of standard input at a time, and answers each with one line: `ok`, what
//! was asked for, or the errno's name. What is still open at the end of input goes with the process.
//!
//! | order | does |
//! | --- | --- |
//! | `connect NAME ADDR:PORT` | connect(2), on the socket of that name or on a new one |
//! | `begin NAME ADDR:PORT`, `finish NAME` | the same without blocking; waits for how it came out |
//! | `unconnect NAME` | connect(2) to AF_UNSPEC: the socket is as new |
//! | `peer NAME` | getpeername(2) |
//! | `ask NAME` | one HTTP request: who answers |
//! | `dup NAME OTHER` | dup(2): one socket, two descriptors |
//! | `lend NAME CHILD` | a child process inherits the socket, and waits on it |
//! | `close NAME` | closes that descriptor, or ends that child |
#![expect(clippy::print_stdout, reason = "its answers are its output")]

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use proxymatic_tests::http::{self, Url};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, connect_unspec, socket_with};

const PATIENCE: Duration = Duration::from_secs(5);

/// What has a name.
enum Held {
    Socket(TcpStream),
    Child(Child),
}

#[derive(Default)]
struct Dialer(BTreeMap<String, Held>);

fn main() -> Result<()> {
    let mut dialer = Dialer::default();
    for line in io::stdin().lines() {
        let line = line?;
        let answer = dialer.obey(&line.split_whitespace().collect::<Vec<_>>()).with_context(|| line.clone())?;
        println!("{}", answer.unwrap_or_else(|error| name(&error)));
    }
    Ok(())
}

impl Dialer {
    /// The outer error is a line that makes no sense, the inner one what the kernel said.
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

    /// The socket of that name, made if there is none.
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

/// The errno's name where there is one.
fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    }
}
