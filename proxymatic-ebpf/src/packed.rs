//! Values in one word each, so that BPF subprograms can take and return them.

use proxymatic_common::{Families, Policy};

/// The policy of a selection, and the backends that are eligible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectParams(u32);

impl SelectParams {
    /// Makes parameters. `local` makes only backends on this host eligible.
    #[inline(always)]
    pub const fn new(policy: Policy, families: Families, local: bool) -> Self {
        Self((policy.0 & 0xff) << 8 | (local as u32) << 2 | families.0 as u32)
    }

    /// Returns the parameters of a word.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// Returns the word.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0
    }

    #[inline(always)]
    pub(crate) const fn policy(self) -> u32 {
        self.0 >> 8 & 0xff
    }

    #[inline(always)]
    pub(crate) const fn families(self) -> Families {
        Families((self.0 & 3) as u8)
    }

    #[inline(always)]
    pub(crate) const fn local(self) -> bool {
        self.0 & 4 != 0
    }

    #[inline(always)]
    pub(crate) const fn by_latency(self) -> bool {
        self.policy() == Policy::LATENCY.0
    }

    /// Returns whether the policy draws two slots and compares them.
    #[inline(always)]
    pub(crate) const fn two_choices(self) -> bool {
        self.policy() == Policy::LEASTCONN.0 || self.by_latency()
    }
}

/// How eligible a backend is for a connection; more is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub(crate) enum Rank {
    /// Missing, free, stale, or of another address family.
    Ineligible,
    /// At its maxconn, which is never exceeded.
    Full,
    /// It failed recently.
    Ejected,
    /// It leaves soon, but still answers.
    Draining,
    /// It takes connections.
    Eligible,
}

/// The rank of a slot's backend, then its load in proportion to its weight, then its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotScore(u64);

/// The bits of an id: more backends than any map has.
const ID_BITS: u32 = 24;
/// The bits of a cost.
const COST_BITS: u32 = 37;

impl SlotScore {
    pub(crate) const INELIGIBLE: Self = Self(0);

    /// Makes a score. A backend with a lower `cost` is better. The weight is already in the number of slots, so
    /// backends of an idle service must compare as equal whatever their weights: (active + 1) / weight would count the
    /// weight twice.
    #[inline(always)]
    pub(crate) fn new(id: u32, rank: Rank, cost: u64) -> Self {
        let most = (1 << COST_BITS) - 1;
        Self(
            (rank as u64) << (ID_BITS + COST_BITS) | (if cost > most { most } else { cost }) << ID_BITS | u64::from(id),
        )
    }

    /// Returns the score of a word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// Returns the word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Returns the id of the backend.
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

    /// Returns whether this backend has less load than another of the same rank.
    #[inline(always)]
    pub(crate) const fn less_loaded_than(self, other: Self) -> bool {
        self.0 >> ID_BITS < other.0 >> ID_BITS
    }
}

/// The share of a backend of weight 1, which has one slot. A backend of a greater weight has more slots, each with a
/// smaller share.
const WHOLE: u32 = 1 << 12;
/// The bits of each of the three sums, enough for [`EjectionShares::MOST`] slots.
const SUM_BITS: u32 = 21;

/// Three sums over slots of a service: the shares of all backends, of the candidate for ejection, and of the other ejected
/// backends. One word also makes the loop that adds them a single path for the verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EjectionShares(pub u64);

impl EjectionShares {
    /// How many slots can be added.
    pub(crate) const MOST: u32 = 1 << 8;
    pub(crate) const NONE: Self = Self(0);

    /// Returns the share of one slot of a backend of a weight, among all backends only.
    #[inline(always)]
    pub(crate) fn of_weight(weight: u32) -> Self {
        Self(u64::from((WHOLE / weight.max(1)).max(1)))
    }

    /// Returns this share, counted for the candidate for ejection too.
    #[inline(always)]
    pub(crate) const fn own(self) -> Self {
        Self(self.0 | self.0 << SUM_BITS)
    }

    /// Returns this share, counted for the other ejected backends too.
    #[inline(always)]
    pub(crate) const fn ejected(self) -> Self {
        Self(self.0 | self.0 << (2 * SUM_BITS))
    }

    #[inline(always)]
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Returns whether at most half of the backends would be ejected, the candidate included.
    ///
    /// The limit is a quarter of a backend above half. That is as far from half of an even number as from the next
    /// count of an odd number, so a sample decides right if exactly half would be ejected, as for one backend of two.
    #[inline(always)]
    pub(crate) fn within_cap(self) -> bool {
        let sum = |nth: u32| self.0 >> (nth * SUM_BITS) & ((1 << SUM_BITS) - 1);
        let (all, own, others) = (sum(0), sum(1), sum(2));
        2 * (own + others) <= all + own / 2
    }
}
const _: () = assert!(WHOLE * EjectionShares::MOST < 1 << SUM_BITS && 3 * SUM_BITS <= u64::BITS);
