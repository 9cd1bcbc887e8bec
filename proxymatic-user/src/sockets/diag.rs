//! A sock_diag socket, for the sockets of the namespace in which it was opened.

use std::{
    io,
    os::fd::{AsFd as _, RawFd},
};

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_SOCK_DIAG};
use nix::{
    libc,
    sys::{
        socket::{setsockopt, sockopt},
        time::TimeVal,
    },
};
use proxymatic_common::{PROTOCOL_TCP, PROTOCOL_UDP, Port};

use super::{
    listening::ListeningSocket,
    message::Message,
    row::{ESTABLISHED, Row},
};

/// Larger than any datagram of a dump.
const BUFFER: usize = 1 << 16;
/// The kernel answers at once, so a later answer is a fault.
const TIMEOUT_S: i64 = 5;
/// NLMSG_ALIGNTO.
const ALIGN: usize = 4;

/// A netlink socket to sock_diag.
pub(super) struct Diag {
    socket: Socket,
    buffer: Vec<u8>,
    sequence: u32,
}

impl Diag {
    /// Opens a netlink socket for the namespace that this thread is in.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        setsockopt(&socket.as_fd(), sockopt::ReceiveTimeout, &TimeVal::new(TIMEOUT_S, 0))?;
        Ok(Self { socket, buffer: Vec::with_capacity(BUFFER), sequence: 0 })
    }

    /// Calls `each` for the sockets of a family (AF_INET or AF_INET6) and a protocol that have a value in a map.
    pub(super) fn dump(&mut self, family: u8, protocol: u8, map: RawFd, mut each: impl FnMut(Row)) -> io::Result<()> {
        let (extensions, states) = match protocol {
            // Listeners have no translation, and a connection in TIME_WAIT has no socket.
            PROTOCOL_TCP => (ExtensionFlags::INFO, !(StateFlags::LISTEN | StateFlags::TIME_WAIT)),
            _ => (ExtensionFlags::empty(), StateFlags::all()),
        };
        self.list((family, protocol), extensions, states, Some(map), |answer| {
            if let Some(row) = Row::read(answer, protocol) {
                each(row);
            }
        })
    }

    /// Calls `each` with each socket that other programs can reach: TCP listeners, and all UDP sockets. A connected UDP
    /// socket counts too, because disconnecting opens it to all.
    pub(super) fn listeners(
        &mut self,
        family: u8,
        protocol: u8,
        mut each: impl FnMut(ListeningSocket),
    ) -> io::Result<()> {
        let states = if protocol == PROTOCOL_TCP { StateFlags::LISTEN } else { StateFlags::all() };
        self.list((family, protocol), ExtensionFlags::empty(), states, None, |answer| {
            let id = &answer.header.socket_id;
            each(ListeningSocket {
                protocol,
                address: id.source_address.into(),
                port: Port::new(id.source_port),
                ifindex: id.interface_id,
                connected: protocol == PROTOCOL_UDP && answer.header.state == ESTABLISHED,
                v6_only: answer.nlas.contains(&Nla::SkV6Only(true)),
            });
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

    /// Destroys a socket, so that its program gets ECONNABORTED. Returns false if the socket is gone.
    pub(super) fn destroy(&mut self, row: &Row) -> io::Result<bool> {
        self.destroy_by_id(row.destroy_request())
    }

    /// Destroys the socket with these addresses and this cookie. Returns false if there is none.
    pub(super) fn destroy_by_id(&mut self, request: InetRequest) -> io::Result<bool> {
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

    /// Reads one datagram and calls `each` for its messages that answer the last request, until `each` returns true.
    fn receive(&mut self, mut each: impl FnMut(NetlinkMessage<Message>) -> io::Result<bool>) -> io::Result<bool> {
        self.buffer.clear();
        let length = self.socket.recv(&mut self.buffer, 0)?;
        let mut rest =
            self.buffer.get(..length).ok_or_else(|| io::Error::other("sock_diag sent too long a datagram"))?;
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
                // A message that cannot be decoded costs only itself.
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

    use proxymatic_common::Address;

    use super::*;

    fn listeners(family: i32, protocol: u8) -> Vec<ListeningSocket> {
        let mut found = Vec::new();
        let mut diag = Diag::open().unwrap();
        diag.listeners(family as u8, protocol, |socket| found.push(socket)).unwrap();
        found
    }

    fn ports(family: i32, protocol: u8) -> BTreeSet<u16> {
        listeners(family, protocol).iter().map(|socket| socket.port.get()).collect()
    }

    /// The listener on a port, which must be the only one.
    fn on(port: u16, family: i32, protocol: u8) -> ListeningSocket {
        let found: Vec<_> = listeners(family, protocol).into_iter().filter(|it| it.port.get() == port).collect();
        let [one] = found[..] else { panic!("{found:?}") };
        one
    }

    #[test]
    fn ports_are_those_of_listeners_and_all_udp_sockets() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listens = listener.local_addr().unwrap();
        let client = TcpStream::connect(listens).unwrap();
        let found = ports(libc::AF_INET, PROTOCOL_TCP);
        assert!(found.contains(&listens.port()));
        assert!(!found.contains(&client.local_addr().unwrap().port()), "a connection is not a listener");
        let sockets = ["127.0.0.1:0", "[::1]:0"].map(|at| UdpSocket::bind(at).unwrap());
        let [port, port6] = sockets.each_ref().map(|socket| socket.local_addr().unwrap().port());
        for _ in 0..2 {
            assert!(ports(libc::AF_INET, PROTOCOL_UDP).contains(&port));
            assert!(ports(libc::AF_INET6, PROTOCOL_UDP).contains(&port6));
            sockets[0].connect("127.0.0.1:9").unwrap();
        }
    }
    #[test]
    fn listener_is_shown_with_address_interface_and_family() {
        let any = |text: &str| Address::from(text.parse::<std::net::IpAddr>().unwrap());
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        setsockopt(&udp, sockopt::BindToDevice, &"lo".into()).unwrap();
        let port = udp.local_addr().unwrap().port();
        let shown = on(port, libc::AF_INET, PROTOCOL_UDP);
        assert_eq!((shown.address, shown.ifindex, shown.connected), (any("127.0.0.1"), 1, false));
        udp.connect("127.0.0.1:9").unwrap();
        assert!(on(port, libc::AF_INET, PROTOCOL_UDP).connected);
        let both = TcpListener::bind("[::]:0").unwrap();
        let shown = on(both.local_addr().unwrap().port(), libc::AF_INET6, PROTOCOL_TCP);
        assert_eq!((shown.address, shown.ifindex, shown.v6_only), (Address::ZERO, 0, false));
        let udp6 = UdpSocket::bind("[::1]:0").unwrap();
        setsockopt(&udp6, sockopt::Ipv6V6Only, &true).unwrap_or_default();
        let shown = on(udp6.local_addr().unwrap().port(), libc::AF_INET6, PROTOCOL_UDP);
        assert_eq!((shown.address, shown.connected), (any("::1"), false));
    }
}
