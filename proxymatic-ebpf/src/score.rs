//! The score of one slot's backend.

use proxymatic_common::{Backend, BackendState, BackendStats, Reason};

use crate::{
    data_plane::{Environment, Tables},
    packed::{Rank, SelectParams, SlotScore},
};

/// Scores the backend of one slot, by the slot's index in the map.
#[inline(always)]
pub fn score_slot<T: Tables + Environment>(tables: &T, index: u32, params: SelectParams) -> SlotScore {
    let Some(slot) = tables.slot(index) else { return SlotScore::INELIGIBLE };
    let id = slot.backend();
    let Some(backend) = tables.backend(id) else { return SlotScore::INELIGIBLE };
    if backend.generation != slot.generation() {
        tables.count(Reason::StaleSlot);
        return SlotScore::INELIGIBLE;
    }
    let Some(stats) = tables.backend_stats(id) else { return SlotScore::INELIGIBLE };
    let active = stats.active();
    let rank = rank(tables, backend, stats, active, params);
    let loaded = (active * u64::from(backend.inverse_weight)) >> 8;
    let cost = if params.by_latency() { latency(tables, stats) * (active + 1) } else { loaded };
    SlotScore::new(id, rank, cost)
}

/// Returns whether a backend that was selected before is still eligible.
#[inline(always)]
pub(crate) fn still_eligible<T: Tables + Environment>(
    tables: &T,
    service: u32,
    id: u32,
    generation: u32,
    params: SelectParams,
) -> bool {
    let (Some(backend), Some(stats)) = (tables.backend(id), tables.backend_stats(id)) else { return false };
    backend.service == service
        && backend.generation == generation
        && rank(tables, backend, stats, stats.active(), params) == Rank::Eligible
}

#[inline(always)]
fn rank<T: Tables + Environment>(
    tables: &T,
    backend: &Backend,
    stats: &BackendStats,
    active: u64,
    params: SelectParams,
) -> Rank {
    if !backend.families.intersects(params.families()) || (params.local() && backend.local == 0) {
        return Rank::Ineligible;
    }
    let rank_by_state = match backend.state {
        BackendState::ACTIVE => Rank::Eligible,
        BackendState::DRAINING => Rank::Draining,
        // No slot range in use has such a backend: this hook read the slot range just before the agent replaced it. The
        // backend still serves for a while, and a refusal would fail a connect although there are backends.
        BackendState::WARMING | BackendState::GONE => Rank::Draining,
        _ => return Rank::Ineligible,
    };
    if backend.maxconn != 0 && active >= u64::from(backend.maxconn) {
        return Rank::Full;
    }
    let until = stats.ejected_until.get();
    // The clock is read only if it is needed.
    if until != 0 && tables.now() < until {
        return Rank::Ejected;
    }
    rank_by_state
}

/// Returns the round trip time in microseconds, reduced by the age of its measurement: a slow backend is tried again.
#[inline(always)]
fn latency<T: Tables + Environment>(tables: &T, stats: &BackendStats) -> u64 {
    /// The age at which a measurement counts half, in nanoseconds.
    const HALF: u64 = 10_000_000_000;
    // 32 bits of microseconds are over an hour; more would overflow the comparison.
    let rtt = stats.rtt_us.get() & 0xffff_ffff;
    let age = tables.now().saturating_sub(stats.rtt_at.get());
    rtt * (HALF >> 10) / ((HALF >> 10) + (age >> 10))
}
