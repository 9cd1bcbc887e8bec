//! A counter that the kernel and the agent share.

use core::cell::UnsafeCell;

/// A 64-bit number in shared memory; a read or write is never torn and never cached.
///
/// LLVM has no atomic load or store for BPF before `-mcpu=v4`, so on BPF each access is volatile, which is one
/// instruction. Elsewhere it is an `AtomicU64`. On BPF the type has no method to add: every kernel from 5.10 on accepts
/// only an xadd whose result is unused, and the data plane's maps issue it.
#[repr(transparent)]
pub struct Cell64(UnsafeCell<u64>);

// SAFETY: every access is a single 64-bit load or store (or an atomic one), of which any value is valid.
unsafe impl Sync for Cell64 {}

impl Cell64 {
    /// Makes a cell that holds `value`.
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Returns the address of the number.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *mut u64 {
        self.0.get()
    }

    /// Returns the current number.
    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: the pointer is to our own, aligned, live cell.
        unsafe { self.as_ptr().read_volatile() }
    }

    /// Stores a number. Only for numbers of which the last write counts, never for counters.
    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    pub fn set(&self, value: u64) {
        // SAFETY: the pointer is to our own, aligned, live cell.
        unsafe { self.as_ptr().write_volatile(value) }
    }
}

#[cfg(not(target_arch = "bpf"))]
impl Cell64 {
    fn atomic(&self) -> &core::sync::atomic::AtomicU64 {
        // SAFETY: the pointer is to our own, aligned, live cell, and off BPF all access is through this function.
        unsafe { core::sync::atomic::AtomicU64::from_ptr(self.as_ptr()) }
    }

    /// Returns the current number.
    pub fn get(&self) -> u64 {
        self.atomic().load(core::sync::atomic::Ordering::Acquire)
    }

    /// Stores a number with release ordering: a reader that sees it also sees all earlier writes.
    pub fn set(&self, value: u64) {
        self.atomic().store(value, core::sync::atomic::Ordering::Release);
    }

    /// Adds `value` to the number.
    pub fn add(&self, value: u64) {
        self.atomic().fetch_add(value, core::sync::atomic::Ordering::Relaxed);
    }
}

/// Returns how many are open, as the difference of the two counts. The function reads the counts one after the other,
/// so a close between the two reads must not wrap the result.
#[inline(always)]
pub(crate) fn open_count(opened: &Cell64, closed: &Cell64) -> u64 {
    let open = opened.get().wrapping_sub(closed.get());
    if (open as i64) < 0 { 0 } else { open }
}

impl Default for Cell64 {
    fn default() -> Self {
        Self::new(0)
    }
}

impl core::fmt::Debug for Cell64 {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.get().fmt(f)
    }
}
