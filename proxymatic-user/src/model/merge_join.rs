//! Walks two sorted maps side by side: one pass finds all differences between thousands of services, without lookups.

use std::{cmp::Ordering, collections::BTreeMap};

/// Returns each key of the two maps in order, with its value in either map.
pub(crate) fn merge_join<'a, K: Ord, A, B>(
    left: &'a BTreeMap<K, A>,
    right: &'a BTreeMap<K, B>,
) -> impl Iterator<Item = (&'a K, Option<&'a A>, Option<&'a B>)> {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    std::iter::from_fn(move || {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return None,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, _)), Some((b, _))) => a.cmp(b),
        };
        let a = if order.is_le() { left.next() } else { None };
        let b = if order.is_ge() { right.next() } else { None };
        let key = a.map(|(key, _)| key).or(b.map(|(key, _)| key))?;
        Some((key, a.map(|(_, value)| value), b.map(|(_, value)| value)))
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
