//! The ranges of an array that are taken.

use std::collections::BTreeMap;

/// The taken ranges of `0..capacity`: base to length. No two ranges overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ranges {
    taken: BTreeMap<u32, u32>,
}

impl Ranges {
    pub(super) fn take(&mut self, base: u32, length: u32) {
        if length > 0 {
            self.taken.insert(base, length);
        }
    }

    pub(super) fn free(&mut self, base: u32) {
        self.taken.remove(&base);
    }

    pub(super) fn total(&self) -> u32 {
        self.taken.values().sum()
    }

    /// Calls `then` for each gap of at least `length` within `from..to`, and returns its first `Some`.
    ///
    /// This walks the ranges in order. A list of gaps would be faster in theory, but this is one pass over a sorted map
    /// and needs no second structure.
    pub(super) fn find_free(
        &self,
        length: u32,
        from: u32,
        to: u32,
        then: impl Fn(u32, u32) -> Option<u32>,
    ) -> Option<u32> {
        let mut base = from;
        // Starts with the range that may contain `from`.
        let first = self.taken.range(..from).next_back().map_or(from, |(start, _)| *start);
        for (start, taken) in self.taken.range(first..) {
            if *start >= to {
                break;
            }
            if *start >= base.checked_add(length)?
                && let Some(found) = then(base, *start)
            {
                return Some(found);
            }
            base = base.max(start + taken);
        }
        if base.checked_add(length)? <= to { then(base, to) } else { None }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns the base of the first gap.
    fn first(ranges: &Ranges, length: u32, to: u32) -> Option<u32> {
        ranges.find_free(length, 0, to, |base, _| Some(base))
    }

    #[test]
    fn first_gap_that_is_large_enough_is_found() {
        let mut ranges = Ranges::default();
        ranges.take(0, 4);
        ranges.take(6, 4);
        assert_eq!(first(&ranges, 2, 100), Some(4));
        assert_eq!(first(&ranges, 3, 100), Some(10));
        assert_eq!(first(&ranges, 3, 12), None);
        ranges.free(0);
        assert_eq!(first(&ranges, 6, 100), Some(0));
    }

    #[test]
    fn gap_in_both_sets_of_ranges_is_found() {
        let (mut ranges, mut other) = (Ranges::default(), Ranges::default());
        ranges.take(6, 4);
        other.take(1, 1);
        let both = |length| {
            ranges.find_free(length, 0, 100, |from, to| other.find_free(length, from, to, |base, _| Some(base)))
        };
        assert_eq!([both(1), both(4), both(5)], [Some(0), Some(2), Some(10)]);
    }

    proptest! {
        #[test]
        fn found_gap_is_the_lowest_free_one(taken in prop::collection::vec(1_u32..9, 0..20), freed in prop::collection::vec(0_u32..64, 0..9), length in 1_u32..9) {
            let mut ranges = Ranges::default();
            for length in taken {
                if let Some(base) = first(&ranges, length, 64) {
                    ranges.take(base, length);
                }
            }
            for base in freed {
                ranges.free(base);
            }
            let free = |base: u32| ranges.taken.iter().all(|(start, taken)| base + length <= *start || start + taken <= base);
            let expected = (0..=64 - length).find(|base| free(*base));
            prop_assert_eq!(first(&ranges, length, 64), expected);
        }
    }
}
