//! Parses the headers of packets.

use proxymatic_common::{Address, FiveTuple, FragmentKey, PROTOCOL_TCP, PROTOCOL_UDP, Port};

use super::{ETH_HLEN, PROTOCOL_ICMP, PROTOCOL_ICMPV6, Packet};

/// The ethertypes of IPv4 and IPv6, in network order.
const ETHERTYPE_V4: u16 = 0x0800_u16.to_be();
const ETHERTYPE_V6: u16 = 0x86dd_u16.to_be();
/// How many IPv6 extension headers are skipped at most.
const EXTENSIONS: u32 = 4;
/// Extension headers of IPv6 (RFC 8200).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// The part of a fragmented packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Fragment {
    /// The packet is not fragmented.
    None,
    /// The first fragment, which has the ports.
    First,
    /// A later fragment, which has no ports.
    NonFirst,
}

impl Fragment {
    /// Returns the part that the more-fragments flag and the offset name.
    #[inline(always)]
    const fn new(more: bool, offset: u16) -> Self {
        match (more, offset) {
            (false, 0) => Self::None,
            (true, 0) => Self::First,
            _ => Self::NonFirst,
        }
    }
}

/// An IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpHeader {
    /// Whether it is an IPv4 header.
    pub v4: bool,
    /// The offset of the header.
    pub at: u32,
    /// The offset of the transport header.
    pub transport: u32,
    /// The source address.
    pub source: Address,
    /// The destination address.
    pub destination: Address,
    /// IPPROTO number of the transport protocol.
    pub protocol: u8,
    /// TTL of IPv4, or hop limit of IPv6.
    pub ttl: u8,
    /// The part of a fragmented packet.
    pub fragment: Fragment,
    /// The identification of a fragmented packet, in network order.
    pub id: u32,
}

impl IpHeader {
    /// Returns the key that all fragments of a packet have.
    #[inline(always)]
    pub const fn fragments(&self) -> FragmentKey {
        FragmentKey {
            source: self.source,
            destination: self.destination,
            id: self.id,
            protocol: self.protocol,
            _pad: [0; 3],
        }
    }
}

/// A set of TCP flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u8);

impl Flags {
    /// The sender sends no more data.
    pub const FIN: Self = Self(1);
    /// Opens a connection.
    pub const SYN: Self = Self(2);
    /// Resets the connection.
    pub const RST: Self = Self(4);
    /// The acknowledgement number is valid.
    pub const ACK: Self = Self(16);

    /// Returns whether this set has all flags of another.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Returns whether a flag that changes the state of a connection is set.
    #[inline(always)]
    pub const fn changes_state(self) -> bool {
        self.0 & (Self::FIN.0 | Self::SYN.0 | Self::RST.0) != 0
    }
}

/// The headers of a TCP segment or UDP datagram. Ports and flags of a later fragment are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct L4Header {
    /// The IP header.
    pub network: IpHeader,
    /// The source port.
    pub source_port: Port,
    /// The destination port.
    pub destination_port: Port,
    /// The TCP flags; none for UDP.
    pub flags: Flags,
    /// The TCP sequence number, in host order.
    pub sequence: u32,
    /// The TCP acknowledgement number, in host order.
    pub acknowledged: u32,
    /// Whether the packet has a transport checksum: UDP may have none.
    pub has_checksum: bool,
}

impl L4Header {
    /// Returns the tuple of the packet.
    #[inline(always)]
    pub const fn tuple(&self) -> FiveTuple {
        let network = &self.network;
        FiveTuple::new(
            (network.source, self.source_port),
            (network.destination, self.destination_port),
            network.protocol,
        )
    }
}

/// The kind of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Parsed {
    /// None of the kinds below.
    Other,
    /// May be one of the kinds below, but has headers that [`read`] does not support.
    Unreadable,
    /// A TCP segment or UDP datagram, or a fragment of one.
    Flow,
    /// An ICMP error that quotes a TCP segment or UDP datagram.
    Error,
}

impl Parsed {
    /// Returns the number by which a BPF subprogram takes or returns this kind.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self as u32
    }

    /// Returns the kind of a number that [`Parsed::word`] returned; [`Parsed::Other`] for any other number.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        const UNREADABLE: u32 = Parsed::Unreadable.word();
        const FLOW: u32 = Parsed::Flow.word();
        const ERROR: u32 = Parsed::Error.word();
        match word {
            UNREADABLE => Self::Unreadable,
            FLOW => Self::Flow,
            ERROR => Self::Error,
            _ => Self::Other,
        }
    }
}

impl L4Header {
    /// Headers with all fields zero.
    pub const NONE: Self = Self {
        network: IpHeader {
            v4: false,
            at: 0,
            transport: 0,
            source: Address::ZERO,
            destination: Address::ZERO,
            protocol: 0,
            ttl: 0,
            fragment: Fragment::None,
            id: 0,
        },
        source_port: Port::new(0),
        destination_port: Port::new(0),
        flags: Flags(0),
        sequence: 0,
        acknowledged: 0,
        has_checksum: false,
    };
}

/// Parses a packet into `header`. For an ICMP error, `header` gets the headers that the error quotes, and `outer` gets
/// the IP header of the error.
#[inline(always)]
pub fn read<P: Packet>(packet: &P, header: &mut L4Header, outer: &mut IpHeader) -> Parsed {
    let Some(v4) = is_v4(packet) else { return Parsed::Other };
    let read = network(packet, ETH_HLEN, v4, &mut header.network);
    if read != Parsed::Flow {
        return read;
    }
    match header.network.protocol {
        PROTOCOL_TCP | PROTOCOL_UDP => flow(packet, header),
        PROTOCOL_ICMP if v4 => error(packet, header, outer),
        PROTOCOL_ICMPV6 if !v4 => error(packet, header, outer),
        _ => Parsed::Other,
    }
}

/// Parses a packet of one address family without options, extension headers or fragmentation. Returns false for any
/// other packet. All offsets are constants.
#[inline(always)]
pub fn read_plain<P: Packet, const V4: bool>(packet: &P, header: &mut L4Header) -> bool {
    let into = &mut header.network;
    into.v4 = V4;
    into.at = ETH_HLEN;
    if V4 {
        let Some(bytes) = packet.load::<20>(ETH_HLEN) else { return false };
        // Version 4, five words, not fragmented.
        if bytes[0] != 0x45 || u16::from_be_bytes([bytes[6], bytes[7]]) & 0x3fff != 0 {
            return false;
        }
        into.transport = ETH_HLEN + 20;
        into.source = Address::from_v4_word(word(&bytes, 12));
        into.destination = Address::from_v4_word(word(&bytes, 16));
        into.protocol = bytes[9];
        into.ttl = bytes[8];
    } else {
        let Some(bytes) = packet.load::<40>(ETH_HLEN) else { return false };
        if bytes[0] >> 4 != 6 {
            return false;
        }
        let words = |i| [word(&bytes, i), word(&bytes, i + 4), word(&bytes, i + 8), word(&bytes, i + 12)];
        into.transport = ETH_HLEN + 40;
        into.source = Address::from_v6_words(words(8));
        into.destination = Address::from_v6_words(words(24));
        into.protocol = bytes[6];
        into.ttl = bytes[7];
    }
    (into.protocol == PROTOCOL_TCP || into.protocol == PROTOCOL_UDP) && flow(packet, header) == Parsed::Flow
}

/// Returns whether a packet is IPv4 and not IPv6, by its ethertype; `None` if it is neither.
#[inline(always)]
pub fn is_v4<P: Packet>(packet: &P) -> Option<bool> {
    match u16::from_ne_bytes(packet.load::<2>(12)?) {
        ETHERTYPE_V4 => Some(true),
        ETHERTYPE_V6 => Some(false),
        _ => None,
    }
}

/// Parses an IP header. Returns `Parsed::Flow` if that succeeds.
#[inline(always)]
fn network<P: Packet>(packet: &P, at: u32, v4: bool, into: &mut IpHeader) -> Parsed {
    into.v4 = v4;
    into.at = at;
    if v4 { network_v4(packet, into) } else { network_v6(packet, into) }
}

/// Parses an IPv4 header (RFC 791).
#[inline(always)]
fn network_v4<P: Packet>(packet: &P, into: &mut IpHeader) -> Parsed {
    let Some(header) = packet.load::<20>(into.at) else { return Parsed::Other };
    let length = u32::from(header[0] & 0xf) * 4;
    if header[0] >> 4 != 4 || length < 20 {
        return Parsed::Other;
    }
    let field = u16::from_be_bytes([header[6], header[7]]);
    into.transport = into.at + length;
    into.source = Address::from_v4_word(word(&header, 12));
    into.destination = Address::from_v4_word(word(&header, 16));
    into.protocol = header[9];
    into.ttl = header[8];
    into.fragment = Fragment::new(field & 0x2000 != 0, field & 0x1fff);
    into.id = u32::from(u16::from_ne_bytes([header[4], header[5]]));
    Parsed::Flow
}

/// Parses an IPv6 header and its extension headers (RFC 8200).
#[inline(always)]
fn network_v6<P: Packet>(packet: &P, into: &mut IpHeader) -> Parsed {
    let Some(header) = packet.load::<40>(into.at) else { return Parsed::Other };
    if header[0] >> 4 != 6 {
        return Parsed::Other;
    }
    let words = |i| [word(&header, i), word(&header, i + 4), word(&header, i + 8), word(&header, i + 12)];
    into.transport = into.at + 40;
    into.source = Address::from_v6_words(words(8));
    into.destination = Address::from_v6_words(words(24));
    into.protocol = header[6];
    into.ttl = header[7];
    into.fragment = Fragment::None;
    into.id = 0;
    for _ in 0..EXTENSIONS {
        match into.protocol {
            HOP_BY_HOP | ROUTING | DESTINATION => {
                let Some(extension) = packet.load::<2>(into.transport) else { return Parsed::Unreadable };
                into.protocol = extension[0];
                into.transport += (u32::from(extension[1]) + 1) * 8;
            }
            FRAGMENT => {
                let Some(extension) = packet.load::<8>(into.transport) else { return Parsed::Unreadable };
                let field = u16::from_be_bytes([extension[2], extension[3]]);
                into.protocol = extension[0];
                into.fragment = Fragment::new(field & 1 != 0, field & 0xfff8);
                into.id = word(&extension, 4);
                into.transport += 8;
                if into.fragment == Fragment::NonFirst {
                    // No transport header follows.
                    return Parsed::Flow;
                }
            }
            _ => return Parsed::Flow,
        }
    }
    match into.protocol {
        HOP_BY_HOP | ROUTING | DESTINATION | FRAGMENT => Parsed::Unreadable,
        _ => Parsed::Flow,
    }
}

/// Parses a TCP (RFC 9293) or UDP (RFC 768) header.
#[inline(always)]
fn flow<P: Packet>(packet: &P, header: &mut L4Header) -> Parsed {
    header.flags = Flags(0);
    header.has_checksum = false;
    if header.network.fragment == Fragment::NonFirst {
        (header.source_port, header.destination_port) = (Port::new(0), Port::new(0));
    } else if header.network.protocol == PROTOCOL_TCP {
        // Up to the checksum, without which the packet cannot be rewritten.
        let Some(tcp) = packet.load::<18>(header.network.transport) else { return Parsed::Unreadable };
        (header.source_port, header.destination_port) = ports(&tcp);
        header.sequence = u32::from_be(word(&tcp, 4));
        header.acknowledged = u32::from_be(word(&tcp, 8));
        header.flags = Flags(tcp[13]);
        header.has_checksum = true;
    } else {
        let Some(udp) = packet.load::<8>(header.network.transport) else { return Parsed::Unreadable };
        (header.source_port, header.destination_port) = ports(&udp);
        header.has_checksum = udp[6] | udp[7] != 0;
    }
    Parsed::Flow
}

/// Parses an ICMP error (RFC 792, RFC 4443), whose IP header has been parsed, and the packet that it quotes.
#[inline(always)]
fn error<P: Packet>(packet: &P, header: &mut L4Header, outer: &mut IpHeader) -> Parsed {
    *outer = header.network;
    if outer.fragment != Fragment::None {
        return Parsed::Other;
    }
    let Some(kind) = packet.load::<1>(outer.transport) else { return Parsed::Other };
    let is_error = match (outer.v4, kind[0]) {
        // Destination unreachable, time exceeded, parameter problem. A redirect concerns this host only.
        (true, 3 | 11 | 12) => true,
        // Destination unreachable, packet too big, time exceeded, parameter problem.
        (false, 1..=4) => true,
        _ => false,
    };
    if !is_error {
        return Parsed::Other;
    }
    let inner = &mut header.network;
    let read = network(packet, outer.transport + 8, outer.v4, inner);
    if read != Parsed::Flow {
        return read;
    }
    if inner.fragment == Fragment::NonFirst || (inner.protocol != PROTOCOL_TCP && inner.protocol != PROTOCOL_UDP) {
        return Parsed::Other;
    }
    // An error quotes at least 8 bytes.
    let Some(quoted) = packet.load::<8>(inner.transport) else { return Parsed::Other };
    header.has_checksum = if inner.protocol == PROTOCOL_UDP {
        quoted[6] | quoted[7] != 0
    } else {
        packet.load::<2>(inner.transport + 16).is_some()
    };
    (header.source_port, header.destination_port) = ports(&quoted);
    header.flags = Flags(0);
    Parsed::Error
}

#[inline(always)]
fn ports<const N: usize>(header: &[u8; N]) -> (Port, Port) {
    let port = |i: usize| Port::from_word(u16::from_ne_bytes([header[i], header[i + 1]]));
    (port(0), port(2))
}

#[inline(always)]
fn word<const N: usize>(header: &[u8; N], i: usize) -> u32 {
    u32::from_ne_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]])
}
