#![no_std]
//! The layouts of the values in BPF maps, shared by the kernel's side and the agent's side.
//!
//! A type belongs to this crate only if both sides see it in a map. Every change of a layout here needs a new
//! [`ABI_VERSION`]: an agent does not read pinned maps of another version.
//!
//! Rules, checked at each declaration: `repr(C)` and no padding. A value that a packet or a socket call holds in
//! network order stays in network order behind a constructor.

#[cfg(any(test, feature = "user"))]
extern crate std;

mod address;
mod backend;
mod cell;
mod client;
mod config;
mod conntrack;
pub mod ct_timeouts;
mod event;
mod listener;
pub mod maps;
mod name;
mod ports;
mod reason;
mod service;
mod slots;
mod socket;

pub use address::{Address, Port};
pub use backend::{Backend, BackendState, BackendStats, Families, RTT_STEPS_US};
pub use cell::Cell64;
pub use client::{Affinity, AffinityKey, Client, NetnsAddresses, SourceCgroup, SourceRange, SourceRangeKey};
pub use config::{AgentState, Config, HookFlags, Loopback};
pub use conntrack::{
    ConntrackLock, CtEntry, CtEntryAtomic, CtEntryOf, CtFlags, CtProgress, FiveTuple, FragmentKey, FragmentPorts,
    Interface, InterfaceKind, ReplyPorts, bpf_spin_lock,
};
pub use event::{Event, EventKind};
pub use listener::{DirectPeer, ListenerEntry, ListenerFlags, ListenerKey};
pub use maps::ABI_VERSION;
pub use name::Name;
pub use ports::PortBit;
pub use reason::{Counters, REASONS, Reason};
#[cfg(not(target_arch = "bpf"))]
pub use service::SettingNumber;
pub use service::{
    Class, Features, Frontend, PROTOCOL_TCP, PROTOCOL_UDP, Policy, Service, ServiceStats, SlotLayout, SourceCode,
};
pub use slots::{Slot, SlotRange};
pub use socket::{RING, Socket, SocketFlags, Translation};

/// Fails the build if the size of a type is not the sum of the given sizes. Padding would reach the kernel as
/// uninitialised bytes, and hash keys with padding never match.
macro_rules! assert_packed {
    ($type:ty = $($field:ty),+ $(,)?) => {
        const _: () = assert!(
            size_of::<$type>() == 0 $(+ size_of::<$field>())+,
            concat!(stringify!($type), " has padding")
        );
    };
}
pub(crate) use assert_packed;

/// Declares that a type is plain bytes, as the agent's typed maps require.
macro_rules! plain_bytes {
    ($($type:ty),+ $(,)?) => {$(
        #[cfg(feature = "user")]
        // SAFETY: repr(C) or repr(transparent) over integers, without padding (assert_packed!), 'static and Copy.
        unsafe impl aya::Pod for $type {}
    )+};
}
pub(crate) use plain_bytes;

/// Implements the operations of a set of bits for a type.
macro_rules! bit_set {
    ($($type:ty),+ $(,)?) => {$(
        impl $type {
            /// Returns whether this set contains all bits of `other`.
            #[inline(always)]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Returns the union of both sets.
            #[must_use]
            #[inline(always)]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }
    )+};
}
pub(crate) use bit_set;
