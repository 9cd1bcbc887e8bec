//! The arithmetic of Internet checksums.

use proxymatic_common::{Address, Port};

/// The difference that a change makes to a checksum: a one's complement sum of 16-bit words in network order, not yet
/// folded (RFC 1624).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksumDelta(u32);

impl ChecksumDelta {
    /// No change.
    pub const NONE: Self = Self(0);

    /// Adds the change of a 32-bit word at an even offset.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, from: u32, to: u32) -> Self {
        self.plus(!from).plus(to)
    }

    /// Adds the change of a 16-bit word.
    #[inline(always)]
    #[must_use]
    pub const fn half(self, from: u16, to: u16) -> Self {
        self.word(from as u32, to as u32)
    }

    /// Adds the change of an address. For IPv4 only the last word differs.
    #[inline(always)]
    #[must_use]
    pub const fn address(self, from: &Address, to: &Address) -> Self {
        let (from, to) = (from.v6_words(), to.v6_words());
        self.word(from[0], to[0]).word(from[1], to[1]).word(from[2], to[2]).word(from[3], to[3])
    }

    /// Adds the change of a port.
    #[inline(always)]
    #[must_use]
    pub const fn port(self, from: Port, to: Port) -> Self {
        self.half(from.word(), to.word())
    }

    /// Adds another difference.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        self.plus(other.0)
    }

    /// Adds a word.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, word: u32) -> Self {
        let sum = self.0 as u64 + word as u64;
        // The carry is added back once: the sum of two words has no more than one.
        Self((sum as u32).wrapping_add((sum >> 32) as u32))
    }

    /// Returns the sum as the kernel's helpers take it.
    #[inline(always)]
    pub const fn sum(self) -> u32 {
        self.0
    }

    /// Returns the sum folded to 16 bits.
    #[inline(always)]
    pub const fn folded(self) -> u16 {
        let once = (self.0 & 0xffff) + (self.0 >> 16);
        ((once & 0xffff) + (once >> 16)) as u16
    }

    /// Returns the new checksum, given the old one in network order.
    #[inline(always)]
    pub const fn applied(self, checksum: u16) -> u16 {
        !self.plus(!checksum as u32 & 0xffff).folded()
    }
}
