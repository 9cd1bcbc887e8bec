//! The kernel's record of a remote client's connection.

use crate::{Address, Cell64, Port, assert_packed, bit_set, plain_bytes};

/// Source and destination of a packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FiveTuple {
    /// The sender's address.
    pub source: Address,
    /// The receiver's address.
    pub destination: Address,
    /// The sender's port.
    pub source_port: Port,
    /// The receiver's port.
    pub destination_port: Port,
    /// IPPROTO number.
    pub protocol: u8,
    /// Always zero.
    pub _pad: [u8; 3],
}
assert_packed!(FiveTuple = Address, Address, Port, Port, u8, [u8; 3]);

impl FiveTuple {
    /// Makes a tuple from both ends.
    #[inline(always)]
    pub const fn new(source: (Address, Port), destination: (Address, Port), protocol: u8) -> Self {
        Self {
            source: source.0,
            destination: destination.0,
            source_port: source.1,
            destination_port: destination.1,
            protocol,
            _pad: [0; 3],
        }
    }

    /// Returns the tuple of a reply.
    #[must_use]
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            _pad: [0; 3],
        }
    }
}

/// The direction of an entry, and the path of its packets: a set of bits that never changes.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtFlags(pub u32);

impl CtFlags {
    /// From the backend to the client. Without this bit: from the client to the backend.
    pub const REPLY: Self = Self(1);
    /// The backend is on this host. Hooks rewrite only the backend's end of the packets, which go through the host's
    /// stack; `tc_egress` intercepts the replies. Without this bit hooks rewrite both ends.
    pub const LOCAL_BACKEND: Self = Self(1 << 1);
}

/// The progress of the sender of one direction: a set of bits. Bits are only ever added, and only by packets of that
/// direction.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtProgress(pub u32);

impl CtProgress {
    /// The backend answered the first packet. The client's direction holds this bit while the entry is in
    /// `CT_HALF_OPEN`.
    pub const ANSWERED: Self = Self(1);
    /// The sender sent a FIN.
    pub const FINISHED: Self = Self(1 << 1);
    /// The sender sent an RST.
    pub const RESET: Self = Self(1 << 2);
    /// The counters no longer include the connection.
    pub const CLOSED: Self = Self(1 << 3);

    /// Returns whether this direction and the other one together mean that the connection is closed.
    #[inline(always)]
    pub const fn closes_with(self, other: Self) -> bool {
        self.with(other).has(Self::RESET) || (self.has(Self::FINISHED) && other.has(Self::FINISHED))
    }
}

/// One direction of a connection: the value of `CONNTRACK` and of `CT_HALF_OPEN`. The key is the [`FiveTuple`] of
/// arriving packets of this direction.
///
/// The reversed `translated` of an entry is the key of the other direction's entry; the reversed key is the other
/// entry's `translated`. So either entry is enough to create the other one again.
///
/// The agent reads and writes an entry as plain words; the hooks update `last_seen` and `state` in place: see
/// [`CtEntryAtomic`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtEntryOf<Word> {
    /// The tuple that replaces the one in the packets of this direction.
    pub translated: FiveTuple,
    /// The start of the connection: nanoseconds of the monotonic clock.
    pub start: u64,
    /// The time of this direction's last packet, accurate to a second: nanoseconds of the monotonic clock.
    pub last_seen: Word,
    /// [`CtProgress`] in the lower 32 bits. For a half-open TCP connection the upper 32 bits hold the sequence number
    /// of the SYN that packets of this direction acknowledge. That is the client's SYN in the reply direction; in the
    /// client's direction it is the SYN of the backend's answer.
    pub state: Word,
    /// The id of the service.
    pub service: u32,
    /// The id of the backend.
    pub backend: u32,
    /// The backend's generation.
    pub generation: u32,
    /// The direction of this entry.
    pub flags: CtFlags,
}

/// An entry as the agent reads it.
pub type CtEntry = CtEntryOf<u64>;
/// An entry as the hooks change it.
pub type CtEntryAtomic = CtEntryOf<Cell64>;
assert_packed!(CtEntry = FiveTuple, u64, u64, u64, u32, u32, u32, CtFlags);
const _: () = assert!(size_of::<CtEntry>() == size_of::<CtEntryAtomic>());

impl CtEntry {
    /// Returns the progress of this direction's sender.
    #[inline(always)]
    pub const fn progress(&self) -> CtProgress {
        CtProgress(self.state as u32)
    }
}

/// The key of `FRAGMENTS`: the fields that all fragments of one packet share.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// The sender's address.
    pub source: Address,
    /// The receiver's address.
    pub destination: Address,
    /// The identification, in network order: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// IPPROTO number.
    pub protocol: u8,
    /// Always zero.
    pub _pad: [u8; 3],
}
assert_packed!(FragmentKey = Address, Address, u32, u8, [u8; 3]);

/// The value of `FRAGMENTS`: the fields that only the first fragment carries.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentPorts {
    /// The arrival time: nanoseconds of the monotonic clock. It is needed because senders reuse identifications.
    pub at: u64,
    /// The sender's port.
    pub source_port: Port,
    /// The receiver's port.
    pub destination_port: Port,
    /// Always zero.
    pub _pad: u32,
}
assert_packed!(FragmentPorts = u64, Port, Port, u32);

/// What is behind an interface.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceKind(pub u32);

impl InterfaceKind {
    /// `tc_ingress` and `tc_egress` are attached to the interface, so they intercept replies that arrive there.
    pub const ATTACHED: Self = Self(1);
    /// Containers of this host, as behind docker0. Their packets leave through this host.
    pub const CONTAINERS: Self = Self(2);
    /// `tc_ingress`, `tc_egress` and `xdp_ingress` are attached, so XDP can transmit on the interface.
    pub const ACCELERATED: Self = Self(3);
}

/// The value of `INTERFACES`; the key is the interface index. Hooks do not forward to an interface without an entry.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// What is behind it.
    pub kind: InterfaceKind,
    /// Its MTU in bytes, without the link's header.
    pub mtu: u32,
    /// The host's IPv4 address on the interface: the source of packets to virtual addresses. Zero if there is none.
    pub v4: Address,
    /// The host's IPv6 address on the interface, for the same purpose.
    pub v6: Address,
}
assert_packed!(Interface = InterfaceKind, u32, Address, Address);

/// One word of `REPLY_PORTS`: a byte for each of 64 ports; the words of UDP follow those of TCP. A byte is 1 if a
/// backend on this host ever had a remote client's connection on that port. Hooks look closer only at packets that
/// leave from such a port.
pub type ReplyPorts = [u8; 64];

/// A lock in `CONNTRACK_LOCKS`: a hook holds it while it changes both entries of a connection. The kernel recognizes
/// the lock by the name of its type (`btf_find_spin_lock`), the verifier by the helpers that take it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct bpf_spin_lock {
    /// The kernel's word.
    pub val: u32,
}

/// The value of `CONNTRACK_LOCKS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConntrackLock {
    /// The lock.
    pub lock: bpf_spin_lock,
}
assert_packed!(ConntrackLock = u32);

bit_set!(CtFlags, CtProgress);
plain_bytes!(
    FiveTuple,
    CtFlags,
    CtProgress,
    CtEntry,
    FragmentKey,
    FragmentPorts,
    InterfaceKind,
    Interface,
    ConntrackLock
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PROTOCOL_TCP;

    #[test]
    fn tuple_reversed_twice_equals_itself() {
        let tuple = FiveTuple::new(
            (Address::from_v4_word(1), Port::new(2)),
            (Address::from_v4_word(3), Port::new(4)),
            PROTOCOL_TCP,
        );
        assert_ne!(tuple.reversed(), tuple);
        assert_eq!(tuple.reversed().reversed(), tuple);
    }
}
