//! Walks two sorted maps side by side: one pass finds all differences between thousands of services, without lookups.

use std::collections::BTreeMap;

use itertools::{EitherOrBoth, Itertools as _};

/// Returns each key of the two maps in order, with its value in either map.
pub(crate) fn merge_join<'a, K: Ord, A, B>(
    left: &'a BTreeMap<K, A>,
    right: &'a BTreeMap<K, B>,
) -> impl Iterator<Item = (&'a K, Option<&'a A>, Option<&'a B>)> {
    left.iter().merge_join_by(right, |(a, _), (b, _)| a.cmp(b)).map(|entries| match entries {
        EitherOrBoth::Both((key, a), (_, b)) => (key, Some(a), Some(b)),
        EitherOrBoth::Left((key, a)) => (key, Some(a), None),
        EitherOrBoth::Right((key, b)) => (key, None, Some(b)),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn merge_join_returns_each_key_once_with_both_values(
            left in prop::collection::btree_map(0_u8..20, 0_u8..3, 0..20),
            right in prop::collection::btree_map(0_u8..20, 0_u8..3, 0..20),
        ) {
            let expected: Vec<_> = (0..20)
                .filter(|key| left.contains_key(key) || right.contains_key(key))
                .map(|key| (key, left.get(&key), right.get(&key)))
                .collect();
            let walked: Vec<_> = merge_join(&left, &right).map(|(key, a, b)| (*key, a, b)).collect();
            prop_assert_eq!(walked, expected);
        }
    }
}
