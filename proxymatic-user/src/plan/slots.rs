//! Turns weights into slots.

use proxymatic_common::Slot;

/// The largest number of slots for each backend of a service, once its weights need more than [`EXACT`] slots.
const PER_BACKEND: u64 = 64;
/// The number of slots up to which shares match the weights exactly.
const EXACT: u64 = 2048;

/// Returns the slots of a service. Each backend has slots in proportion to its weight, spread evenly, so that a short
/// scan from any slot meets many backends. Weights are divided by their common divisor first: with many slots for one
/// backend, two draws would often pick the same backend.
///
/// The same backends and weights, in the same order, always give the same slots. A weight of 0 gives no slot.
pub(super) fn slots(backends: &[(Slot, u32)]) -> Vec<Slot> {
    let counts = counts(backends);
    let total: u64 = counts.iter().sum();
    let mut spread: Vec<(u64, usize)> = Vec::with_capacity(total as usize);
    for (i, count) in counts.iter().enumerate() {
        // The k-th of n slots of a backend belongs at position (2k + 1) / 2n.
        spread.extend((0..*count).map(|k| (((2 * k + 1) << 32) / (2 * count), i)));
    }
    spread.sort_unstable();
    spread.into_iter().map(|(_, i)| backends[i].0).collect()
}

fn counts(backends: &[(Slot, u32)]) -> Vec<u64> {
    let divisor = backends.iter().fold(0, |a, (_, weight)| gcd(a, u64::from(*weight))).max(1);
    let counts: Vec<u64> = backends.iter().map(|(_, weight)| u64::from(*weight) / divisor).collect();
    let total: u64 = counts.iter().sum();
    let limit = EXACT.max(PER_BACKEND * backends.len() as u64);
    if total <= limit {
        return counts;
    }
    // Rounded to nearest, but never to zero: a weight of 1 beside 1000s still means some traffic.
    counts.iter().map(|n| if *n == 0 { 0 } else { ((n * limit + total / 2) / total).max(1) }).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(weights: &[u32]) -> Vec<u32> {
        let backends: Vec<_> = weights.iter().enumerate().map(|(i, w)| (Slot::new(i as u32, 1), *w)).collect();
        slots(&backends).iter().map(|slot| slot.backend()).collect()
    }

    #[test]
    fn equal_weights_give_each_backend_one_slot() {
        assert_eq!(ids(&[500, 500, 500]), [0, 1, 2]);
        assert!(ids(&[]).is_empty());
    }

    #[test]
    fn slots_of_a_backend_are_spread_evenly() {
        assert_eq!(ids(&[100, 300]), [1, 0, 1, 1]);
        assert_eq!(ids(&[1, 0, 2]), [2, 0, 2]);
    }

    proptest! {
        /// Roundrobin takes the slots in turn: no backend may get many connections at once, nor wait long.
        #[test]
        fn any_prefix_of_the_slots_is_near_the_shares(weights in prop::collection::vec(1_u32..=20, 1..12)) {
            let ids = ids(&weights);
            let total: u32 = weights.iter().sum();
            let mut had = vec![0_u32; weights.len()];
            for (taken, id) in ids.iter().enumerate() {
                had[*id as usize] += 1;
                for (had, weight) in had.iter().zip(&weights) {
                    let share = f64::from(*weight) / f64::from(total);
                    let off = f64::from(*had) - share * (taken + 1) as f64;
                    prop_assert!(off.abs() <= 0.5 + share * weights.len() as f64 / 2.0 + 1e-6, "{off} of {share}");
                }
            }
        }

        #[test]
        fn slot_shares_match_the_weights(weights in prop::collection::vec(0_u32..=1000, 1..40)) {
            let ids = ids(&weights);
            let total: u32 = weights.iter().sum();
            prop_assert_eq!(ids.is_empty(), total == 0);
            for (i, weight) in weights.iter().enumerate() {
                let have = ids.iter().filter(|id| **id == i as u32).count() as f64 / ids.len().max(1) as f64;
                let want = f64::from(*weight) / f64::from(total.max(1));
                let rounding = (1.0 + want * weights.len() as f64) / ids.len().max(1) as f64;
                prop_assert!((have - want).abs() <= rounding, "{have} for {want}");
                prop_assert_eq!(have > 0.0, *weight > 0);
            }
        }
    }
}
