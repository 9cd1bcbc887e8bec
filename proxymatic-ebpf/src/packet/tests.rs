//! Tests against packets that etherparse builds and parses.

use std::{
    net::{IpAddr, SocketAddr},
    vec::Vec,
};

use etherparse::{Icmpv4Type, Icmpv6Type, IpHeaders, Ipv4Header, Ipv4Options, PacketBuilder, icmpv4, icmpv6};
use proptest::prelude::*;
use proxymatic_common::{Address, FiveTuple, Port};

use super::*;
use crate::testing::packet::FakePacket;

/// The parts of a segment or datagram.
#[derive(Clone, Debug)]
struct Made {
    from: SocketAddr,
    to: SocketAddr,
    tcp: bool,
    payload: Vec<u8>,
    ttl: u8,
    /// The length of the IPv4 options, in words.
    options: usize,
}

impl Made {
    fn tuple(&self) -> FiveTuple {
        let end = |it: SocketAddr| (Address::from(it.ip()), Port::new(it.port()));
        FiveTuple::new(end(self.from), end(self.to), if self.tcp { 6 } else { 17 })
    }

    fn packet(&self) -> Vec<u8> {
        let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let net = match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header =
                    Ipv4Header::new(0, self.ttl, etherparse::ip_number::TCP, from.octets(), to.octets()).unwrap();
                header.options = Ipv4Options::try_from(&[1; 40][..4 * self.options]).unwrap();
                link.ip(IpHeaders::Ipv4(header, Default::default()))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), self.ttl),
            _ => unreachable!("both ends are of one family"),
        };
        let mut bytes = Vec::new();
        if self.tcp {
            let segment = net.tcp(self.from.port(), self.to.port(), 7, 100).ack(9);
            segment.write(&mut bytes, &self.payload).unwrap();
        } else {
            net.udp(self.from.port(), self.to.port()).write(&mut bytes, &self.payload).unwrap();
        }
        bytes
    }
}

fn end(v4: bool) -> impl Strategy<Value = SocketAddr> {
    let address = if v4 {
        any::<[u8; 4]>().prop_map(IpAddr::from).boxed()
    } else {
        // No v4-mapped address: no IPv6 packet has one.
        any::<[u8; 16]>().prop_map(|mut it| (it[0] |= 0x20, IpAddr::from(it)).1).boxed()
    };
    (address, any::<u16>()).prop_map(|(address, port)| SocketAddr::new(address, port))
}

/// Generates a packet and its new source and destination.
fn made() -> impl Strategy<Value = (Made, SocketAddr, SocketAddr)> {
    any::<bool>().prop_flat_map(|v4| {
        let rest = (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..80), 2_u8.., 0_usize..10);
        (end(v4), end(v4), end(v4), end(v4), rest).prop_map(|(from, to, new_from, new_to, rest)| {
            let (tcp, payload, ttl, options) = rest;
            (Made { from, to, tcp, payload, ttl, options }, new_from, new_to)
        })
    })
}

fn tuple(made: &Made, from: SocketAddr, to: SocketAddr) -> FiveTuple {
    Made { from, to, ..made.clone() }.tuple()
}

fn header(wire: &FakePacket) -> L4Header {
    let (mut header, mut outer) = (L4Header::NONE, L4Header::NONE.network);
    assert_eq!(read(wire, &mut header, &mut outer), Parsed::Flow);
    header
}

proptest! {
    #[test]
    fn rewritten_packet_equals_one_built_with_the_new_ends((made, from, to) in made()) {
        let mut wire = FakePacket::new(made.packet());
        let header = header(&wire);
        prop_assert_eq!(header.tuple(), made.tuple());
        prop_assert_eq!(header.network.ttl, made.ttl);
        rewrite(&mut wire, &header, &tuple(&made, from, to)).unwrap();
        decrement_ttl(&mut wire, &header.network).unwrap();
        let ttl = made.ttl - 1;
        prop_assert_eq!(wire.bytes, Made { from, to, ttl, ..made }.packet());
    }

    #[test]
    fn datagram_without_checksum_stays_without((made, from, to) in made()) {
        let made = Made { tcp: false, ..made };
        let mut bytes = made.packet();
        let at = header(&FakePacket::new(bytes.clone())).network.transport as usize + 6;
        bytes[at..at + 2].fill(0);
        let mut wire = FakePacket::new(bytes);
        let header = header(&wire);
        rewrite(&mut wire, &header, &tuple(&made, from, to)).unwrap();
        let mut wanted = Made { from, to, ..made }.packet();
        wanted[at..at + 2].fill(0);
        prop_assert_eq!(wire.bytes, wanted);
    }

    #[test]
    fn wrong_checksum_stays_wrong((made, from, to) in made(), bit in 0_usize..16) {
        let mut bytes = made.packet();
        let header = header(&FakePacket::new(bytes.clone()));
        let at = header.network.transport as usize + if made.tcp { 16 } else { 6 };
        bytes[at + bit / 8] ^= 1 << (bit % 8);
        prop_assume!(bytes[at..at + 2] != [0, 0]);
        let mut wire = FakePacket::new(bytes);
        rewrite(&mut wire, &header, &tuple(&made, from, to)).unwrap();
        prop_assert_ne!(&wire.bytes[at..at + 2], &Made { from, to, ..made }.packet()[at..at + 2]);
    }

    #[test]
    fn icmp_error_quotes_the_packet_that_its_sender_knows(
        (made, from, to) in made(),
        (router_v4, router_v6) in (end(true), end(false)),
        cut in 0_usize..15,
    ) {
        // `from` sent the packet to `to`. The error quotes the packet as it was rewritten.
        let quoted = &made.packet()[14..];
        let v4 = made.from.is_ipv4();
        let head = (if v4 { 20 + 4 * made.options } else { 40 }) + 8;
        // Cut at words, as routers do: a checksum is quoted whole or not at all.
        let cut = (head + 4 * cut).min(quoted.len());
        let router = if v4 { router_v4 } else { router_v6 };
        let error = error(router.ip(), made.from.ip(), &quoted[..cut]);
        let mut wire = FakePacket::new(error);
        let (mut header, mut outer) = (L4Header::NONE, L4Header::NONE.network);
        prop_assert_eq!(read(&wire, &mut header, &mut outer), Parsed::Error);
        prop_assert_eq!(header.tuple(), made.tuple());
        let (source, destination) = (router.ip().into(), from.ip().into());
        rewrite_error(&mut wire, &outer, &header, (&source, &destination), &tuple(&made, from, to)).unwrap();
        let known = Made { from, to, ..made }.packet();
        let wanted = self::error(router.ip(), from.ip(), &known[14..][..cut]);
        prop_assert_eq!(wire.bytes, wanted);
    }

    #[test]
    fn any_bytes_are_parsed_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..120), kind in 0..3) {
        let mut bytes = bytes;
        if let (Some(place), true) = (bytes.get_mut(12..15), kind > 0) {
            place.copy_from_slice(if kind == 1 { &[8, 0, 0x45] } else { &[0x86, 0xdd, 0x60] });
        }
        let (mut header, mut outer) = (L4Header::NONE, L4Header::NONE.network);
        let _ = read(&FakePacket::new(bytes), &mut header, &mut outer);
    }
}

/// Builds a port unreachable error.
fn error(from: IpAddr, to: IpAddr, quoted: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
    let mut bytes = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let kind = Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port);
            link.ipv4(from.octets(), to.octets(), 60).icmpv4(kind).write(&mut bytes, quoted).unwrap();
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let kind = Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port);
            link.ipv6(from.octets(), to.octets(), 60).icmpv6(kind).write(&mut bytes, quoted).unwrap();
        }
        _ => unreachable!("both ends are of one family"),
    }
    bytes
}
