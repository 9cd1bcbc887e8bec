//! Listeners of the host that a hook cannot look up in the kernel, and peers of datagrams.

use crate::{Address, Port, assert_packed, bit_set, plain_bytes};

/// The interface of a listener, which decides the clients that reach it: a set of bits, one for each listener on an
/// address.
///
/// To the kernel, a packet of the host to an address of its own arrives on the interface that has the address. A hook's
/// lookup in the kernel finds only listeners without an interface, and only those of the caller's network namespace.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListenerFlags(pub u32);

impl ListenerFlags {
    /// The loopback interface: the host's own sockets reach the listener at loopback addresses.
    pub const ON_LOOPBACK: Self = Self(1);
    /// Another interface: all but loopback addresses reach the listener.
    pub const ON_INTERFACE: Self = Self(1 << 1);
    /// None: all addresses reach the listener.
    pub const ANY_INTERFACE: Self = Self(1 << 2);
    /// Not known yet: a UDP socket that was just bound. No hook sees the interface of such a socket; the agent does
    /// within a second.
    pub const NEW: Self = Self(1 << 3);

    /// Returns the flag for an interface by its index; 0 is none.
    #[inline(always)]
    pub const fn of_interface(ifindex: u32) -> Self {
        /// LOOPBACK_IFINDEX: the same in every network namespace.
        const LOOPBACK: u32 = 1;
        match ifindex {
            0 => Self::ANY_INTERFACE,
            LOOPBACK => Self::ON_LOOPBACK,
            _ => Self::ON_INTERFACE,
        }
    }

    /// Returns whether both sets have a bit in common.
    #[inline(always)]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Returns this set without the bits of another one.
    #[must_use]
    #[inline(always)]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// The key of `LISTENERS`: a listener in the host's network namespace on a service port.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerKey {
    /// The address that the listener is bound to; 0.0.0.0 for all of IPv4, `::` for all of IPv6.
    pub address: Address,
    /// The port.
    pub port: Port,
    /// IPPROTO number.
    pub protocol: u8,
    /// Always zero.
    pub _pad: u8,
}
assert_packed!(ListenerKey = Address, Port, u8, u8);

impl ListenerKey {
    /// Makes the key of an address, port and protocol.
    #[inline(always)]
    pub const fn new(address: Address, port: Port, protocol: u8) -> Self {
        Self { address, port, protocol, _pad: 0 }
    }
}

/// The value of `LISTENERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerEntry {
    /// The interfaces of the listeners with this key.
    pub flags: ListenerFlags,
    /// The low bits of [`crate::ServiceStats::bind_seq`] when a hook wrote the entry. The agent so recognizes an entry
    /// that a hook has written since.
    pub bind_seq: u32,
}
assert_packed!(ListenerEntry = ListenerFlags, u32);

/// The key of `DIRECT_PEERS`: a socket of the host on a service port, from which datagrams came to a port of a network
/// namespace without a translation.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectPeer {
    /// The cookie of the receiver's network namespace.
    pub netns: u64,
    /// The sender's address.
    pub address: Address,
    /// The sender's port.
    pub port: Port,
    /// The receiver's port.
    pub own_port: Port,
    /// Always zero.
    pub _pad: u32,
}
assert_packed!(DirectPeer = u64, Address, Port, Port, u32);

bit_set!(ListenerFlags);
plain_bytes!(ListenerFlags, ListenerKey, ListenerEntry, DirectPeer);
