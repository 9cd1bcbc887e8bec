//! Which backend of a service a flow gets: the less loaded of two drawn by weight.
//!
//! "Power of two choices": two draws and one comparison come close to comparing all, at a cost that does not depend on
//! how many backends there are (Mitzenmacher, 2001).

use proxymatic_common::{BackendState, Families, Head, Reason};

use crate::{Choice, Tables};

/// Draws before the search turns to scanning.
const DRAWS: u32 = 4;
/// Slots scanned in a row. Bounded for the verifier; it finds a rare eligible backend only when ineligible ones are
/// few, so the agent keeps backends that take no connections out of the slots.
const SCAN: u32 = 16;

/// How good a backend is for one more connection. A higher rank wins whatever the load.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
enum Rank {
    /// Not at all: another family, another owner, no traffic wanted.
    Unfit,
    /// It would do, but for its maxconn.
    Full,
    /// Better than refusing.
    Draining,
    /// What we look for.
    Eligible,
}

/// What was seen of one backend. Scalars only: the verifier follows each map pointer through every branch.
#[derive(Clone, Copy)]
struct Candidate {
    id: u32,
    weight: u32,
    active: u64,
    rank: Rank,
}

impl Candidate {
    const UNFIT: Self = Self { id: 0, weight: 0, active: 0, rank: Rank::Unfit };

    /// Whether this one has fewer connections for its weight: active / weight, cross-multiplied. The weight is already
    /// in the number of slots, so an idle service must compare as equal whatever the weights: that rules out
    /// (active + 1) / weight, which would count it twice.
    #[inline(always)]
    fn less_loaded(&self, other: &Self) -> bool {
        self.active * u64::from(other.weight) < other.active * u64::from(self.weight)
    }
}

/// Chooses a backend of a service, or says why there is none.
#[inline(always)]
pub(crate) fn choose<T: Tables>(tables: &T, service: u32, families: Families) -> Result<Choice, Reason> {
    let (id, reason) = find(tables, tables.head(service), families)?;
    let backend = tables.backend(id).ok_or(Reason::NoBackend)?;
    Ok(Choice { backend: id, generation: backend.generation, address: backend.address, port: backend.port, reason })
}

/// Takes the head by value: it is one word, read once, so that length and base belong together.
#[inline(always)]
fn find<T: Tables>(tables: &T, head: Head, families: Families) -> Result<(u32, Reason), Reason> {
    let length = head.length();
    if length == 0 {
        return Err(Reason::NoBackend);
    }
    for _ in 0..DRAWS {
        let (first, second) = draw_two(tables, length);
        let a = look(tables, head, first, families);
        let b = look(tables, head, second, families);
        // A tie goes to the first: each is drawn by weight, so the shares are the weights.
        if a.rank == Rank::Eligible && !(b.rank == Rank::Eligible && b.less_loaded(&a)) {
            return Ok((a.id, Reason::Translated));
        }
        if b.rank == Rank::Eligible {
            return Ok((b.id, Reason::Translated));
        }
    }
    scan(tables, head, families)
}

/// Two different slots where there are two: the same one twice would pass its share by the comparison.
#[inline(always)]
fn draw_two<T: Tables>(tables: &T, length: u32) -> (u32, u32) {
    let first = below(tables.random(), length);
    let second = first + 1 + below(tables.random(), length - 1);
    (first, if second >= length { second - length } else { second })
}

/// A number below `bound` from 32 random bits: a multiplication instead of a division.
#[inline(always)]
fn below(random: u32, bound: u32) -> u32 {
    ((u64::from(random) * u64::from(bound)) >> 32) as u32
}

/// Takes what there is, from a random slot on: eligible, else draining, else the reason to refuse.
#[inline(always)]
fn scan<T: Tables>(tables: &T, head: Head, families: Families) -> Result<(u32, Reason), Reason> {
    let length = head.length();
    let start = below(tables.random(), length);
    let (mut best, mut rank) = (0, Rank::Unfit);
    for step in 0..SCAN {
        if step >= length {
            break;
        }
        let index = start + step;
        let seen = look(tables, head, if index >= length { index - length } else { index }, families);
        if seen.rank == Rank::Eligible {
            return Ok((seen.id, Reason::Translated));
        }
        if seen.rank > rank {
            (best, rank) = (seen.id, seen.rank);
        }
    }
    match rank {
        Rank::Draining | Rank::Eligible => Ok((best, Reason::Drained)),
        Rank::Full => Err(Reason::Full),
        Rank::Unfit => Err(Reason::NoBackend),
    }
}

/// Looks at the backend of one slot.
#[inline(always)]
fn look<T: Tables>(tables: &T, head: Head, step: u32, families: Families) -> Candidate {
    let Some(slot) = tables.slot(head.base() + step) else { return Candidate::UNFIT };
    let Some(backend) = tables.backend(slot.backend()) else { return Candidate::UNFIT };
    if backend.generation != slot.generation() {
        tables.count(Reason::StaleSlot);
        return Candidate::UNFIT;
    }
    if !backend.families.meet(families) {
        return Candidate::UNFIT;
    }
    let willing = match backend.state {
        BackendState::ACTIVE => Rank::Eligible,
        BackendState::DRAINING => Rank::Draining,
        // In no head that is in use: whoever meets one of these read the head just before the switch that left it out.
        // It serves for a while yet, and to refuse would fail a connect where there are backends.
        BackendState::WARMING | BackendState::GONE => Rank::Draining,
        _ => return Candidate::UNFIT,
    };
    let Some(load) = tables.load(slot.backend()) else { return Candidate::UNFIT };
    let active = load.active();
    let full = backend.maxconn != 0 && active >= u64::from(backend.maxconn);
    Candidate { id: slot.backend(), weight: backend.weight, active, rank: if full { Rank::Full } else { willing } }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, vec, vec::Vec};

    use super::*;
    use crate::fixture::Fixture;

    const V4: Families = Families::V4;

    /// The shares, in percent, of 50,000 connections of which `held` are open at any time.
    fn shares(weights: &[u32], held: usize) -> Vec<f64> {
        let tables = Fixture::with_weights(weights);
        let (mut open, mut counts) = (VecDeque::new(), vec![0_u32; weights.len()]);
        for _ in 0..50_000 {
            let id = choose(&tables, 0, V4).unwrap().backend as usize;
            tables.loads[id].opened.add(1);
            counts[id] += 1;
            open.push_back(id);
            if open.len() > held {
                tables.loads[open.pop_front().unwrap()].closed.add(1);
            }
        }
        counts.iter().map(|n| f64::from(*n) / 500.0).collect()
    }

    #[test]
    fn shares_follow_the_weights_whether_idle_or_busy() {
        // With one or two held, being the busy one outweighs any weight: that is least connections at work.
        for held in [0, 10, 100] {
            for (share, expected) in shares(&[1, 3, 6], held).into_iter().zip([10.0, 30.0, 60.0]) {
                assert!((share - expected).abs() < 2.0, "with {held} held: {share:.1} for {expected}");
            }
        }
    }

    #[test]
    fn of_two_backends_the_busy_one_gets_nothing() {
        let tables = Fixture::with_weights(&[1, 1]);
        tables.loads[0].opened.add(1);
        for _ in 0..1000 {
            assert_eq!(choose(&tables, 0, V4).unwrap().backend, 1);
        }
    }

    #[test]
    fn load_is_compared_in_proportion_to_weight() {
        let mut tables = Fixture::with_weights(&[1, 1]);
        tables.backends[0].weight = 300;
        tables.backends[1].weight = 100;
        tables.loads[0].opened.add(5);
        tables.loads[1].opened.add(2);
        for _ in 0..100 {
            assert_eq!(choose(&tables, 0, V4).unwrap().backend, 0, "5 of 300 is less than 2 of 100");
        }
    }

    #[test]
    fn a_backend_at_its_maxconn_gets_none_and_when_all_are_the_reason_is_full() {
        let mut tables = Fixture::with_weights(&[1, 1]);
        for (backend, load) in tables.backends.iter_mut().zip(&tables.loads) {
            backend.maxconn = 2;
            load.opened.add(1);
        }
        tables.loads[0].opened.add(1);
        for _ in 0..100 {
            assert_eq!(choose(&tables, 0, V4).unwrap().backend, 1);
        }
        tables.loads[1].opened.add(1);
        assert_eq!(choose(&tables, 0, V4), Err(Reason::Full));
        tables.loads[0].closed.add(1);
        assert_eq!(choose(&tables, 0, V4).unwrap().backend, 0);
    }

    #[test]
    fn draining_ones_are_taken_only_when_nothing_else_is_left() {
        let mut tables = Fixture::with_weights(&[1, 1]);
        tables.backends[0].state = BackendState::DRAINING;
        for _ in 0..100 {
            assert_eq!(choose(&tables, 0, V4).map(|c| (c.backend, c.reason)), Ok((1, Reason::Translated)));
        }
        tables.backends[1].state = BackendState::FREE;
        assert_eq!(choose(&tables, 0, V4).map(|c| (c.backend, c.reason)), Ok((0, Reason::Drained)));
    }

    #[test]
    fn a_hook_that_read_the_head_before_a_switch_is_not_refused_after_it() {
        for state in [BackendState::WARMING, BackendState::GONE] {
            let mut tables = Fixture::with_weights(&[1, 1]);
            tables.backends.iter_mut().for_each(|backend| backend.state = state);
            assert_eq!(choose(&tables, 0, V4).map(|c| c.reason), Ok(Reason::Drained), "{state:?}");
        }
    }

    #[test]
    fn free_ones_and_unknown_states_get_nothing() {
        for state in [BackendState::FREE, BackendState(99)] {
            let mut tables = Fixture::with_weights(&[1]);
            tables.backends[0].state = state;
            assert_eq!(choose(&tables, 0, V4), Err(Reason::NoBackend), "{state:?}");
        }
    }

    #[test]
    fn a_backend_of_another_family_is_not_eligible() {
        let tables = Fixture::with_weights(&[1, 1]);
        assert_eq!(choose(&tables, 0, Families::V6), Err(Reason::NoBackend));
    }

    #[test]
    fn a_slot_of_an_earlier_owner_is_not_followed_and_counted() {
        let mut tables = Fixture::with_weights(&[1, 1]);
        tables.backends[0].generation += 1;
        for _ in 0..100 {
            assert_eq!(choose(&tables, 0, V4).unwrap().backend, 1);
        }
        assert!(tables.counted().iter().any(|(reason, n)| *reason == Reason::StaleSlot && *n > 0));
    }

    #[test]
    fn slots_and_ids_outside_the_maps_are_no_backends() {
        let mut tables = Fixture::with_weights(&[1]);
        tables.heads[0] = Head::new(0, 20, 5).unwrap();
        assert_eq!(choose(&tables, 0, V4), Err(Reason::NoBackend));
    }

    #[test]
    fn one_count_read_before_the_other_never_wraps() {
        let tables = Fixture::with_weights(&[1]);
        tables.loads[0].closed.add(1);
        assert_eq!(tables.loads[0].active(), 0);
    }
}
