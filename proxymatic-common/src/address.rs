//! Addresses and ports in the form in which the kernel's hooks see them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::plain_bytes;

/// An address in 16 bytes, in network order. An IPv4 address is stored as `::ffff:a.b.c.d`, so that one key serves both
/// families.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address([u32; 4]);

/// The third word of a v4-mapped address (RFC 4291, section 2.5.5.2), in network order.
const MAPPED: u32 = 0xffff_u32.to_be();

impl Address {
    /// 16 zero bytes, which is `::`.
    pub const ZERO: Self = Self([0; 4]);

    /// Makes an address from the words of an IPv6 socket address (network order).
    #[inline(always)]
    pub const fn from_v6_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// Returns the words of an IPv6 socket address (network order); an IPv4 address is v4-mapped.
    #[inline(always)]
    pub const fn v6_words(self) -> [u32; 4] {
        self.0
    }

    /// Makes an IPv4 address from the word of a socket address (network order).
    #[inline(always)]
    pub const fn from_v4_word(word: u32) -> Self {
        Self([0, 0, MAPPED, word])
    }

    /// Returns the last word, in network order: the whole address if it is IPv4.
    #[inline(always)]
    pub const fn v4_word(self) -> u32 {
        self.0[3]
    }

    /// Returns whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        self.beyond_v4() == 0
    }

    /// Returns whether Linux connects to the caller's own host for this address: 127.0.0.0/8, ::1, 0.0.0.0 and ::. Both
    /// IPv4 forms count as v4-mapped addresses too.
    #[inline(always)]
    pub const fn is_loopback(self) -> bool {
        let last = self.0[3];
        let v4 = self.beyond_v4() | (first_octet(last) ^ 127) & none_if_zero(last);
        let v6 = self.before_last() | last & !1_u32.to_be();
        v4 == 0 || v6 == 0
    }

    /// Returns whether this is 0.0.0.0 or ::, the unspecified address.
    #[inline(always)]
    pub const fn is_unspecified(self) -> bool {
        self.0[3] == 0 && (self.beyond_v4() == 0 || self.before_last() == 0)
    }

    // These functions combine several words into one before they compare. The verifier follows two paths for each
    // comparison of a word, and its knowledge of each word keeps equal paths apart.

    /// Returns zero if the address is IPv4.
    #[inline(always)]
    const fn beyond_v4(self) -> u32 {
        self.0[0] | self.0[1] | self.0[2] ^ MAPPED
    }

    /// Returns zero if all words but the last are zero.
    #[inline(always)]
    const fn before_last(self) -> u32 {
        self.0[0] | self.0[1] | self.0[2]
    }

    /// Returns the address to which Linux connects: loopback for 0.0.0.0 and ::, else the address itself.
    #[inline(always)]
    pub const fn effective(self) -> Self {
        if self.0[3] != 0 || !self.is_unspecified() {
            return self;
        }
        if self.is_v4() { Self::from_v4_word(0x7f00_0001_u32.to_be()) } else { Self([0, 0, 0, 1_u32.to_be()]) }
    }

    /// Compares without early exits, which costs the verifier one path instead of four.
    #[inline(always)]
    pub const fn eq_branchless(&self, other: &Self) -> bool {
        (self.0[0] ^ other.0[0]) | (self.0[1] ^ other.0[1]) | (self.0[2] ^ other.0[2]) | (self.0[3] ^ other.0[3]) == 0
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let octets = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let word = |i: usize| u32::from_ne_bytes([octets[i], octets[i + 1], octets[i + 2], octets[i + 3]]);
        Self([word(0), word(4), word(8), word(12)])
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            return Self::V4(Ipv4Addr::from(address.0[3].to_ne_bytes()));
        }
        let mut octets = [0; 16];
        for (i, word) in address.0.iter().enumerate() {
            octets[4 * i..4 * i + 4].copy_from_slice(&word.to_ne_bytes());
        }
        Self::V6(Ipv6Addr::from(octets))
    }
}

/// A port in network order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port(u16);

impl Port {
    /// Makes a port from its number in host order.
    pub const fn new(port: u16) -> Self {
        Self(port.to_be())
    }

    /// Makes a port from the word of a socket address (network order).
    #[inline(always)]
    pub const fn from_word(word: u16) -> Self {
        Self(word)
    }

    /// Returns the word for a socket address (network order).
    #[inline(always)]
    pub const fn word(self) -> u16 {
        self.0
    }

    /// Returns the number in host order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// Returns the first octet of an IPv4 address.
#[inline(always)]
const fn first_octet(word: u32) -> u32 {
    u32::from_be(word) >> 24
}

/// Returns a word with all bits set, or 0 for 0.
#[inline(always)]
const fn none_if_zero(word: u32) -> u32 {
    ((word as i32 | (word as i32).wrapping_neg()) >> 31) as u32
}

plain_bytes!(Address, Port);

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn v4_is_stored_as_mapped_and_read_as_v4() {
        assert_eq!(address("10.1.2.3"), address("::ffff:10.1.2.3"));
        assert_eq!(IpAddr::from(address("::ffff:10.1.2.3")), "10.1.2.3".parse::<IpAddr>().unwrap());
        assert_eq!(IpAddr::from(address("2001:db8::7")), "2001:db8::7".parse::<IpAddr>().unwrap());
        assert_eq!(address("10.1.2.3").v4_word().to_ne_bytes(), [10, 1, 2, 3]);
    }

    #[test]
    fn loopback_covers_what_linux_keeps_on_the_host() {
        for own in ["127.0.0.1", "127.255.255.254", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"] {
            assert!(address(own).is_loopback(), "{own}");
        }
        // 255.x once matched a mask of 0x7f000000 elsewhere.
        for other in ["128.0.0.1", "255.0.0.1", "126.0.0.1", "::2", "1::", "1::1", "::ffff:128.0.0.1", "0.0.0.1"] {
            assert!(!address(other).is_loopback(), "{other}");
        }
    }

    #[test]
    fn unspecified_address_becomes_loopback_of_its_family() {
        for (destination, effective) in
            [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("10.0.0.0", "10.0.0.0"), ("fd00::", "fd00::")]
        {
            assert_eq!(address(destination).effective(), address(effective), "{destination}");
        }
        assert!(address("::").is_unspecified() && address("0.0.0.0").is_unspecified());
        assert!(!address("10.0.0.0").is_unspecified() && !address("fd00::").is_unspecified());
    }

    #[test]
    fn branchless_comparison_equals_plain_equality() {
        assert!(address("::1").eq_branchless(&address("::1")));
        for other in ["::2", "1::1", "0:1::1", "::1:0:0:1"] {
            assert!(!address("::1").eq_branchless(&address(other)), "{other}");
        }
    }

    #[test]
    fn port_is_stored_in_network_order() {
        assert_eq!(Port::new(1234).word().to_ne_bytes(), [4, 210]);
        assert_eq!(Port::new(1234).get(), 1234);
    }
}
