//! The version of bpf-linker, and the compilers that it fits.

use std::ops::RangeInclusive;

/// The version of bpf-linker that is built.
pub(super) const VERSION: &str = "0.10.4";
/// The LLVM major versions that this bpf-linker has features for.
pub(super) const LLVM: RangeInclusive<u32> = 20..=22;
