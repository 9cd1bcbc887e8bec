//! Compares counters of open connections with censuses: a hook that missed a close leaves a counter too high for ever. Pure.

use std::collections::BTreeMap;

/// The two connection counters at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CounterSample {
    pub(super) opened: u64,
    pub(super) closed: u64,
}

/// The counters at the begin of a census, and what the last census found.
#[derive(Debug)]
pub(super) struct Drift<K> {
    /// The counters when the census under way began.
    before: BTreeMap<K, CounterSample>,
    /// By how much each counter was off at the last census: below zero if it was too high.
    suspects: BTreeMap<K, i64>,
}

impl<K> Default for Drift<K> {
    fn default() -> Self {
        Self { before: BTreeMap::new(), suspects: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Drift<K> {
    /// Begins a census.
    pub(super) fn begin(&mut self, counters: impl Iterator<Item = (K, CounterSample)>) {
        self.before = counters.collect();
    }

    /// Ends a census. Returns by how much each counter is too low, or below zero too high, if two censuses in a row found
    /// that; the smaller of the two differences.
    ///
    /// Connections open and close during a census. It sees at least the connections that stay open all the time, and at
    /// most these and all that open meanwhile. Only a number outside of these bounds is an error of the counter.
    pub(super) fn end(
        &mut self,
        census: &BTreeMap<K, u64>,
        counters: impl Fn(K) -> Option<CounterSample>,
    ) -> Vec<(K, i64)> {
        let mut corrections = Vec::new();
        let suspects = std::mem::take(&mut self.suspects);
        for (key, before) in std::mem::take(&mut self.before) {
            let Some(after) = counters(key) else { continue };
            let least = before.opened.wrapping_sub(after.closed) as i64;
            let most = after.opened.wrapping_sub(before.closed) as i64;
            let seen = census.get(&key).copied().unwrap_or(0) as i64;
            let off = seen - seen.clamp(least, most.max(least));
            match suspects.get(&key).copied().unwrap_or(0) {
                0 if off == 0 => {}
                last if off != 0 && last.signum() == off.signum() => {
                    corrections.push((key, if last.abs() < off.abs() { last } else { off }));
                }
                _ if off != 0 => drop(self.suspects.insert(key, off)),
                _ => {}
            }
        }
        corrections
    }

    /// Cancels the census under way.
    pub(super) fn cancel(&mut self) {
        self.before.clear();
        self.suspects.clear();
    }

    /// Returns whether the last census found a difference that the next one may confirm.
    pub(super) fn has_suspects(&self) -> bool {
        !self.suspects.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [i64; 0] = [];

    fn at(opened: u64, closed: u64) -> CounterSample {
        CounterSample { opened, closed }
    }

    /// Returns the corrections after a census with these counters before and after it, that saw `seen` sockets.
    fn census(drift: &mut Drift<u32>, before: CounterSample, after: CounterSample, seen: u64) -> Vec<i64> {
        drift.begin([(1, before)].into_iter());
        let corrections = drift.end(&[(1, seen)].into(), |_| Some(after));
        corrections.into_iter().map(|(_, by)| by).collect()
    }

    #[test]
    fn difference_is_corrected_when_found_twice_in_a_row() {
        let mut drift = Drift::default();
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 3), NONE);
        assert!(drift.has_suspects());
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 3), [-2]);
        assert!(!drift.has_suspects(), "a corrected counter is no suspect");
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 6), NONE);
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 5), NONE, "no difference in between");
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 6), NONE);
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 6), [1]);
    }

    #[test]
    fn smaller_difference_of_the_same_sign_is_corrected() {
        let mut drift = Drift::default();
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 1), NONE);
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 3), [-2]);
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 1), NONE);
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 7), NONE);
    }

    #[test]
    fn connections_that_open_and_close_meanwhile_are_no_drift() {
        let mut drift = Drift::default();
        // 5 are open at first, 20 more open, and all but one close.
        for seen in 0..=25 {
            assert_eq!(census(&mut drift, at(10, 5), at(30, 29), seen), NONE, "{seen}");
            assert!(!drift.has_suspects(), "{seen}");
        }
        assert_eq!(census(&mut drift, at(10, 5), at(30, 29), 26), NONE);
        assert!(drift.has_suspects());
    }

    #[test]
    fn more_closes_than_opens_are_corrected() {
        let mut drift = Drift::default();
        assert_eq!(census(&mut drift, at(5, 7), at(5, 7), 0), NONE);
        assert_eq!(census(&mut drift, at(5, 7), at(5, 7), 0), [2]);
    }

    #[test]
    fn backend_that_is_gone_or_was_not_counted_is_left_alone() {
        let mut drift = Drift::default();
        drift.begin([(1, at(10, 5))].into_iter());
        assert_eq!(drift.end(&BTreeMap::new(), |_: u32| None), []);
        assert!(!drift.has_suspects());
        census(&mut drift, at(10, 5), at(10, 5), 1);
        drift.cancel();
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 1), NONE, "a cancelled census breaks the row");
    }
}
