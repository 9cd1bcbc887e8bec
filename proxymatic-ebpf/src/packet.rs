//! Parses and rewrites packets, for all hooks and directions.
//!
//! The functions are generic over [`Packet`], which TC, XDP and the tests implement. They know nothing about services.

mod checksum;
mod read;
mod rewrite;

pub use checksum::ChecksumDelta;
pub use read::{Flags, Fragment, IpHeader, L4Header, Parsed, is_v4, read, read_plain};
pub use rewrite::{decrement_ttl, rewrite, rewrite_error};

/// The length of an Ethernet header without a VLAN tag, in bytes.
pub const ETH_HLEN: u32 = 14;
/// IPPROTO_ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// IPPROTO_ICMPV6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// A packet that begins with its Ethernet header. Offsets are in bytes from there.
pub trait Packet {
    /// Reads bytes; returns `None` if the packet ends before.
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]>;
    /// Writes bytes of the Ethernet header, or bytes whose checksum the caller fixes.
    fn store<const N: usize>(&mut self, at: u32, bytes: [u8; N]) -> Option<()>;
    /// Writes bytes that no checksum of the packet covers.
    fn store_without_checksum<const N: usize>(&mut self, at: u32, bytes: [u8; N]) -> Option<()>;
    /// Fixes the checksum of an IPv4 header, which is at `at`.
    fn fix_ip_csum(&mut self, at: u32, checksum: ChecksumDelta) -> Option<()>;
    /// Fixes the checksum of TCP, UDP or ICMP, which is at `at`.
    fn fix_l4_csum(&mut self, at: u32, checksum: ChecksumDelta, sum: ChecksumKind) -> Option<()>;
}

/// The ICMP error that the sender of a packet gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IcmpError {
    /// Fragmentation needed (IPv4) or packet too big (IPv6), with the MTU in bytes without the Ethernet header.
    TooBig(u32),
    /// Time exceeded: the packet's TTL has run out.
    TtlExceeded,
}

/// The kind of a checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChecksumKind {
    /// UDP: zero means no checksum, and a checksum of zero is written as all ones (RFC 768).
    pub udp: bool,
    /// The addresses in the pseudo header have changed.
    pub pseudo: bool,
    /// The pseudo header is that of IPv6. An IPv6 header has no checksum.
    pub v6: bool,
}

#[cfg(test)]
mod tests;
