//! One conversation with sock_diag, about the sockets of the namespace that it was begun in.

use std::{
    io,
    os::fd::{AsFd as _, RawFd},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::{
    libc,
    sys::{
        socket::{setsockopt, sockopt},
        time::TimeVal,
    },
};
use proxymatic_common::{PROTOCOL_TCP, Port};

use super::{message::Message, row::Row};

/// More than the kernel puts into one datagram of a dump.
const BUFFER: usize = 1 << 16;
/// The kernel answers at once, or something is badly wrong.
const PATIENCE_S: i64 = 5;
/// NLMSG_ALIGNTO.
const ALIGN: usize = 4;

/// Netlink to sock_diag.
pub(super) struct Diag {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Diag {
    /// For the sockets of the namespace that this thread is in.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE_S, 0))?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER), sequence: 0 })
    }

    /// Each socket of a family (AF_INET or AF_INET6) and a protocol that has a value in this map.
    pub(super) fn dump(&mut self, family: u8, protocol: u8, map: RawFd, mut each: impl FnMut(Row)) -> io::Result<()> {
        let (extensions, states) = match protocol {
            // Listeners translate nothing, and what is in TIME_WAIT is no socket any more.
            PROTOCOL_TCP => (ExtensionFlags::INFO, !(StateFlags::LISTEN | StateFlags::TIME_WAIT)),
            _ => (ExtensionFlags::empty(), StateFlags::all()),
        };
        self.list((family, protocol), extensions, states, Some(map), |answer| {
            if let Some(row) = Row::read(answer, protocol) {
                each(row);
            }
        })
    }

    /// The port of each socket of a family and a protocol that a stranger may reach: TCP that listens, and all UDP. One
    /// that is connected only has to be disconnected to be open to all.
    pub(super) fn ports(&mut self, family: u8, protocol: u8, mut each: impl FnMut(Port)) -> io::Result<()> {
        let states = if protocol == PROTOCOL_TCP { StateFlags::LISTEN } else { StateFlags::all() };
        self.list((family, protocol), ExtensionFlags::empty(), states, None, |answer| {
            each(Port::new(answer.header.socket_id.source_port));
        })
    }

    fn list(
        &mut self,
        (family, protocol): (u8, u8),
        extensions: ExtensionFlags,
        states: StateFlags,
        map: Option<RawFd>,
        mut each: impl FnMut(&InetResponse),
    ) -> io::Result<()> {
        let socket_id = if family == libc::AF_INET as u8 { SocketId::new_v4() } else { SocketId::new_v6() };
        let request = InetRequest { family, protocol, extensions, states, socket_id };
        self.send(Message::Dump(request, map), NLM_F_REQUEST | NLM_F_DUMP)?;
        while !self.receive(|message| match message.payload {
            NetlinkPayload::InnerMessage(Message::Socket(answer)) => {
                each(&answer);
                Ok(false)
            }
            NetlinkPayload::Done(_) => Ok(true),
            NetlinkPayload::Error(error) => Err(error.to_io()),
            _ => Ok(false),
        })? {}
        Ok(())
    }

    /// Ends a socket: its program sees ECONNABORTED. False where it is not there any more.
    pub(super) fn destroy(&mut self, row: &Row) -> io::Result<bool> {
        self.destroy_named(row.named())
    }

    /// The same by its addresses and its cookie.
    pub(super) fn destroy_named(&mut self, request: InetRequest) -> io::Result<bool> {
        self.send(Message::Destroy(request), NLM_F_REQUEST | NLM_F_ACK)?;
        let mut outcome = Ok(());
        while !self.receive(|message| match message.payload {
            NetlinkPayload::Error(answer) => {
                if answer.code.is_some() {
                    outcome = Err(answer.to_io());
                }
                Ok(true)
            }
            _ => Ok(false),
        })? {}
        match outcome {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self, message: Message, flags: u16) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        self.socket.send(&bytes, 0).map(drop)
    }

    /// Reads one datagram, and shows each message of it that answers the last request, until one is the end.
    fn receive(&mut self, mut each: impl FnMut(NetlinkMessage<Message>) -> io::Result<bool>) -> io::Result<bool> {
        self.buffer.clear();
        let length = self.socket.recv(&mut self.buffer, 0)?;
        let mut rest = self.buffer.get(..length).ok_or_else(|| io::Error::other("an answer too long"))?;
        while let Some((length, _)) = rest.split_first_chunk::<4>() {
            let length = u32::from_ne_bytes(*length) as usize;
            let Some(bytes) = rest.get(..length) else { break };
            match NetlinkMessage::<Message>::deserialize(bytes) {
                Ok(message) if message.header.sequence_number != self.sequence => {}
                Ok(message) => {
                    if each(message)? {
                        return Ok(true);
                    }
                }
                // One row that makes no sense costs that row.
                Err(error) => tracing::debug!("sock_diag: {error}"),
            }
            rest = rest.get(length.next_multiple_of(ALIGN).max(ALIGN)..).unwrap_or_default();
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        net::{TcpListener, TcpStream, UdpSocket},
    };

    use proxymatic_common::PROTOCOL_UDP;

    use super::*;

    fn ports(family: i32, protocol: u8) -> BTreeSet<u16> {
        let mut found = BTreeSet::new();
        let mut diag = Diag::open().unwrap();
        diag.ports(family as u8, protocol, |port| found.extend([port.get()])).unwrap();
        found
    }

    #[test]
    fn ports_are_those_of_listeners_and_of_all_datagram_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listens = listener.local_addr().unwrap();
        let client = TcpStream::connect(listens).unwrap();
        let found = ports(libc::AF_INET, PROTOCOL_TCP);
        assert!(found.contains(&listens.port()));
        assert!(!found.contains(&client.local_addr().unwrap().port()), "a connection is no listener");
        let sockets = ["127.0.0.1:0", "[::1]:0"].map(|at| UdpSocket::bind(at).unwrap());
        let [port, port6] = sockets.each_ref().map(|socket| socket.local_addr().unwrap().port());
        for _ in 0..2 {
            assert!(ports(libc::AF_INET, PROTOCOL_UDP).contains(&port));
            assert!(ports(libc::AF_INET6, PROTOCOL_UDP).contains(&port6));
            sockets[0].connect("127.0.0.1:9").unwrap();
        }
    }
}
