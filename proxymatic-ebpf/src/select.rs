//! The selection of a backend of a service.

use proxymatic_common::{Policy, Reason};

use crate::{
    data_plane::DataPlane,
    hash::{hash64, scale_to},
    packed::{Rank, SelectParams, SlotScore},
};

/// How many attempts draw slots, before slots are scanned.
const ATTEMPTS: u32 = 4;
/// How many slots are scanned. The number is bounded for the verifier and for the latency of connect(2). A scan finds
/// the remaining backends only if few are ejected, so the agent removes the slots of backends that stay ejected.
const SCAN: u32 = 16;

/// Selects a backend of a service. Policies without consistent hashing ignore `hash`.
///
/// # Errors
/// The reason why the flow must be refused.
#[inline(always)]
pub fn select<T: DataPlane>(
    tables: &T,
    service: u32,
    params: SelectParams,
    hash: u64,
) -> Result<(u32, Reason), Reason> {
    // One word, read once, so that length and base are of one publication.
    let range = tables.slot_range(service);
    let length = range.length();
    if length == 0 {
        return Err(Reason::NoBackend);
    }
    let start = start_slot(tables, service, params, hash, length);
    for attempt in 0..ATTEMPTS {
        let one = nth_slot(tables, params, hash, start, attempt, length);
        let a = tables.score_slot(range.base() + one, params);
        if !params.two_choices() {
            if a.is(Rank::Eligible) {
                return Ok((a.id(), Reason::Translated));
            }
            continue;
        }
        // Two different slots, if there are two: one slot drawn twice would get its share without a comparison.
        let other = one + 1 + scale_to(tables.random(), length - 1);
        let b = tables.score_slot(range.base() + if other >= length { other - length } else { other }, params);
        // The first wins a tie: slots are drawn by weight, so the shares follow the weights.
        if a.is(Rank::Eligible) && !(b.is(Rank::Eligible) && b.less_loaded_than(a)) {
            return Ok((a.id(), Reason::Translated));
        }
        if b.is(Rank::Eligible) {
            return Ok((b.id(), Reason::Translated));
        }
    }
    let mut best = SlotScore::from_word(0);
    for n in 0..SCAN {
        if n >= length {
            break;
        }
        let index = start + n;
        let score = tables.score_slot(range.base() + if index >= length { index - length } else { index }, params);
        if score.is(Rank::Eligible) {
            return Ok((score.id(), Reason::Translated));
        }
        if score.outranks(best) {
            best = score;
        }
    }
    if best.is(Rank::Draining) {
        Ok((best.id(), Reason::Drained))
    } else if best.is(Rank::Ejected) {
        Ok((best.id(), Reason::PanicMode))
    } else if best.is(Rank::Full) {
        Err(Reason::BackendsFull)
    } else if params.local() {
        Err(Reason::BoundLoopback)
    } else {
        Err(Reason::NoBackend)
    }
}

/// Returns the slot of the first attempt, at which the scan begins too.
#[inline(always)]
fn start_slot<T: DataPlane>(tables: &T, service: u32, params: SelectParams, hash: u64, length: u32) -> u32 {
    match Policy(params.policy()) {
        Policy::ROUNDROBIN => match tables.service_stats(service) {
            Some(stats) => {
                // Two CPUs may read the same turn and then skip one, which evens out.
                let turn = stats.turn.get();
                tables.inc(&stats.turn);
                (turn % u64::from(length)) as u32
            }
            None => 0,
        },
        Policy::SOURCE | Policy::MAGLEV => scale_to(hash as u32, length),
        _ => scale_to(tables.random(), length),
    }
}

/// Returns the slot of an attempt: the next in turn, the next of the hash, or another random one.
#[inline(always)]
fn nth_slot<T: DataPlane>(tables: &T, params: SelectParams, hash: u64, start: u32, attempt: u32, length: u32) -> u32 {
    if attempt == 0 {
        return start;
    }
    match Policy(params.policy()) {
        Policy::ROUNDROBIN => {
            let next = start + attempt;
            // One subtraction is not enough for a service with fewer slots than attempts.
            if next >= length { (next - length) % length } else { next }
        }
        Policy::SOURCE | Policy::MAGLEV => scale_to(hash64(hash, u64::from(attempt)) as u32, length),
        _ => scale_to(tables.random(), length),
    }
}

#[cfg(test)]
mod tests;
