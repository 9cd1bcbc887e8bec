//! Slots for the policies that hash: a table in which few entries change if backends come or go.
//!
//! The table follows D. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016,
//! section 3.4: backends in turn take the first free entry of their own preference order. Here a backend's turns are in
//! proportion to its weight.
//!
//! The preference orders are random sequences instead of the paper's fixed steps. Two backends with the same step
//! follow each other through the whole table; then removing one moves 4 to 5 % of the entries instead of 1 %.
//!
//! A backend's order depends on its task, address and port, never on ids. So every host computes the same table for the
//! same backends.

use std::net::IpAddr;

use proxymatic_common::Slot;

use crate::model;

/// The possible sizes of a table. They are few, so that a table keeps its size while a service grows and shrinks:
/// another size changes all entries.
const SIZES: [u64; 8] = [509, 1021, 2039, 4093, 8191, 16_381, 32_749, 65_521];
/// The number of entries for each backend, up to the largest size. With 400, removing one of twenty backends moves 1.1
/// % of the other backends' entries; with 100 it would be 2.4 %.
const PER_BACKEND: u64 = 400;

/// A backend's preference order: the state of its random sequence.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preference(u64);

impl Preference {
    /// Hashes task, address and port by FNV-1a (Fowler, Noll, Vo): the result does not depend on the compiler or the
    /// build.
    pub(super) fn of(backend: &model::Backend) -> Self {
        Self::at(&backend.task, backend.address, backend.port)
    }

    /// Makes the preference order of a backend in the maps.
    pub(super) fn at(task: &str, address: IpAddr, port: u16) -> Self {
        let octets = match address {
            IpAddr::V4(four) => four.to_ipv6_mapped().octets(),
            IpAddr::V6(six) => six.octets(),
        };
        let bytes = task.bytes().chain(octets).chain(port.to_be_bytes());
        let hash =
            bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
        // FNV maps similar names to similar values, which would be positions of one random sequence.
        Self(mix(hash))
    }

    /// Returns the next preferred entry (SplitMix64).
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

/// Returns the table over these backends, for a service with `known` backends in all. A weight of 0 gives no entry. Any
/// other weight gives at least one, as long as there are more entries than backends.
pub(super) fn table(backends: &[(Preference, Slot, u32)], known: usize) -> Vec<Slot> {
    let most = u64::from(backends.iter().map(|(.., weight)| *weight).max().unwrap_or(0));
    if most == 0 {
        return Vec::new();
    }
    let min_size = PER_BACKEND * known as u64;
    let size = SIZES.into_iter().find(|size| *size >= min_size).unwrap_or(SIZES[SIZES.len() - 1]);
    let mut entries = vec![None; size as usize];
    let mut turns: Vec<_> = backends
        .iter()
        .filter(|(.., weight)| *weight > 0)
        .map(|(preference, slot, weight)| {
            // The credit for the first turn is given in advance, so that a small weight gets an entry too.
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

    /// Returns the part of the table that a backend has; 0 if the table is empty.
    fn share(table: &[Slot], id: usize) -> f64 {
        table.iter().filter(|slot| slot.backend() == id as u32).count() as f64 / table.len().max(1) as f64
    }

    #[test]
    fn backends_without_weight_give_an_empty_table() {
        for weights in [&[][..], &[0], &[0, 0]] {
            let table = table(&backends(0, weights), weights.len());
            assert!(table.is_empty(), "{weights:?}");
            assert_eq!(share(&table, 0), 0.0, "{weights:?}");
        }
    }

    #[test]
    fn table_is_the_same_on_every_host_and_in_every_build() {
        let table = table(&backends(7, &[500, 250, 1000]), 3);
        let first: Vec<_> = table.iter().take(24).map(|slot| slot.backend()).collect();
        assert_eq!(table.len(), 2039);
        assert_eq!(first, [0, 2, 2, 0, 0, 0, 0, 1, 1, 0, 2, 0, 2, 1, 2, 2, 2, 2, 1, 0, 0, 2, 2, 0]);
    }

    proptest! {
        #[test]
        fn table_shares_match_the_weights(seed in any::<u32>(), weights in prop::collection::vec(0_u32..=1000, 1..60)) {
            let table = table(&backends(seed, &weights), weights.len());
            let total: u32 = weights.iter().sum();
            prop_assert_eq!(table.is_empty(), total == 0);
            for (id, weight) in weights.iter().enumerate() {
                let (have, want) = (share(&table, id), f64::from(*weight) / f64::from(total.max(1)));
                prop_assert!((have - want).abs() < 0.01, "{have} for {want}");
                prop_assert_eq!(have > 0.0, *weight > 0);
            }
        }
    }

    /// The seeds are fixed: a share among random draws has no bound that all draws keep.
    #[test]
    fn removing_one_of_twenty_moves_few_other_entries() {
        for seed in 0..13 {
            let all = backends(seed, &[500; 20]);
            let before = table(&all, 20);
            for gone in 0..20 {
                let mut rest = all.clone();
                rest.remove(gone);
                let after = table(&rest, 19);
                assert_eq!(before.len(), after.len());
                let moved = before.iter().zip(&after).filter(|(a, b)| a != b && a.backend() != gone as u32).count();
                let moved = moved as f64 / before.len() as f64;
                assert!(moved < 0.02, "{moved} for seed {seed} without {gone}");
            }
        }
    }
}
