//! Rewrites addresses, ports, TTL and checksums of packets.

use proxymatic_common::{Address, FiveTuple, PROTOCOL_TCP, PROTOCOL_UDP, Port};

use super::{ChecksumDelta, ChecksumKind, Fragment, IpHeader, L4Header, Packet};

/// Rewrites the addresses and ports of a packet. Checksums are updated by the difference (RFC 1624), so a wrong
/// checksum stays wrong. Returns `None` if the packet could not be rewritten.
#[inline(always)]
pub fn rewrite<P: Packet>(packet: &mut P, header: &L4Header, to: &FiveTuple) -> Option<()> {
    let network = &header.network;
    let addresses = addresses(packet, network, &to.source, &to.destination)?;
    if network.fragment == Fragment::NonFirst {
        // The first fragment has the checksum, and covers the change.
        return Some(());
    }
    let ports = ports(packet, network.transport, (header.source_port, header.destination_port), to)?;
    if header.has_checksum {
        let (at, sum) = checksum(network);
        packet.fix_l4_csum(at, addresses, ChecksumKind { pseudo: true, ..sum })?;
        packet.fix_l4_csum(at, ports, sum)?;
    }
    Some(())
}

/// Decrements the TTL, which must be more than 1.
#[inline(always)]
pub fn decrement_ttl<P: Packet>(packet: &mut P, network: &IpHeader) -> Option<()> {
    let ttl = network.ttl.wrapping_sub(1);
    if !network.v4 {
        return packet.store_without_checksum(network.at + 7, [ttl]);
    }
    packet.store(network.at + 8, [ttl])?;
    let of = |ttl: u8| u16::from_ne_bytes([ttl, network.protocol]);
    packet.fix_ip_csum(network.at + 10, ChecksumDelta::NONE.half(of(network.ttl), of(ttl)))
}

/// Rewrites the addresses of an ICMP error, and the quoted packet's addresses and ports to those that the receiver
/// knows.
///
/// The ICMP checksum covers every change in the quoted packet, including the quoted checksums. It does not depend on
/// how much of the packet is quoted.
#[inline(always)]
pub fn rewrite_error<P: Packet>(
    packet: &mut P,
    outer: &IpHeader,
    header: &L4Header,
    (source, destination): (&Address, &Address),
    quoted: &FiveTuple,
) -> Option<()> {
    let inner = &header.network;
    let mut change = addresses(packet, inner, &quoted.source, &quoted.destination)?;
    if inner.v4 {
        // The IPv4 header checksum compensates for the changed addresses.
        change = ChecksumDelta::NONE;
    }
    let ports = ports(packet, inner.transport, (header.source_port, header.destination_port), quoted)?;
    change = change.and(ports);
    if header.has_checksum {
        let (at, sum) = checksum(inner);
        let before = u16::from_ne_bytes(packet.load::<2>(at)?);
        let all = ChecksumDelta::NONE
            .address(&inner.source, &quoted.source)
            .address(&inner.destination, &quoted.destination)
            .and(ports);
        let mut after = all.applied(before);
        if sum.udp && after == 0 {
            after = 0xffff;
        }
        packet.store(at, after.to_ne_bytes())?;
        change = change.half(before, after);
    }
    let moved = addresses(packet, outer, source, destination)?;
    let (at, sum) = (outer.transport + 2, ChecksumKind { udp: false, pseudo: false, v6: !outer.v4 });
    if !outer.v4 {
        // ICMPv6 has a pseudo header, ICMP has none.
        packet.fix_l4_csum(at, moved, ChecksumKind { pseudo: true, ..sum })?;
    }
    packet.fix_l4_csum(at, change, sum)
}

/// Rewrites the addresses of an IP header and fixes its checksum. Returns the difference, for other checksums.
#[inline(always)]
fn addresses<P: Packet>(
    packet: &mut P,
    network: &IpHeader,
    source: &Address,
    destination: &Address,
) -> Option<ChecksumDelta> {
    let change = ChecksumDelta::NONE.address(&network.source, source).address(&network.destination, destination);
    if network.v4 {
        packet.store(network.at + 12, join(source.v4_word(), destination.v4_word()))?;
        packet.fix_ip_csum(network.at + 10, change)?;
    } else {
        packet.store(network.at + 8, bytes(source))?;
        packet.store(network.at + 24, bytes(destination))?;
    }
    Some(change)
}

/// Rewrites the ports of a TCP or UDP header; both have them at the same offset. Returns the difference.
#[inline(always)]
fn ports<P: Packet>(packet: &mut P, at: u32, from: (Port, Port), to: &FiveTuple) -> Option<ChecksumDelta> {
    let ([a, b], [c, d]) = (to.source_port.word().to_ne_bytes(), to.destination_port.word().to_ne_bytes());
    packet.store(at, [a, b, c, d])?;
    Some(ChecksumDelta::NONE.port(from.0, to.source_port).port(from.1, to.destination_port))
}

/// Returns the offset and the kind of the TCP or UDP checksum.
#[inline(always)]
const fn checksum(network: &IpHeader) -> (u32, ChecksumKind) {
    let offset = if network.protocol == PROTOCOL_TCP { 16 } else { 6 };
    let sum = ChecksumKind { udp: network.protocol == PROTOCOL_UDP, pseudo: false, v6: !network.v4 };
    (network.transport + offset, sum)
}

#[inline(always)]
fn join(a: u32, b: u32) -> [u8; 8] {
    let ([a, b, c, d], [e, f, g, h]) = (a.to_ne_bytes(), b.to_ne_bytes());
    [a, b, c, d, e, f, g, h]
}

#[inline(always)]
fn bytes(address: &Address) -> [u8; 16] {
    let [a, b, c, d] = address.v6_words();
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.to_ne_bytes(), b.to_ne_bytes());
    let ([c0, c1, c2, c3], [d0, d1, d2, d3]) = (c.to_ne_bytes(), d.to_ne_bytes());
    [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3]
}
