#![no_std]
//! The bytes that cross a BPF map, and nothing else.
//!
//! A type enters this crate only when the kernel's side and the agent's side both see it in a map. A change of any
//! layout here is a change of [`ABI_VERSION`]: pinned maps of another version are not read.
//!
//! Rules, checked where they are declared: `repr(C)`, no padding, and whatever a packet or a socket call holds in
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
pub use client::{Affinity, AffinityKey, Client, SourceCgroup, SourceRange, SourceRangeKey};
pub use config::{AgentState, Config, HookFlags, Loopback};
pub use conntrack::{
    ConntrackLock, CtEntry, CtEntryAtomic, CtEntryOf, CtFlags, CtProgress, FiveTuple, FragmentKey, FragmentPorts,
    Interface, InterfaceKind, ReplyPorts, bpf_spin_lock,
};
pub use event::{Event, EventKind};
pub use name::Name;
pub use ports::PortBit;
pub use reason::{Counters, REASONS, Reason};
pub use service::{Class, Features, Frontend, PROTOCOL_TCP, PROTOCOL_UDP, Policy, Service, ServiceStats, SourceCode};
pub use slots::{Slot, SlotRange};
pub use socket::{RING, Socket, SocketFlags, Translation};

/// The version of every layout in this crate. Part of the pin path, so that two versions can never mix.
pub const ABI_VERSION: u32 = if cfg!(feature = "next-abi") { 6 } else { 5 };

/// Fails the build when a type's size is not the sum of the sizes given: padding would reach the kernel as
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

/// Declares that a type is plain bytes, for the agent's typed maps.
macro_rules! plain_bytes {
    ($($type:ty),+ $(,)?) => {$(
        #[cfg(feature = "user")]
        // SAFETY: repr(C) or repr(transparent) over integers, without padding (assert_packed!), 'static and Copy.
        unsafe impl aya::Pod for $type {}
    )+};
}
pub(crate) use plain_bytes;

/// Gives a type that is a set of bits what sets have.
macro_rules! bit_set {
    ($($type:ty),+ $(,)?) => {$(
        impl $type {
            /// Whether all bits of another set are in this one.
            #[inline(always)]
            pub const fn has(self, other: Self) -> bool {
                self.0 & other.0 == other.0
            }

            /// Both.
            #[must_use]
            #[inline(always)]
            pub const fn with(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }
    )+};
}
pub(crate) use bit_set;
