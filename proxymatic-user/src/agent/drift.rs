//! What the hooks count as open against what is open: a hook that did not see a close leaves a count too high for ever.
//! Pure.

use std::collections::BTreeMap;

/// The two counters of connections at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CounterSample {
    pub(super) opened: u64,
    pub(super) closed: u64,
}

/// Compares counters with censuses.
#[derive(Debug)]
pub(super) struct Drift<K> {
    /// The counters when the census that is under way began.
    before: BTreeMap<K, CounterSample>,
    /// How far each was off at the last census: below zero where too many count as open.
    suspects: BTreeMap<K, i64>,
}

impl<K> Default for Drift<K> {
    fn default() -> Self {
        Self { before: BTreeMap::new(), suspects: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Drift<K> {
    /// A census begins.
    pub(super) fn begin(&mut self, counters: impl Iterator<Item = (K, CounterSample)>) {
        self.before = counters.collect();
    }

    /// A census has ended. Gives by how much too few count as open, or below zero too many, where that was so at two
    /// censuses in a row; of two that differ the smaller.
    ///
    /// Connections come and go while sockets are counted. What was open at the beginning and has not been closed by the
    /// end was there to be seen, and no more than that and what was opened meanwhile: only what lies outside is wrong.
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

    /// A census that was begun came to nothing.
    pub(super) fn give_up(&mut self) {
        self.before.clear();
        self.suspects.clear();
    }

    /// Whether the next census should come soon.
    pub(super) fn suspects(&self) -> bool {
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

    /// What is corrected after a census that began and ended with these counters, and saw so many.
    fn census(drift: &mut Drift<u32>, before: CounterSample, after: CounterSample, seen: u64) -> Vec<i64> {
        drift.begin([(1, before)].into_iter());
        let corrections = drift.end(&[(1, seen)].into(), |_| Some(after));
        corrections.into_iter().map(|(_, by)| by).collect()
    }

    #[test]
    fn what_is_wrong_twice_is_corrected_and_once_is_not() {
        let mut drift = Drift::default();
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 3), NONE);
        assert!(drift.suspects());
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 3), [-2]);
        assert!(!drift.suspects(), "what is corrected is a suspect no more");
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 6), NONE);
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 5), NONE, "well in between");
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 6), NONE);
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 6), [1]);
    }

    #[test]
    fn the_smaller_of_two_is_corrected_and_never_in_the_other_direction() {
        let mut drift = Drift::default();
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 1), NONE);
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 3), [-2]);
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 1), NONE);
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 7), NONE);
    }

    #[test]
    fn what_opens_and_closes_meanwhile_is_no_drift() {
        let mut drift = Drift::default();
        // 5 open at first, then 20 more, and all closed but one.
        for seen in 0..=25 {
            assert_eq!(census(&mut drift, at(10, 5), at(30, 29), seen), NONE, "{seen}");
            assert!(!drift.suspects(), "{seen}");
        }
        assert_eq!(census(&mut drift, at(10, 5), at(30, 29), 26), NONE);
        assert!(drift.suspects());
    }

    #[test]
    fn more_closes_than_opens_are_corrected_too() {
        let mut drift = Drift::default();
        assert_eq!(census(&mut drift, at(5, 7), at(5, 7), 0), NONE);
        assert_eq!(census(&mut drift, at(5, 7), at(5, 7), 0), [2]);
    }

    #[test]
    fn who_has_gone_meanwhile_or_was_not_counted_is_left_alone() {
        let mut drift = Drift::default();
        drift.begin([(1, at(10, 5))].into_iter());
        assert_eq!(drift.end(&BTreeMap::new(), |_: u32| None), []);
        assert!(!drift.suspects());
        census(&mut drift, at(10, 5), at(10, 5), 1);
        drift.give_up();
        assert_eq!(census(&mut drift, at(10, 5), at(10, 5), 1), NONE, "two in a row, not with one missing between");
    }
}
