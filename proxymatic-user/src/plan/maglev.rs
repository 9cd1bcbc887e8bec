//! Slots for the policies that hash: a table in which few entries change when backends come and go.
//!
//! The table of D. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, section
//! 3.4: backends in turn take the first free entry of their own order of preference; here with turns in proportion to
//! weight. The orders are random sequences instead of the paper's fixed steps: two backends with the same step follow
//! each other through the whole table, and then one that goes moves 4 to 5 % of the entries instead of 1 %.
//!
//! A backend's order comes from its task and where that listens, never from ids, so that every host fills the same table
//! for the same backends.

use std::net::IpAddr;

use proxymatic_common::Slot;

use crate::model;

/// The sizes a table can have. Few, so that a table keeps its size, which decides all its entries, while a service grows
/// and shrinks.
const SIZES: [u64; 8] = [509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521];
/// How many entries there are for each backend, as far as the sizes go. With so many, one of twenty that goes moves 1.1 %
/// of the entries beyond its own; with 100 it would be 2.4 %.
const PER_BACKEND: u64 = 400;

/// A backend's order of preference: the state of its random sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preference(u64);

impl Preference {
    /// By FNV-1a (Fowler, Noll, Vo) of task, address and port: whoever builds the agent, with whatever compiler, gets
    /// the same.
    pub(super) fn of(backend: &model::Backend) -> Self {
        Self::at(&backend.task, backend.address, backend.port)
    }

    /// The same of a backend that the maps hold.
    pub(super) fn at(task: &str, address: IpAddr, port: u16) -> Self {
        let octets = match address {
            IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
            IpAddr::V6(six) => six.octets(),
        };
        let bytes = task.bytes().chain(octets).chain(port.to_be_bytes());
        let hash =
            bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        // FNV leaves similar names near each other, on what would be one sequence.
        Self(mix(hash))
    }

    /// The next entry it prefers (SplitMix64).
    const fn next(&mut self, size: u64) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        (((mix(self.0) >> 32) * size) >> 32) as usize
    }
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood).
const fn mix(hash: u64) -> u64 {
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// The table over these backends, of a service that has `known` backends in all. Weights of 0 get no entry, others at
/// least one as long as there are more entries than backends.
pub(super) fn table(backends: &[(Preference, Slot, u32)], known: usize) -> Vec<Slot> {
    let most = u64::from(backends.iter().map(|(.., weight)| *weight).max().unwrap_or(0));
    if most == 0 {
        return Vec::new();
    }
    let wanted = PER_BACKEND * known as u64;
    let size = SIZES.into_iter().find(|size| *size >= wanted).unwrap_or(SIZES[SIZES.len() - 1]);
    let mut entries = vec![None; size as usize];
    let mut turns: Vec<_> = backends
        .iter()
        .filter(|(.., weight)| *weight > 0)
        .map(|(preference, slot, weight)| {
            // With the first turn paid for, so that a small weight gets its entry too.
            Turn { preference: *preference, slot: *slot, weight: u64::from(*weight), credit: most - u64::from(*weight) }
        })
        .collect();
    let mut left = entries.len();
    while left > 0 {
        for turn in &mut turns {
            turn.credit += turn.weight;
            if turn.credit < most || left == 0 {
                continue;
            }
            turn.credit -= most;
            let free = loop {
                let entry = turn.preference.next(size);
                if entries[entry].is_none() {
                    break entry;
                }
            };
            entries[free] = Some(turn.slot);
            left -= 1;
        }
    }
    entries.into_iter().flatten().collect()
}

struct Turn {
    preference: Preference,
    slot: Slot,
    weight: u64,
    credit: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{Backend, State, Weight};

    fn backends(seed: u32, weights: &[u32]) -> Vec<(Preference, Slot, u32)> {
        let preference = |n: usize| {
            Preference::of(&Backend {
                task: format!("web_{seed}.instance-{n}._app.1"),
                address: [10, 0, (n / 250) as u8, (n % 250) as u8].into(),
                port: 31_000 + n as u16,
                weight: Weight::default(),
                maxconn: 0,
                state: State::Active,
            })
        };
        weights.iter().enumerate().map(|(n, weight)| (preference(n), Slot::new(n as u32, 1), *weight)).collect()
    }

    /// The part of the table that a backend has; of an empty table nobody has any.
    fn share(table: &[Slot], id: usize) -> f64 {
        table.iter().filter(|slot| slot.backend() == id as u32).count() as f64 / table.len().max(1) as f64
    }

    #[test]
    fn backends_without_weight_get_an_empty_table() {
        for weights in [&[][..], &[0], &[0, 0]] {
            let table = table(&backends(0, weights), weights.len());
            assert!(table.is_empty(), "{weights:?}");
            assert_eq!(share(&table, 0), 0.0, "{weights:?}");
        }
    }

    #[test]
    fn the_table_of_a_service_is_the_same_on_every_host_and_in_every_build() {
        let table = table(&backends(7, &[500, 250, 1000]), 3);
        let first: Vec<_> = table.iter().take(24).map(|slot| slot.backend()).collect();
        assert_eq!(table.len(), 2039);
        assert_eq!(first, [0, 2, 2, 0, 0, 0, 0, 1, 1, 0, 2, 0, 2, 1, 2, 2, 2, 2, 1, 0, 0, 2, 2, 0]);
    }

    proptest! {
        #[test]
        fn shares_are_the_weights(seed in any::<u32>(), weights in prop::collection::vec(0_u32..=1000, 1..60)) {
            let table = table(&backends(seed, &weights), weights.len());
            let total: u32 = weights.iter().sum();
            prop_assert_eq!(table.is_empty(), total == 0);
            for (id, weight) in weights.iter().enumerate() {
                let (have, want) = (share(&table, id), f64::from(*weight) / f64::from(total.max(1)));
                prop_assert!((have - want).abs() < 0.01, "{have} for {want}");
                prop_assert_eq!(have > 0.0, *weight > 0);
            }
        }

        #[test]
        fn removing_one_of_twenty_moves_little_beyond_its_share(seed in any::<u32>(), gone in 0_usize..20) {
            let all = backends(seed, &[500; 20]);
            let before = table(&all, 20);
            let mut rest = all.clone();
            rest.remove(gone);
            let after = table(&rest, 19);
            prop_assert_eq!(before.len(), after.len());
            let moved = before.iter().zip(&after).filter(|(a, b)| a != b && a.backend() != gone as u32).count();
            let moved = moved as f64 / before.len() as f64;
            prop_assert!(moved < 0.02, "{moved}");
        }
    }
}
