//! Hashing and scaling of numbers.

/// Mixes two words into one whose bits all depend on both (the finalizer of splitmix64).
#[inline(always)]
pub(crate) const fn hash64(a: u64, b: u64) -> u64 {
    let mut x = a ^ b.rotate_left(32).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Scales 32 random bits to a number below `bound`, by a multiplication instead of a division.
#[inline(always)]
pub(crate) fn scale_to(random: u32, bound: u32) -> u32 {
    ((u64::from(random) * u64::from(bound)) >> 32) as u32
}
