//! The SNAT port of a connection: the source port that a forwarded connection has towards its backend.

use proxymatic_common::{Config, CtEntry, FiveTuple, Port, Reason, ct_timeouts};

use super::{same_tuple, state::is_closed};
use crate::{
    data_plane::Conntrack,
    hash::{hash64, scale_to},
    packet_ctx::{CtTable, SnatCandidate},
};

/// How many ports are probed at most.
pub(crate) const MAX_PROBES: u32 = 16;
/// After how many taken ports a port that has been unused for [`ct_timeouts::SNAT_PORT_REUSE`] is taken. If connections
/// end as fast as they begin, nearly all ports are taken, and each probe is a cache miss.
pub(crate) const MIN_PROBES: u32 = 4;

/// Allocates a source port that no other connection to the backend has, and inserts the reply entry.
///
/// Probing begins at a random port: a port that was used long ago is better than one that was used just now, since the
/// backend may still remember the connection. If all probed ports are taken, the port of a closed connection is reused,
/// because Linux lets a new connection replace one in TIME_WAIT. The connection that was closed the longest ago comes
/// first: packets of a recent one may still be on their way. After [`MIN_PROBES`] taken ports, one that has been unused
/// for [`ct_timeouts::SNAT_PORT_REUSE`] ends the search.
///
/// If no connection is closed either, the oldest half-open connection loses its port. A flood of SYNs takes every port
/// within 0.1 s, so its connections are the oldest. A legitimate client completes the handshake within two round trips
/// and is hardly ever the oldest of [`MIN_PROBES`], after which the search ends; without a flood so many half-open
/// connections are not found. A client that does lose its port gets another when it retransmits its SYN.
///
/// # Errors
/// No port is free, or the reply entry could not be inserted.
#[inline(always)]
pub(crate) fn allocate_snat_port<T: Conntrack>(
    tables: &T,
    config: &Config,
    reply: &mut FiveTuple,
    new_entry: &CtEntry,
    candidate: &mut SnatCandidate,
) -> Result<(), Reason> {
    let ports = config.snat_last.wrapping_sub(config.snat_first).wrapping_add(1) & 0xffff;
    let random = hash64(u64::from(tables.random()), u64::from(new_entry.translated.destination_port.word()));
    // Wide enough that no port is probed twice, if there are so many ports.
    let step = 1 + scale_to(random as u32, ports / MAX_PROBES);
    let mut offset = scale_to((random >> 32) as u32, ports);
    candidate.clear();
    for probes in 1..=MAX_PROBES {
        let port = Port::new(config.snat_first.wrapping_add(offset) as u16);
        offset += step;
        if offset >= ports {
            offset -= ports;
        }
        reply.destination_port = port;
        if let Some(entry) = tables.established_entry(reply) {
            if is_closed(entry) {
                candidate.offer_closed(port, entry.last_seen.get());
            }
        } else if let Some(entry) = tables.half_open(reply) {
            candidate.offer_half_open(port, entry.start);
        } else if tables.insert(CtTable::HalfOpen, reply, new_entry, true) {
            // Looked up before: inserting a key that exists makes the kernel take a free element first.
            return Ok(());
        }
        let reusable = candidate.since() < new_entry.last_seen.saturating_sub(ct_timeouts::SNAT_PORT_REUSE);
        if (probes >= MIN_PROBES && reusable) || candidate.half_open_count() >= u64::from(MIN_PROBES) {
            break;
        }
    }
    if candidate.is_none() {
        return Err(Reason::SnatPortsExhausted);
    }
    reply.destination_port = candidate.port();
    if candidate.is_half_open() {
        evict_half_open(tables, reply);
    } else {
        remove_closed(tables, reply);
    }
    if tables.insert(CtTable::HalfOpen, reply, new_entry, true) { Ok(()) } else { Err(Reason::SnatPortsExhausted) }
}

/// Removes a half-open connection, given the key of its reply entry.
#[inline(always)]
fn evict_half_open<T: Conntrack>(tables: &T, reply: &FiveTuple) {
    if let Some(entry) = tables.half_open(reply) {
        tables.remove(CtTable::HalfOpen, &entry.translated.reversed());
        tables.remove(CtTable::HalfOpen, reply);
        tables.count(Reason::SnatPortPreempted);
    }
}

/// Removes a closed connection, given the key of its reply entry. The client's entry is removed too: late packets of
/// that client would be forwarded into the connection that gets the port. It stays if the client has begun another
/// connection.
#[inline(always)]
fn remove_closed<T: Conntrack>(tables: &T, reply: &FiveTuple) {
    if let Some(closed) = tables.established_entry(reply) {
        let client = closed.translated.reversed();
        if tables.established_entry(&client).is_some_and(|entry| same_tuple(&entry.translated, &reply.reversed())) {
            tables.remove(CtTable::Established, &client);
        }
        tables.remove(CtTable::Established, reply);
    }
}
