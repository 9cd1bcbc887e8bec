//! `Row`: one socket, as sock_diag shows it.

use std::time::Duration;

use netlink_packet_core::{NLA_TYPE_MASK, Nla as _, NlasIterator};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags, nlas::Nla};
use proxymatic_common::{Address, PROTOCOL_UDP, Port, Socket, Translation};

use crate::dataplane::kernel::from_bytes;

/// From linux/inet_diag.h.
const INET_DIAG_SK_BPF_STORAGES: u16 = 20;
/// From linux/sock_diag.h.
const SK_DIAG_BPF_STORAGE: u16 = 1;
const SK_DIAG_BPF_STORAGE_MAP_VALUE: u16 = 3;
/// From linux/tcp.h: byte offsets in `struct tcp_info`.
const TCPI_LAST_DATA_SENT: usize = 44;
const TCPI_LAST_DATA_RECV: usize = 52;
const TCPI_RTT: usize = 68;
const TCPI_BYTES_ACKED: usize = 120;
const TCPI_BYTES_RECEIVED: usize = 128;

/// TCP_ESTABLISHED, which sock_diag also reports for a connected UDP socket.
pub(super) const ESTABLISHED: u8 = 1;

/// The traffic of a TCP connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// Smoothed round trip time, in microseconds.
    pub rtt_us: u32,
    /// Bytes that the peer has acknowledged.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
}

/// A socket that may have a translation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// IPPROTO number.
    pub protocol: u8,
    /// Whether a UDP socket has a peer, or a TCP connection is established.
    pub connected: bool,
    /// The present peer.
    pub peer: Address,
    /// The port of its peer.
    pub peer_port: Port,
    /// Its own address.
    pub local: Address,
    /// Its own port.
    pub local_port: Port,
    /// The traffic; `None` if the kernel does not report it, as for UDP.
    pub traffic: Option<Traffic>,
    /// How long neither side has sent data; `None` if the kernel does not report it, as for UDP.
    pub idle: Option<Duration>,
    /// The translations, as far as sock_diag shows them: none for UDP.
    pub socket: Socket,
    /// The inode of the socket.
    pub(super) inode: u32,
    /// AF_INET or AF_INET6.
    pub(super) family: u8,
    pub(super) id: SocketId,
}

impl Row {
    /// Converts an answer; `None` for a TCP socket without translation, or for an answer that cannot be decoded.
    pub(super) fn read(answer: &InetResponse, protocol: u8) -> Option<Self> {
        let socket = match answer.nlas.iter().find_map(storage) {
            None if protocol == PROTOCOL_UDP => Socket::NEW,
            socket => socket?,
        };
        let id = answer.header.socket_id.clone();
        Some(Self {
            protocol,
            connected: answer.header.state == ESTABLISHED && id.destination_port != 0,
            peer: id.destination_address.into(),
            peer_port: Port::new(id.destination_port),
            local: id.source_address.into(),
            local_port: Port::new(id.source_port),
            traffic: answer.nlas.iter().find_map(traffic),
            idle: answer.nlas.iter().find_map(idle),
            inode: answer.header.inode,
            socket,
            family: answer.header.family,
            id,
        })
    }

    /// Returns the translation of the socket's connect(2), if the socket is still connected to that backend.
    pub fn connection(&self) -> Option<&Translation> {
        let [made, ..] = &self.socket.ring;
        let matches = made.backend_address == self.peer && made.backend_port == self.peer_port;
        (self.connected && matches && self.peer_port != Port::new(0)).then_some(made)
    }

    /// Returns the request that destroys exactly this socket.
    pub(super) fn destroy_request(&self) -> InetRequest {
        InetRequest {
            family: self.family,
            protocol: self.protocol,
            extensions: ExtensionFlags::empty(),
            states: StateFlags::empty(),
            socket_id: self.id.clone(),
        }
    }

    /// A connected socket, for tests.
    #[cfg(test)]
    pub(super) fn of(protocol: u8, peer: Address, peer_port: Port, socket: Socket) -> Self {
        Self {
            protocol,
            connected: true,
            peer,
            peer_port,
            local: Address::ZERO,
            local_port: Port::new(0),
            traffic: None,
            idle: None,
            socket,
            inode: 0,
            family: 2,
            id: SocketId::new_v4(),
        }
    }

    /// The cookie, which is unique within a namespace.
    pub(super) const fn cookie(&self) -> [u8; 8] {
        self.id.cookie
    }
}

/// Returns the value of our map: the only one in the nested attribute, because the request named one map.
fn storage(attribute: &Nla) -> Option<Socket> {
    let Nla::Other(nest) = attribute else { return None };
    if nest.kind() & NLA_TYPE_MASK != INET_DIAG_SK_BPF_STORAGES {
        return None;
    }
    let mut maps = vec![0; nest.value_len()];
    nest.emit_value(&mut maps);
    let mut storages = NlasIterator::new(maps.as_slice()).map_while(Result::ok);
    let ours = storages.find(|attribute| attribute.kind() & NLA_TYPE_MASK == SK_DIAG_BPF_STORAGE)?;
    let mut fields = NlasIterator::new(ours.value()).map_while(Result::ok);
    from_bytes(fields.find(|attribute| attribute.kind() == SK_DIAG_BPF_STORAGE_MAP_VALUE)?.value())
}

fn traffic(attribute: &Nla) -> Option<Traffic> {
    let Nla::TcpInfo(info) = attribute else { return None };
    let long = |at: usize| Some(u64::from_ne_bytes(info.get(at..at + 8)?.try_into().ok()?));
    Some(Traffic {
        rtt_us: u32::from_ne_bytes(info.get(TCPI_RTT..TCPI_RTT + 4)?.try_into().ok()?),
        sent: long(TCPI_BYTES_ACKED)?,
        received: long(TCPI_BYTES_RECEIVED)?,
    })
}

fn idle(attribute: &Nla) -> Option<Duration> {
    let Nla::TcpInfo(info) = attribute else { return None };
    let field = |at: usize| Some(u32::from_ne_bytes(info.get(at..at + 4)?.try_into().ok()?));
    // As with both timeouts of HAProxy, a side is idle only while nothing is sent in either direction.
    let ms = field(TCPI_LAST_DATA_SENT)?.min(field(TCPI_LAST_DATA_RECV)?);
    Some(Duration::from_millis(ms.into()))
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::Parseable as _;
    use proptest::prelude::*;
    use proxymatic_common::PROTOCOL_TCP;

    use super::*;

    /// What Linux 6.18 reports of a TCP socket from 10.77.0.1 that connected to 127.0.0.1:1234 and got
    /// 10.77.0.2:8001, without the trailing zeros; the value of the map has the fields of version 6.
    const CAPTURED: &str = "\
        0201000083781f410a4d00010000000000000000000000000a4d000200000000000000000000000000000000df140000\
        00000000000000000000000000000000000000005c223201050008000000000008000f00000000000c001500581f0000\
        0000000006001600520000001c010200010000000007aa01e01c030000000000a8050000180200000000000000000000\
        00000000000000000000000044070000000000004407000044070000dc05000058fa00004a00000025000000ffffff7f\
        0a000000a805000003000000000000009038000000000000ace5542100000000ffffffffffffffff0100000000000000\
        00000000000000000200000001000000000000004a000000000000000000000000000000000000000000000000000000\
        000000000000000000000000000000000100000000000000000000000000000000000000000000000000000000000000\
        0000000088fe000000fc0000000000000000000000000000000000000000000000000000000000000000000000000000\
        0000000000000000bc011480b801018008000200360a0000ac010300143bfed344030000000000000000000000000000\
        000000000000000000000000000000000000000000000000000000000000ffff7f00000100000000000000000000ffff\
        0a4d000204d21f41000000000100000001";
    const LENGTH: usize = 836;

    fn captured() -> Vec<u8> {
        let byte = |at| u8::from_str_radix(&CAPTURED[at..at + 2], 16).unwrap();
        let mut bytes: Vec<_> = (0..CAPTURED.len()).step_by(2).map(byte).collect();
        bytes.resize(LENGTH, 0);
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Row> {
        Row::read(&InetResponse::parse(bytes).ok()?, PROTOCOL_TCP)
    }

    #[test]
    fn socket_is_read_with_its_translations() {
        let row = read(&captured()).unwrap();
        let at = |text: &str| text.parse::<std::net::IpAddr>().unwrap().into();
        assert!(row.connected);
        assert_eq!((row.peer, row.peer_port), (at("10.77.0.2"), Port::new(8001)));
        assert_eq!(row.idle, Some(Duration::from_millis(1_860)));
        assert_eq!((row.local, row.local_port), (at("10.77.0.1"), Port::new(0x8378)));
        assert_eq!(row.traffic, Some(Traffic { rtt_us: 74, sent: 1, received: 0 }));
        let made = row.connection().unwrap();
        assert_eq!((made.destination, made.destination_port), (at("127.0.0.1"), Port::new(1234)));
        assert_eq!((made.backend_address, made.backend_port), (row.peer, row.peer_port));
        assert_eq!((made.backend, made.generation, made.counted), (0, 1, 1));
        assert_eq!(row.socket.ring[1..], [Translation::NONE; proxymatic_common::RING - 1]);
        // A row identifies its socket by the cookie.
        assert_eq!(row.destroy_request().socket_id.cookie, row.cookie());
        assert_ne!(row.cookie(), [0; 8]);
    }

    #[test]
    fn socket_without_a_translation_is_no_row() {
        let bytes = captured();
        let storage = bytes.len() - 444;
        assert_eq!(bytes[storage..storage + 4], [0xbc, 0x01, 0x14, 0x80]);
        assert_eq!(read(&bytes[..storage]), None);
    }

    proptest! {
        #[test]
        fn any_answer_can_be_read(at in 0_usize..LENGTH, value in any::<u8>(), length in 0_usize..LENGTH) {
            let mut bytes = captured();
            bytes[at] = value;
            let _ = read(&bytes[..length]);
            let _ = read(&bytes);
        }
    }
}
