//! Packets: what they say, and what they say afterwards. One way to read and one to rewrite for all directions and hooks.
//!
//! Generic over [`Packet`], so that what TC, XDP and the tests hold is the same to it. Nothing here knows a service.

mod checksum;
mod read;
mod rewrite;

pub use checksum::ChecksumDelta;
pub use read::{Flags, Fragment, IpHeader, L4Header, Parsed, is_v4, read, read_plain};
pub use rewrite::{decrement_ttl, rewrite, rewrite_error};

/// The length of the link's header: Ethernet, without a tag.
pub const ETH_HLEN: u32 = 14;
/// IPPROTO_ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// IPPROTO_ICMPV6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// A packet, from the link's header on. Offsets are in bytes from there.
pub trait Packet {
    /// Reads; `None` where the packet ends before.
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]>;
    /// Writes what a checksum of the packet makes up for, or the link's header.
    fn store<const N: usize>(&mut self, at: u32, bytes: [u8; N]) -> Option<()>;
    /// Writes what no checksum of the packet covers.
    fn store_without_checksum<const N: usize>(&mut self, at: u32, bytes: [u8; N]) -> Option<()>;
    /// Makes up for a change in the checksum of an IPv4 header, which is at `at`.
    fn fix_ip_csum(&mut self, at: u32, checksum: ChecksumDelta) -> Option<()>;
    /// Makes up for a change in what TCP, UDP or ICMP sums up itself, in its checksum, which is at `at`.
    fn fix_l4_csum(&mut self, at: u32, checksum: ChecksumDelta, sum: ChecksumKind) -> Option<()>;
}

/// Which ICMP error the sender of a packet gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// The packet is larger than so many bytes, without the link's header: fragmentation needed, or packet too big.
    TooBig(u32),
    /// It has no hops left.
    TtlExceeded,
}

/// What a checksum is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumKind {
    /// UDP: zero is none, and what comes out as zero is written as all ones (RFC 768).
    pub udp: bool,
    /// The change is one of the pseudo header: of addresses.
    pub pseudo: bool,
    /// The pseudo header is that of IPv6, whose own header has no checksum.
    pub v6: bool,
}

#[cfg(test)]
mod tests;
