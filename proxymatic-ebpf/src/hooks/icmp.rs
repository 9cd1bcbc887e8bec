//! ICMP errors that this host sends about packets that it cannot forward.

use proxymatic_common::{Address, PROTOCOL_TCP};
use proxymatic_ebpf::packet::{
    ChecksumDelta, ChecksumKind, ETH_HLEN, IcmpError, IpHeader, PROTOCOL_ICMP, PROTOCOL_ICMPV6, Packet as _,
};

use super::skb::Skb;

/// The lengths in bytes of an IPv4 header without options, an IPv6 header, and ICMP, TCP and UDP headers.
const V4: u32 = 20;
const V6: u32 = 40;
const ICMP: u32 = 8;
const TCP: usize = 20;
const UDP: usize = 8;
/// The TTL of the error.
const TTL: u8 = 64;

/// Turns a packet into an error about it (RFC 792, RFC 4443), which quotes its headers. A TCP header is quoted whole,
/// since a checksum that is left to the interface must stay in the packet. Returns `None` if the headers have options
/// or if there is no memory: the packet is then unusable.
#[inline(always)]
pub(super) fn turn_into_error(skb: &mut Skb<'_>, header: &IpHeader, error: IcmpError) -> Option<()> {
    match (header.v4, header.transport, header.protocol) {
        (true, 34, PROTOCOL_TCP) => quote::<{ V4 as usize }, TCP>(skb, header, error),
        (true, 34, _) => quote::<{ V4 as usize }, UDP>(skb, header, error),
        (false, 54, PROTOCOL_TCP) => quote::<{ V6 as usize }, TCP>(skb, header, error),
        (false, 54, _) => quote::<{ V6 as usize }, UDP>(skb, header, error),
        _ => None,
    }
}

/// Quotes `N` bytes of the IP header and `T` bytes of the transport header.
#[inline(always)]
fn quote<const N: usize, const T: usize>(skb: &mut Skb<'_>, header: &IpHeader, error: IcmpError) -> Option<()> {
    let link = skb.load::<12>(0)?;
    let back =
        [link[6], link[7], link[8], link[9], link[10], link[11], link[0], link[1], link[2], link[3], link[4], link[5]];
    let quoted = sum(&skb.load::<N>(ETH_HLEN)?).and(match left_to_interface(skb, header)? {
        // The interface's sum is the complement of the value in the checksum field.
        Some(field) => ChecksumDelta::NONE.plus(u32::from(!field)),
        None => sum(&skb.load::<T>(header.transport)?),
    });
    let quotes = (N + T) as u32;
    skb.cut(ETH_HLEN + quotes)?;
    let mut icmp = icmp(header.v4, error);
    if header.v4 {
        skb.grow(V4 + ICMP)?;
        let sum = ChecksumDelta::NONE.plus(word(&icmp, 0)).plus(word(&icmp, 4)).and(quoted);
        [icmp[2], icmp[3]] = (!sum.folded()).to_ne_bytes();
        skb.store(ETH_HLEN, v4(header, quotes))?;
        skb.store(ETH_HLEN + V4, icmp)?;
    } else {
        skb.grow(V6 + ICMP)?;
        let length = (ICMP + quotes) as u16;
        let pseudo = ChecksumDelta::NONE
            .address(&Address::ZERO, &header.source)
            .address(&Address::ZERO, &header.destination)
            .plus(u32::from(length.to_be()))
            .plus(u32::from(u16::from(PROTOCOL_ICMPV6).to_be()));
        let sum = pseudo.plus(word(&icmp, 0)).plus(word(&icmp, 4)).and(quoted);
        [icmp[2], icmp[3]] = (!sum.folded()).to_ne_bytes();
        let [a, b] = length.to_be_bytes();
        skb.store(ETH_HLEN, [0x60, 0, 0, 0, a, b, PROTOCOL_ICMPV6, TTL])?;
        skb.store(ETH_HLEN + 8, octets(&header.destination))?;
        skb.store(ETH_HLEN + 24, octets(&header.source))?;
        skb.store(ETH_HLEN + V6, icmp)?;
    }
    skb.store(0, back)
}

/// Returns the ICMP header without a checksum.
#[inline(always)]
const fn icmp(v4: bool, error: IcmpError) -> [u8; 8] {
    match (v4, error) {
        // Fragmentation needed.
        (true, IcmpError::TooBig(mtu)) => {
            let [_, _, a, b] = mtu.to_be_bytes();
            [3, 4, 0, 0, 0, 0, a, b]
        }
        (true, IcmpError::TtlExceeded) => [11, 0, 0, 0, 0, 0, 0, 0],
        (false, IcmpError::TooBig(mtu)) => {
            let [a, b, c, d] = mtu.to_be_bytes();
            [2, 0, 0, 0, a, b, c, d]
        }
        (false, IcmpError::TtlExceeded) => [3, 0, 0, 0, 0, 0, 0, 0],
    }
}

/// Returns an IPv4 header from the packet's destination to its source.
#[inline(always)]
fn v4(header: &IpHeader, quotes: u32) -> [u8; 20] {
    let [l0, l1] = ((V4 + ICMP + quotes) as u16).to_be_bytes();
    let ([s0, s1, s2, s3], [d0, d1, d2, d3]) =
        (header.destination.v4_word().to_ne_bytes(), header.source.v4_word().to_ne_bytes());
    let mut new = [0x45, 0xc0, l0, l1, 0, 0, 0x40, 0, TTL, PROTOCOL_ICMP, 0, 0, s0, s1, s2, s3, d0, d1, d2, d3];
    [new[10], new[11]] = (!sum(&new).folded()).to_ne_bytes();
    new
}

/// Returns the checksum field of a packet whose checksum is left to the interface. The field then holds the sum of the
/// pseudo header, and the kernel does not change it for a change in data that the interface sums.
#[inline(always)]
fn left_to_interface(skb: &mut Skb<'_>, header: &IpHeader) -> Option<Option<u16>> {
    let tcp = header.protocol == PROTOCOL_TCP;
    let at = header.transport + if tcp { 16 } else { 6 };
    let before = u16::from_ne_bytes(skb.load::<2>(at)?);
    let plain = ChecksumKind { udp: false, pseudo: false, v6: false };
    skb.fix_l4_csum(at, ChecksumDelta::NONE.plus(1), plain)?;
    let after = u16::from_ne_bytes(skb.load::<2>(at)?);
    skb.store(at, before.to_ne_bytes())?;
    Some((after == before).then_some(before))
}

#[inline(always)]
fn sum<const N: usize>(bytes: &[u8; N]) -> ChecksumDelta {
    let mut sum = ChecksumDelta::NONE;
    let mut i = 0;
    while i + 4 <= N {
        sum = sum.plus(word(bytes, i));
        i += 4;
    }
    sum
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8; N], i: usize) -> u32 {
    u32::from_ne_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]])
}

#[inline(always)]
fn octets(address: &Address) -> [u8; 16] {
    let [a, b, c, d] = address.v6_words();
    let ([a0, a1, a2, a3], [b0, b1, b2, b3]) = (a.to_ne_bytes(), b.to_ne_bytes());
    let ([c0, c1, c2, c3], [d0, d1, d2, d3]) = (c.to_ne_bytes(), d.to_ne_bytes());
    [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3]
}
