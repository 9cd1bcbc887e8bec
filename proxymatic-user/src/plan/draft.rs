//! A plan in the making: its writes so far, and the ids and slots it has given out.

use std::{collections::BTreeMap, fmt};

use super::{MapOp, Tables, ranges::Ranges};

/// A plan in the making. Reads the tables, never changes them.
pub(super) struct Draft<'a> {
    pub(super) tables: &'a Tables,
    pub(super) ops: Vec<MapOp>,
    next_service: u32,
    next_backend: u32,
    slots: Ranges,
    next_slot: u32,
}

/// A map that is too small, and the flag that makes it larger.
pub(super) struct TooSmall {
    pub(super) map: &'static str,
    pub(super) has: u32,
    pub(super) flag: &'static str,
}

impl fmt::Display for TooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { map, has, flag } = self;
        write!(f, "does not fit: {map} holds {has} entries, all taken; start the agent with a larger {flag}")
    }
}

impl<'a> Draft<'a> {
    pub(super) fn new(tables: &'a Tables) -> Self {
        Self { tables, ops: Vec::new(), next_service: 0, next_backend: 0, slots: Ranges::default(), next_slot: 0 }
    }

    /// The lowest free service id: low ids keep what the hooks read close together.
    pub(super) fn take_service(&mut self) -> Result<u32, TooSmall> {
        let has = self.tables.capacity.services;
        let id = lowest_free(self.tables.services(), self.next_service);
        if id >= has {
            return Err(TooSmall { map: "SERVICES", has, flag: "--max-services" });
        }
        self.next_service = id + 1;
        Ok(id)
    }

    /// The lowest free backend id.
    pub(super) fn take_backend(&mut self) -> Result<u32, TooSmall> {
        let has = self.tables.capacity.backends;
        let id = lowest_free(self.tables.backends(), self.next_backend);
        if id >= has {
            return Err(TooSmall { map: "BACKENDS", has, flag: "--max-backends" });
        }
        self.next_backend = id + 1;
        Ok(id)
    }

    /// A free range of slots.
    pub(super) fn take_slots(&mut self, length: u32) -> Result<u32, TooSmall> {
        let has = self.tables.capacity.slots;
        let given = |from, to| self.slots.gap(length, from, to, |base, _| Some(base));
        // On from the last one given, so that a plan for many services walks the ranges once for each, not more.
        let base = self.tables.ranges().gap(length, self.next_slot, has, given);
        let base = base.or_else(|| self.tables.ranges().gap(length, 0, has, given));
        let base = base.ok_or(TooSmall { map: "SLOTS", has, flag: "--max-slots" })?;
        self.slots.take(base, length);
        self.next_slot = base + length;
        Ok(base)
    }
}

fn lowest_free<T>(taken: &BTreeMap<u32, T>, from: u32) -> u32 {
    let mut free = from;
    for id in taken.range(from..).map(|(id, _)| *id) {
        if id != free {
            break;
        }
        free = id + 1;
    }
    free
}
