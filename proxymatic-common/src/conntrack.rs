//! What the kernel remembers of a connection of a client on another machine.

use crate::{Address, Cell64, Port, assert_packed, bit_set, plain_bytes};

/// Who sends to whom, as a packet says it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FiveTuple {
    /// Who sends.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// The sender's port.
    pub source_port: Port,
    /// The receiver's port.
    pub destination_port: Port,
    /// IPPROTO number.
    pub protocol: u8,
    /// Always zero.
    pub zero: [u8; 3],
}
assert_packed!(FiveTuple = Address, Address, Port, Port, u8, [u8; 3]);

impl FiveTuple {
    /// From both ends.
    #[inline(always)]
    pub const fn new(source: (Address, Port), destination: (Address, Port), protocol: u8) -> Self {
        Self {
            source: source.0,
            destination: destination.0,
            source_port: source.1,
            destination_port: destination.1,
            protocol,
            zero: [0; 3],
        }
    }

    /// What an answer says.
    #[must_use]
    #[inline(always)]
    pub const fn reversed(&self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            zero: [0; 3],
        }
    }
}

/// Which half of a connection an entry is, and which way its packets take: a set of bits that never changes.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtFlags(pub u32);

impl CtFlags {
    /// From the backend to the client; without it from the client to the backend.
    pub const REPLY: Self = Self(1);
    /// The backend is on this host: only its end of the packets is rewritten, and they go through the host's stack. The
    /// replies are met where they leave an interface. Without it both ends are rewritten.
    pub const LOCAL_BACKEND: Self = Self(1 << 1);
}

/// How far the sender of one half has come: a set of bits, only ever added to, and only by packets of that half.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CtProgress(pub u32);

impl CtProgress {
    /// The backend has answered the first packet (noted in the client's half, as long as that is in `CT_HALF_OPEN`).
    pub const ANSWERED: Self = Self(1);
    /// It has sent a FIN.
    pub const FINISHED: Self = Self(1 << 1);
    /// It has sent an RST.
    pub const RESET: Self = Self(1 << 2);
    /// The connection is out of the counts.
    pub const CLOSED: Self = Self(1 << 3);

    /// Whether a connection is over with this half and the other one.
    #[inline(always)]
    pub const fn closes_with(self, other: Self) -> bool {
        self.with(other).has(Self::RESET) || (self.has(Self::FINISHED) && other.has(Self::FINISHED))
    }
}

/// One half of a connection: the value of `CONNTRACK` and of `CT_HALF_OPEN`, by the [`FiveTuple`] with which packets of this half
/// arrive. The other half is found by `becomes` turned round, and has the key of this one, turned round, as what its
/// packets become: so either half can make the other anew.
///
/// The agent reads and writes it as plain words, the hooks keep `seen` and `state` in place: see [`CtEntryAtomic`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtEntryOf<Word> {
    /// What packets of this half become.
    pub translated: FiveTuple,
    /// When it began: nanoseconds of the monotonic clock.
    pub start: u64,
    /// When the last packet of this half came, to a second: nanoseconds of the monotonic clock.
    pub last_seen: Word,
    /// [`CtProgress`] in the lower half; in the upper half, of a TCP connection that is not open yet, the sequence number of the
    /// SYN that packets of this half acknowledge: the client's in the half of the replies, in the client's half that of the
    /// backend, once it has answered.
    pub state: Word,
    /// The id of the service.
    pub service: u32,
    /// The id of the backend.
    pub backend: u32,
    /// The backend's generation.
    pub generation: u32,
    /// Which half this is.
    pub flags: CtFlags,
}

/// As the agent reads it.
pub type CtEntry = CtEntryOf<u64>;
/// As the hooks change it.
pub type CtEntryAtomic = CtEntryOf<Cell64>;
assert_packed!(CtEntry = FiveTuple, u64, u64, u64, u32, u32, u32, CtFlags);
const _: () = assert!(size_of::<CtEntry>() == size_of::<CtEntryAtomic>());

impl CtEntry {
    /// How far its sender has come.
    #[inline(always)]
    pub const fn progress(&self) -> CtProgress {
        CtProgress(self.state as u32)
    }
}

/// The key of `FRAGMENTS`: what all fragments of one packet have in common.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FragmentKey {
    /// Who sends.
    pub source: Address,
    /// To whom.
    pub destination: Address,
    /// The identification, in network order: 16 bits in IPv4, 32 in IPv6.
    pub id: u32,
    /// IPPROTO number.
    pub protocol: u8,
    /// Always zero.
    pub zero: [u8; 3],
}
assert_packed!(FragmentKey = Address, Address, u32, u8, [u8; 3]);

/// The value of `FRAGMENTS`: what only the first fragment says.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentPorts {
    /// When it came: nanoseconds of the monotonic clock. Identifications are used again.
    pub at: u64,
    /// The sender's port.
    pub source_port: Port,
    /// The receiver's port.
    pub destination_port: Port,
    /// Always zero.
    pub zero: u32,
}
assert_packed!(FragmentPorts = u64, Port, Port, u32);

/// What is behind an interface.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceKind(pub u32);

impl InterfaceKind {
    /// `tc_ingress` and `tc_egress` are attached to it: replies that come there are met.
    pub const ATTACHED: Self = Self(1);
    /// Containers of this host, as behind docker0: what they send leaves by way of this host.
    pub const CONTAINERS: Self = Self(2);
    /// As attached, and `xdp_ingress` too: what XDP sends there gets out.
    pub const ACCELERATED: Self = Self(3);
}

/// The value of `INTERFACES`, by the number of the interface. One that is not in there is not sent to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// What is behind it.
    pub kind: InterfaceKind,
    /// Its MTU in bytes, without the link's header.
    pub mtu: u32,
    /// The IPv4 address that this host has there, which packets to virtual addresses get as their source; zero for none.
    pub v4: Address,
    /// The same of IPv6.
    pub v6: Address,
}
assert_packed!(Interface = InterfaceKind, u32, Address, Address);

/// One of `REPLY_PORTS`: a byte for each of 64 ports, those of UDP follow those of TCP; 1 where a backend on this host has
/// ever had a connection of a remote client on that port, so that what leaves from it is worth a look.
pub type ReplyPorts = [u8; 64];

/// One of `CONNTRACK_LOCKS`: held while both halves of a connection are changed. The kernel knows it by the name of the
/// type (`btf_find_spin_lock`), and the verifier by the helpers that take it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct bpf_spin_lock {
    /// The kernel's.
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
    fn a_tuple_turned_round_twice_is_itself() {
        let tuple = FiveTuple::new(
            (Address::from_v4_word(1), Port::new(2)),
            (Address::from_v4_word(3), Port::new(4)),
            PROTOCOL_TCP,
        );
        assert_ne!(tuple.reversed(), tuple);
        assert_eq!(tuple.reversed().reversed(), tuple);
    }
}
