//! How many of a service's backends are ejected, told by its slots.

use crate::Tables;

/// A backend of weight 1 in its one slot; one of a greater weight has as many slots, of which each is so much less.
const WHOLE: u32 = 1 << 12;
/// How many bits each of the three sums takes, which is enough for [`Shares::MOST`] slots.
const BITS: u32 = 21;

/// What slots stand for of the backends of a service: how much in all, how much of it is one backend's own, and how much is
/// of others that are ejected. In one word, so that it can be the result of a function of its own in eBPF, and so that to
/// add up hundreds is one way through the loop for the verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares(pub u64);

impl Shares {
    /// How many may be added up.
    pub(crate) const MOST: u32 = 1 << 8;
    pub(crate) const NONE: Self = Self(0);

    #[inline(always)]
    pub(crate) const fn plus(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// Whether at most half of the backends would be out with the one.
    ///
    /// Between what is allowed and what is not lies one backend. The line is drawn a quarter of one above half, which is as
    /// far from half of an even number as from the next of an odd one: so a sample does not toss a coin where exactly half
    /// is out, as of two backends when one fails.
    #[inline(always)]
    pub(crate) fn at_most_half(self) -> bool {
        let sum = |nth: u32| self.0 >> (nth * BITS) & ((1 << BITS) - 1);
        let (all, own, others) = (sum(0), sum(1), sum(2));
        2 * (own + others) <= all + own / 2
    }
}
const _: () = assert!(WHOLE * Shares::MOST < 1 << BITS && 3 * BITS <= u64::BITS);

/// What a slot stands for, by index in the map, where `id` is the one backend. `now` is the time in nanoseconds.
#[inline(always)]
pub fn share<T: Tables>(tables: &T, index: u32, id: u32, now: u64) -> Shares {
    let Some(slot) = tables.slot(index) else { return Shares::NONE };
    let (Some(backend), Some(load)) = (tables.backend(slot.backend()), tables.load(slot.backend())) else {
        return Shares::NONE;
    };
    let size = u64::from((WHOLE / backend.weight.max(1)).max(1));
    if slot.backend() == id {
        Shares(size | size << BITS)
    } else if load.ejected_until.get() > now {
        Shares(size | size << (2 * BITS))
    } else {
        Shares(size)
    }
}
