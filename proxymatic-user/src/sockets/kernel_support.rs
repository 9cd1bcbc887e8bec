//! Feature probes: whether this kernel destroys sockets on request and duplicates descriptors, tried on own sockets.

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

/// INET_DIAG_NOCOOKIE: the socket with these addresses, whatever its cookie.
const ANY: [u8; 8] = [0xff; 8];

/// Returns whether sock_diag destroys a connected socket of a protocol (IPPROTO number).
///
/// # Errors
/// Fails if the test sockets cannot be made, or with the kernel's reason: EOPNOTSUPP if it was built without.
pub fn supports_destroy(protocol: u8) -> io::Result<bool> {
    let here = (Ipv4Addr::LOCALHOST, 0);
    if protocol == PROTOCOL_TCP {
        let listener = TcpListener::bind(here)?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        destroy(protocol, client.local_addr()?, client.peer_addr()?)?;
        return aborted(client.take_error()?);
    }
    let (client, peer) = (UdpSocket::bind(here)?, UdpSocket::bind(here)?);
    client.connect(peer.local_addr()?)?;
    destroy(protocol, client.local_addr()?, peer.local_addr()?)?;
    aborted(client.take_error()?)
}

fn aborted(error: Option<io::Error>) -> io::Result<bool> {
    Ok(error.is_some_and(|error| error.kind() == io::ErrorKind::ConnectionAborted))
}

fn destroy(protocol: u8, from: SocketAddr, to: SocketAddr) -> io::Result<bool> {
    Diag::open()?.destroy_by_id(InetRequest {
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

/// Checks that a descriptor of another process can be duplicated.
///
/// # Errors
/// The kernel's reason.
pub fn supports_pidfd_getfd() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    let process = pidfd_open(getpid(), PidfdFlags::empty())?;
    pidfd_getfd(process, socket.as_raw_fd(), PidfdGetfdFlags::empty())?;
    Ok(())
}
