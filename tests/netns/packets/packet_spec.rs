//! Packets as tests specify them, built by etherparse.

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use etherparse::{
    Icmpv4Type, Icmpv6Type, IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, PacketBuilder, TcpHeader,
    UdpHeader, icmpv4, icmpv6,
};

/// The link address of the host.
pub(crate) const HERE: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// The link address of the host whose address ends with this octet.
pub(crate) const fn link(of: u8) -> [u8; 6] {
    [2, 0, 0, 0, 0, of]
}

/// The payload's protocol.
#[derive(Clone, Debug)]
pub(crate) enum Carries {
    /// Flags as letters, sequence and acknowledgement number.
    Tcp(&'static str, u32, u32),
    Udp,
    /// Without a checksum.
    UnsummedUdp,
}

/// A packet, or a fragment of one.
#[derive(Clone, Debug)]
pub(crate) struct PacketSpec {
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
    pub(crate) carries: Carries,
    pub(crate) payload: Vec<u8>,
    pub(crate) hops: u8,
    /// Options of IPv4, in words of four bytes.
    pub(crate) options: usize,
    /// Extension headers of IPv6 by their numbers, eight bytes each.
    pub(crate) extensions: Vec<u8>,
    /// The part of the packet in this fragment: identification, first byte, byte after the last.
    pub(crate) fragment: Option<(u16, usize, usize)>,
}

impl PacketSpec {
    /// A segment with 5 bytes of data between these addresses and ports.
    pub(crate) fn tcp(from: &str, to: &str, flags: &'static str, sequence: u32, ack: u32) -> Self {
        Self::new(from, to, Carries::Tcp(flags, sequence, ack))
    }

    pub(crate) fn udp(from: &str, to: &str) -> Self {
        Self::new(from, to, Carries::Udp)
    }

    fn new(from: &str, to: &str, carries: Carries) -> Self {
        let parse = |text: &str| text.parse().expect("an address and a port");
        Self {
            from: parse(from),
            to: parse(to),
            carries,
            payload: b"hello".to_vec(),
            hops: 64,
            options: 0,
            extensions: Vec::new(),
            fragment: None,
        }
    }

    /// The expected packet: other addresses and one hop less.
    pub(crate) fn sent_on(&self, from: SocketAddr, to: SocketAddr) -> Self {
        Self { from, to, hops: self.hops - 1, ..self.clone() }
    }

    /// The packet with other addresses.
    pub(crate) fn between(&self, from: SocketAddr, to: SocketAddr) -> Self {
        Self { from, to, ..self.clone() }
    }

    /// The bytes from the link header on, addressed to this host.
    pub(crate) fn arriving(&self) -> Result<Vec<u8>> {
        self.frame(HERE, link(9))
    }

    /// The bytes from the link header on.
    pub(crate) fn frame(&self, to: [u8; 6], from: [u8; 6]) -> Result<Vec<u8>> {
        let ethertype = if self.from.is_ipv4() { [8, 0] } else { [0x86, 0xdd] };
        Ok([&to[..], &from[..], &ethertype, &self.network()?].concat())
    }

    /// The bytes from the network header on.
    pub(crate) fn network(&self) -> Result<Vec<u8>> {
        let whole = self.transport()?;
        let (id, first, end) = self.fragment.unwrap_or((0, 0, whole.len()));
        let (more, part) = (end < whole.len(), &whole[first..end.min(whole.len())]);
        let protocol = if matches!(self.carries, Carries::Tcp(..)) { IpNumber::TCP } else { IpNumber::UDP };
        let mut bytes = Vec::new();
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let (from, to) = (from.octets(), to.octets());
                let mut header = Ipv4Header::new(0, self.hops, protocol, from, to)?;
                header.options = Ipv4Options::try_from(&[1; 40][..4 * self.options])?;
                header.set_payload_len(part.len())?;
                header.identification = id;
                header.dont_fragment = self.fragment.is_none();
                header.more_fragments = more;
                header.fragment_offset = IpFragOffset::try_new(u16::try_from(first / 8)?)?;
                header.write(&mut bytes)?;
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut chain: Vec<u8> = self.extensions.clone();
                chain.extend(self.fragment.map(|_| 44));
                chain.push(protocol.0);
                let header = Ipv6Header {
                    payload_length: u16::try_from(8 * (chain.len() - 1) + part.len())?,
                    next_header: IpNumber(chain[0]),
                    hop_limit: self.hops,
                    source: from.octets(),
                    destination: to.octets(),
                    ..Ipv6Header::default()
                };
                header.write(&mut bytes)?;
                for (kind, next) in chain.iter().zip(&chain[1..]) {
                    // Padding of four bytes; or offset, whether more follow, and identification.
                    let rest = match kind {
                        44 => {
                            let [a, b] = (u16::try_from(first)? | u16::from(more)).to_be_bytes();
                            let [c, d] = id.to_be_bytes();
                            [0, a, b, 0, 0, c, d]
                        }
                        _ => [0, 1, 4, 0, 0, 0, 0],
                    };
                    bytes.push(*next);
                    bytes.extend(rest);
                }
            }
            _ => anyhow::bail!("both ends must be of one family"),
        }
        bytes.extend(part);
        Ok(bytes)
    }

    /// The whole segment or datagram.
    fn transport(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.carries {
            Carries::Tcp(flags, sequence, ack) => {
                let mut header = TcpHeader::new(self.from.port(), self.to.port(), sequence, 1000);
                header.acknowledgment_number = ack;
                header.syn = flags.contains('S');
                header.fin = flags.contains('F');
                header.rst = flags.contains('R');
                header.ack = flags.contains('A');
                header.checksum = match (self.from.ip(), self.to.ip()) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => {
                        header.calc_checksum_ipv4_raw(from.octets(), to.octets(), &self.payload)?
                    }
                    (IpAddr::V6(from), IpAddr::V6(to)) => {
                        header.calc_checksum_ipv6_raw(from.octets(), to.octets(), &self.payload)?
                    }
                    _ => anyhow::bail!("both ends must be of one family"),
                };
                header.write(&mut bytes)?;
            }
            Carries::Udp | Carries::UnsummedUdp => {
                let length = u16::try_from(8 + self.payload.len())?;
                let mut header =
                    UdpHeader { source_port: self.from.port(), destination_port: self.to.port(), length, checksum: 0 };
                if matches!(self.carries, Carries::Udp) {
                    header.checksum = match (self.from.ip(), self.to.ip()) {
                        (IpAddr::V4(from), IpAddr::V4(to)) => {
                            header.calc_checksum_ipv4_raw(from.octets(), to.octets(), &self.payload)?
                        }
                        (IpAddr::V6(from), IpAddr::V6(to)) => {
                            header.calc_checksum_ipv6_raw(from.octets(), to.octets(), &self.payload)?
                        }
                        _ => anyhow::bail!("both ends must be of one family"),
                    };
                }
                header.write(&mut bytes)?;
            }
        }
        bytes.extend(&self.payload);
        Ok(bytes)
    }
}

/// The type of an ICMP error.
#[derive(Clone, Copy, Debug)]
pub(crate) enum About {
    PortUnreachable,
    TooBig(u16),
    HopsExceeded,
}

/// An ICMP error that quotes a packet, from the link header on.
pub(crate) fn error(
    links: ([u8; 6], [u8; 6]),
    (from, to): (IpAddr, IpAddr),
    hops: u8,
    about: About,
    quoted: &[u8],
) -> Result<Vec<u8>> {
    let (to_link, from_link) = links;
    let link = PacketBuilder::ethernet2(from_link, to_link);
    let mut bytes = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            use icmpv4::{DestUnreachableHeader, TimeExceededCode};
            let kind = match about {
                About::PortUnreachable => Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Port),
                About::TooBig(most) => Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::FragmentationNeeded {
                    next_hop_mtu: most,
                }),
                About::HopsExceeded => Icmpv4Type::TimeExceeded(TimeExceededCode::TtlExceededInTransit),
            };
            link.ipv4(from.octets(), to.octets(), hops).icmpv4(kind).write(&mut bytes, quoted)?;
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            use icmpv6::{DestUnreachableCode, TimeExceededCode};
            let kind = match about {
                About::PortUnreachable => Icmpv6Type::DestinationUnreachable(DestUnreachableCode::Port),
                About::TooBig(most) => Icmpv6Type::PacketTooBig { mtu: most.into() },
                About::HopsExceeded => Icmpv6Type::TimeExceeded(TimeExceededCode::HopLimitExceeded),
            };
            link.ipv6(from.octets(), to.octets(), hops).icmpv6(kind).write(&mut bytes, quoted)?;
        }
        _ => anyhow::bail!("both ends must be of one family"),
    }
    Ok(bytes)
}
