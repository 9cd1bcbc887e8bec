//! Connections of remote clients: how their entries are created, and how packets change their state.
//!
//! A connection has two entries, one for each direction, each by the tuple with which its packets arrive.

pub(crate) mod create;
pub(crate) mod snat;
pub(crate) mod state;

use proxymatic_common::FiveTuple;

/// Whether a packet belongs to the connection whose entry its tuple found.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EntryMatch {
    /// The packet belongs to the connection.
    Belongs,
    /// The entry was removed: the packet begins another connection, or needs another backend.
    Stale,
}

/// Returns whether two tuples have the same ends; their protocols are not compared.
#[inline(always)]
pub(crate) fn same_tuple(one: &FiveTuple, other: &FiveTuple) -> bool {
    let ports = |it: &FiveTuple| u32::from(it.source_port.word()) << 16 | u32::from(it.destination_port.word());
    ports(one) == ports(other)
        && one.source.eq_branchless(&other.source)
        && one.destination.eq_branchless(&other.destination)
}
