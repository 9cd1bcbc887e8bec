//! `MmapArray`: an array map as memory, read and written without system calls. Stores of a word are atomic for hooks.

use std::{
    marker::PhantomData,
    sync::atomic::{AtomicU32, Ordering},
};

use aya::maps::MapData;
use memmap2::{MmapOptions, MmapRaw};
use proxymatic_common::{Backend, BackendState, BackendStats, Cell64, Counters, ServiceStats};
use std::os::fd::AsFd as _;

use crate::dataplane::Error;

/// The mapped entries of an array map that was created with BPF_F_MMAPABLE.
#[derive(Debug)]
pub(super) struct MmapArray<T> {
    memory: MmapRaw,
    entries: u32,
    of: PhantomData<T>,
}

impl<T> MmapArray<T> {
    /// Maps all entries of a map. The caller has checked that the value size is that of `T`.
    pub(super) fn new(name: &str, map: &MapData, entries: u32) -> Result<Self, Error> {
        const { assert!(size_of::<T>().is_multiple_of(8), "the kernel rounds up to 8 bytes") };
        let length = size_of::<T>() * entries as usize;
        let file = std::os::fd::AsRawFd::as_raw_fd(&map.fd().as_fd());
        let memory = MmapOptions::new().len(length).map_raw(file);
        let memory = memory.map_err(|error| Error::kernel(format!("map {name} into memory"), &error))?;
        Ok(Self { memory, entries, of: PhantomData })
    }

    pub(super) const fn entries(&self) -> u32 {
        self.entries
    }

    fn at(&self, index: u32) -> Option<*mut T> {
        // SAFETY: within the mapping, whose length is entries times the size of T.
        (index < self.entries).then(|| unsafe { self.memory.as_mut_ptr().cast::<T>().add(index as usize) })
    }
}

impl<T: aya::Pod> MmapArray<T> {
    pub(super) fn read(&self, index: u32) -> Option<T> {
        // SAFETY: a live, aligned entry, and any bytes are a value of a Pod type; volatile because hooks write too.
        self.at(index).map(|entry| unsafe { entry.read_volatile() })
    }

    /// Writes an entry. Hooks must not use the entry yet, or only single words may change.
    pub(super) fn write(&self, index: u32, value: T) -> bool {
        let Some(entry) = self.at(index) else { return false };
        // SAFETY: a live, aligned entry; volatile because hooks read it.
        unsafe { entry.write_volatile(value) };
        true
    }
}

impl MmapArray<Backend> {
    /// Replaces the state of a backend if it is `from`. Atomic, because the agent may write the state too.
    pub(super) fn swap_state(&self, index: u32, from: BackendState, to: BackendState) -> bool {
        let Some(entry) = self.at(index) else { return false };
        // SAFETY: a live, aligned word of an entry of the mapping, which outlives the reference.
        let state = unsafe { AtomicU32::from_ptr((&raw mut (*entry).state).cast()) };
        state.compare_exchange(from.0, to.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl MmapArray<Cell64> {
    /// Returns an entry, for atomic loads and stores.
    pub(super) fn cell(&self, index: u32) -> Option<&Cell64> {
        // SAFETY: a live, aligned entry that is only ever accessed as a cell.
        self.at(index).map(|entry| unsafe { &*entry })
    }
}

impl MmapArray<BackendStats> {
    /// Returns the counts of a backend. They are cells, so that reading them while hooks add is sound.
    pub(super) fn load(&self, index: u32) -> Option<&BackendStats> {
        // SAFETY: a live, aligned entry; all that changes in it are cells.
        self.at(index).map(|entry| unsafe { &*entry })
    }
}

impl MmapArray<ServiceStats> {
    /// Returns the counts of a service.
    pub(super) fn service_load(&self, index: u32) -> Option<&ServiceStats> {
        // SAFETY: a live, aligned entry; all that changes in it are cells.
        self.at(index).map(|entry| unsafe { &*entry })
    }
}

impl MmapArray<Counters> {
    /// Returns the counters of a CPU.
    pub(super) fn counters(&self, index: u32) -> Option<&Counters> {
        // SAFETY: a live, aligned entry of nothing but cells.
        self.at(index).map(|entry| unsafe { &*entry })
    }
}
