//! The client on another host: opens connections and sends datagrams, and returns which replica answers.

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result};
use proxymatic_tests::eventually::uninterrupted;
use proxymatic_tests::lab::{Host, PATIENCE};

/// How long a client waits for an answer.
pub(super) const WAIT: Duration = PATIENCE;

/// Opens a connection from a host, and returns it with the name of the replica that greets.
pub(super) fn greeted(host: &Host, to: SocketAddr) -> Result<(TcpStream, char)> {
    let outcome = host.net().enter(|| -> io::Result<_> {
        let mut stream = TcpStream::connect_timeout(&to, WAIT)?;
        stream.set_read_timeout(Some(WAIT))?;
        let mut name = [0];
        stream.read_exact(&mut name)?;
        Ok((stream, char::from(name[0])))
    })?;
    outcome.with_context(|| format!("connect to {to} from host {}", host.number()))
}

/// Returns the name of the replica that greets a new connection.
pub(super) fn who(host: &Host, to: SocketAddr) -> Result<char> {
    Ok(greeted(host, to)?.1)
}

/// Returns the error of a new connection.
pub(super) fn refused(host: &Host, to: SocketAddr) -> Result<io::ErrorKind> {
    match greeted(host, to) {
        Ok((_, name)) => anyhow::bail!("{to} is served by {name}"),
        Err(error) => Ok(error.downcast_ref::<io::Error>().context("no error of a socket")?.kind()),
    }
}

/// Opens a socket on a host with the client's timeout, which receives ICMP errors.
pub(super) fn socket(host: &Host, to: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
    let outcome = host.net().enter(|| -> io::Result<_> {
        let socket = UdpSocket::bind((any, 0))?;
        socket.set_read_timeout(Some(WAIT))?;
        socket.connect(to)?;
        Ok(socket)
    })?;
    outcome.with_context(|| format!("a socket to {to}"))
}

/// Returns the name of the replica that answers a datagram.
pub(super) fn asked(socket: &UdpSocket) -> io::Result<char> {
    let mut answer = [0; 8];
    socket.send(b"?")?;
    let length = uninterrupted(|| socket.recv(&mut answer))?;
    if length == 1 { Ok(char::from(answer[0])) } else { Err(io::Error::other(format!("{length} bytes"))) }
}
