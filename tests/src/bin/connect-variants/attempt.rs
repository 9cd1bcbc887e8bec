//! One attempt: its socket, the ways by datagrams, and its outcome.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{setsockopt, sockopt};
use proxymatic_tests::eventually::{PATIENCE, uninterrupted};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, Protocol, RecvAncillaryBuffer, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect,
    recvmsg, sendto, socket_with,
};

pub(crate) const QUESTION: &[u8] = b"?";

/// The outcome, or the step that failed with the error.
pub(crate) type Outcome<T = Answer> = Result<T, (&'static str, io::Error)>;

/// What a program sees of a successful attempt.
pub(crate) struct Answer {
    pub(crate) word: String,
    pub(crate) peer: Option<SocketAddr>,
    pub(crate) from: [Option<SocketAddr>; 2],
}

/// Executes one line.
pub(crate) struct Attempt {
    pub(crate) to: SocketAddr,
    pub(crate) bind: Option<IpAddr>,
    pub(crate) nonblocking: bool,
}

impl Attempt {
    pub(crate) fn socket(&self, kind: SocketType, protocol: Option<Protocol>) -> Outcome<OwnedFd> {
        let family = if self.to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let nonblocking = if self.nonblocking { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
        let socket = at("socket", socket_with(family, kind, SocketFlags::CLOEXEC | nonblocking, protocol))?;
        if let Some(address) = self.bind {
            at("bind", bind(&socket, &SocketAddr::new(address, 0)))?;
        }
        Ok(socket)
    }

    pub(crate) fn datagrams_of_a_connected_socket(&self) -> Outcome {
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

    pub(crate) fn datagrams(&self) -> Outcome {
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
    pub(crate) fn hear_of_closed_ports(&self, socket: impl AsFd) -> Outcome<()> {
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
    pub(crate) fn ready(&self, socket: impl AsFd, wanted: PollFlags) -> io::Result<()> {
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

pub(crate) fn at<T, E: Into<io::Error>>(step: &'static str, outcome: Result<T, E>) -> Outcome<T> {
    outcome.map_err(|error| (step, error.into()))
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
