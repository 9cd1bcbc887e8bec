//! The arithmetic of Internet checksums.

use proxymatic_common::{Address, Port};

/// By how much something changed, as a sum in one's complement of 16-bit words in network order, not folded yet (RFC 1624).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChecksumDelta(u32);

impl ChecksumDelta {
    /// Nothing changed.
    pub const NONE: Self = Self(0);

    /// From one 32-bit word, at an even place, to another.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, from: u32, to: u32) -> Self {
        self.plus(!from).plus(to)
    }

    /// From one 16-bit word to another.
    #[inline(always)]
    #[must_use]
    pub const fn half(self, from: u16, to: u16) -> Self {
        self.word(from as u32, to as u32)
    }

    /// From one address to another. Of IPv4 the words before the last are the same, and change nothing.
    #[inline(always)]
    #[must_use]
    pub const fn address(self, from: &Address, to: &Address) -> Self {
        let (from, to) = (from.v6_words(), to.v6_words());
        self.word(from[0], to[0]).word(from[1], to[1]).word(from[2], to[2]).word(from[3], to[3])
    }

    /// From one port to another.
    #[inline(always)]
    #[must_use]
    pub const fn port(self, from: Port, to: Port) -> Self {
        self.half(from.word(), to.word())
    }

    /// Both.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        self.plus(other.0)
    }

    /// A word more.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, word: u32) -> Self {
        let sum = self.0 as u64 + word as u64;
        // A carry goes round, once: the sum of two words has no more.
        Self((sum as u32).wrapping_add((sum >> 32) as u32))
    }

    /// As the kernel's helpers take it.
    #[inline(always)]
    pub const fn sum(self) -> u32 {
        self.0
    }

    /// Folded to 16 bits.
    #[inline(always)]
    pub const fn folded(self) -> u16 {
        let once = (self.0 & 0xffff) + (self.0 >> 16);
        ((once & 0xffff) + (once >> 16)) as u16
    }

    /// What a checksum (as it lies in the packet) becomes.
    #[inline(always)]
    pub const fn applied(self, checksum: u16) -> u16 {
        !self.plus(!checksum as u32 & 0xffff).folded()
    }
}
