//! A counter that the kernel and the agent share.

use core::cell::UnsafeCell;

/// A 64-bit number in shared memory: never torn, never cached.
///
/// LLVM has no atomic load or store for BPF before `-mcpu=v4`, so there it is a volatile access, which is one
/// instruction; elsewhere it is an `AtomicU64`. Adding is a method of neither: the BPF instruction that every kernel
/// from 5.10 takes is an xadd whose result is not used, and the data plane's maps own it.
#[repr(transparent)]
pub struct Cell64(UnsafeCell<u64>);

// SAFETY: every access is a single 64-bit load or store (or an atomic one), of which any value is valid.
unsafe impl Sync for Cell64 {}

impl Cell64 {
    /// A cell that holds `value`.
    pub const fn new(value: u64) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// Where the number is.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *mut u64 {
        self.0.get()
    }

    /// The number now.
    #[cfg(target_arch = "bpf")]
    #[inline(always)]
    pub fn get(&self) -> u64 {
        // SAFETY: the pointer is to our own, aligned, live cell.
        unsafe { self.as_ptr().read_volatile() }
    }

    /// Stores a number: for what only the last writer matters of, never for counts.
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

    /// The number now.
    pub fn get(&self) -> u64 {
        self.atomic().load(core::sync::atomic::Ordering::Acquire)
    }

    /// Publishes a number: whoever sees it sees all that was written before it.
    pub fn set(&self, value: u64) {
        self.atomic().store(value, core::sync::atomic::Ordering::Release);
    }

    /// Adds to the number.
    pub fn add(&self, value: u64) {
        self.atomic().fetch_add(value, core::sync::atomic::Ordering::Relaxed);
    }
}

/// How many are open of those opened and closed so far. The two counts are read one after the other, so a close between
/// them must not wrap.
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
