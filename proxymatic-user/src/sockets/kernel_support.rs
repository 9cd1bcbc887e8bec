//! Whether this kernel ends sockets on request, and gives copies of them: tried on sockets of our own.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
};

use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use nix::libc;
use proxymatic_common::PROTOCOL_TCP;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::diag::Diag;

/// INET_DIAG_NOCOOKIE: whoever has these addresses.
const ANY: [u8; 8] = [0xff; 8];

/// Whether a connected socket of a protocol (IPPROTO number) is ended by sock_diag.
///
/// # Errors
/// It cannot be tried; or the kernel says why not, EOPNOTSUPP where it was built without.
pub fn ends(protocol: u8) -> io::Result<bool> {
    let here = (Ipv4Addr::LOCALHOST, 0);
    if protocol == PROTOCOL_TCP {
        let listener = TcpListener::bind(here)?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        end(protocol, client.local_addr()?, client.peer_addr()?)?;
        return aborted(client.take_error()?);
    }
    let (client, peer) = (UdpSocket::bind(here)?, UdpSocket::bind(here)?);
    client.connect(peer.local_addr()?)?;
    end(protocol, client.local_addr()?, peer.local_addr()?)?;
    aborted(client.take_error()?)
}

fn aborted(error: Option<io::Error>) -> io::Result<bool> {
    Ok(error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionAborted))
}

fn end(protocol: u8, from: SocketAddr, to: SocketAddr) -> io::Result<bool> {
    Diag::open()?.destroy_named(InetRequest {
        family: libc::AF_INET as u8,
        protocol,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::empty(),
        socket_id: SocketId {
            source_port: from.port(),
            destination_port: to.port(),
            source_address: from.ip(),
            destination_address: to.ip(),
            interface_id: 0,
            cookie: ANY,
        },
    })
}

/// Whether a copy of another program's socket can be taken.
///
/// # Errors
/// The kernel says why not.
pub fn copies() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    pidfd_getfd(process, socket.as_raw_fd(), PidfdGetfdFlags::empty())?;
    Ok(())
}
