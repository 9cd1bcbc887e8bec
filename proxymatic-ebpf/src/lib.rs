#![no_std]
//! The decisions of the data plane, as functions of a flow or packet and of the tables.
//!
//! The decisions are generic over the traits of [`data_plane`], so the eBPF programs and the host tests run the same
//! code. This library knows no hook, no map and no aya. The hooks (the binary) decide nothing.

#[cfg(any(test, feature = "testing"))]
extern crate std;

mod admission;
mod binds;
mod conntrack;
pub mod data_plane;
mod ebpf_object;
mod ejection_budget;
mod events;
mod fast_path;
mod hash;
mod outlier;
mod packed;
pub mod packet;
mod packet_caller;
mod packet_ctx;
pub mod pipeline;
mod route;
mod score;
mod select;
mod socket_state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod types;

pub use admission::{cgroup_listed, netns_match};
pub use binds::{Bind, BindVerdict, on_bind, on_direct_datagram, on_listen, on_unbind};
pub use data_plane::{Caller, Conntrack, DataPlane, Environment, PacketHook, Subprograms, Tables};
pub use ejection_budget::slot_share;
pub use events::{on_refused, on_sampled_connect};
pub use fast_path::fast_path;
pub use outlier::{eject, on_connect_failed, on_established};
pub use packed::{EjectionShares, SelectParams, SlotScore};
pub use packet_ctx::{CtTable, PacketCtx, Route};
pub use route::{bypass_cached, may_be_service, route};
pub use score::score_slot;
pub use select::select;
pub use socket_state::{cached_udp_backend, on_connect, on_release, on_udp_send, original_destination};
pub use types::{CachedBackend, Choice, Flow, Listener, NetnsMatch, Verdict, source_towards};
