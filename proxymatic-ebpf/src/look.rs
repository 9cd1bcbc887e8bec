//! Whether one backend would do.

use proxymatic_common::{Backend, BackendState, BackendStats, Reason};

use crate::{Draw, Tables};

/// How willing a backend is to take a connection; more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(crate) enum Rank {
    /// Not there, of another family, free, stale.
    Unfit,
    /// At its maxconn: never exceeded.
    Full,
    /// It failed not long ago.
    Ejected,
    /// Leaves soon, but answers.
    Draining,
    /// Takes connections.
    Eligible,
}

/// What a slot leads to, in one word, so that it can be the result of a function of its own in eBPF: rank, then cost
/// for its weight, then id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen(u64);

/// The bits of an id: more backends than any map here has.
const ID_BITS: u32 = 24;
/// The bits of a cost.
const COST_BITS: u32 = 37;

impl Seen {
    const UNFIT: Self = Self(0);

    /// The less a connection more would cost, the better. The weight is already in the number of slots, so an idle
    /// service must compare as equal whatever the weights: that rules out (active + 1) / weight, which would count it
    /// twice.
    #[inline(always)]
    fn new(id: u32, rank: Rank, cost: u64) -> Self {
        let most = (1 << COST_BITS) - 1;
        Self(
            (rank as u64) << (ID_BITS + COST_BITS) | (if cost > most { most } else { cost }) << ID_BITS | u64::from(id),
        )
    }

    /// From the word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// As a word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The id of the backend.
    #[inline(always)]
    pub(crate) const fn id(self) -> u32 {
        self.0 as u32 & ((1 << ID_BITS) - 1)
    }

    #[inline(always)]
    pub(crate) const fn is(self, rank: Rank) -> bool {
        self.0 >> (ID_BITS + COST_BITS) == rank as u64
    }

    #[inline(always)]
    pub(crate) const fn outranks(self, other: Self) -> bool {
        self.0 >> (ID_BITS + COST_BITS) > other.0 >> (ID_BITS + COST_BITS)
    }

    /// Whether it costs less, of two of the same rank.
    #[inline(always)]
    pub(crate) const fn cheaper(self, other: Self) -> bool {
        self.0 >> ID_BITS < other.0 >> ID_BITS
    }
}

/// Looks at the backend of one slot, by index in the map.
#[inline(always)]
pub fn look<T: Tables>(tables: &T, index: u32, draw: Draw) -> Seen {
    let Some(slot) = tables.slot(index) else { return Seen::UNFIT };
    let id = slot.backend();
    let Some(backend) = tables.backend(id) else { return Seen::UNFIT };
    if backend.generation != slot.generation() {
        tables.count(Reason::StaleSlot);
        return Seen::UNFIT;
    }
    let Some(load) = tables.load(id) else { return Seen::UNFIT };
    let active = load.active();
    let rank = rank(tables, backend, load, active, draw);
    let loaded = (active * u64::from(backend.price)) >> 8;
    let cost = if draw.by_latency() { latency(tables, load) * (active + 1) } else { loaded };
    Seen::new(id, rank, cost)
}

/// Whether a backend that was chosen before would be chosen again.
#[inline(always)]
pub(crate) fn fits<T: Tables>(tables: &T, service: u32, id: u32, generation: u32, draw: Draw) -> bool {
    let (Some(backend), Some(load)) = (tables.backend(id), tables.load(id)) else { return false };
    backend.service == service
        && backend.generation == generation
        && rank(tables, backend, load, load.active(), draw) == Rank::Eligible
}

#[inline(always)]
fn rank<T: Tables>(tables: &T, backend: &Backend, load: &BackendStats, active: u64, draw: Draw) -> Rank {
    if !backend.families.intersects(draw.families()) || (draw.local() && backend.local == 0) {
        return Rank::Unfit;
    }
    let willing = match backend.state {
        BackendState::ACTIVE => Rank::Eligible,
        BackendState::DRAINING => Rank::Draining,
        // In no head that is in use: whoever meets one of these read the head just before the switch that left it out.
        // It serves for a while yet, and to refuse would fail a connect where there are backends.
        BackendState::WARMING | BackendState::GONE => Rank::Draining,
        _ => return Rank::Unfit,
    };
    if backend.maxconn != 0 && active >= u64::from(backend.maxconn) {
        return Rank::Full;
    }
    let until = load.ejected_until.get();
    // The clock only where it is needed.
    if until != 0 && tables.now() < until {
        return Rank::Ejected;
    }
    willing
}

/// The round trip time, less the longer it is since it was measured: a backend that was slow is tried again.
#[inline(always)]
fn latency<T: Tables>(tables: &T, load: &BackendStats) -> u64 {
    /// In so long a measurement loses half its weight.
    const HALF: u64 = 10_000_000_000;
    // Microseconds in 32 bits are over an hour; more would overflow the comparison.
    let rtt = load.rtt_us.get() & 0xffff_ffff;
    let age = tables.now().saturating_sub(load.rtt_at.get());
    rtt * (HALF >> 10) / ((HALF >> 10) + (age >> 10))
}
