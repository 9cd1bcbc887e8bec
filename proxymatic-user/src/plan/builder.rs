//! A plan in the making: its writes so far, and the ids and slots it has given out.

use std::{collections::BTreeMap, fmt};

use super::{Desired, MapOp, MapState, ranges::Ranges};

/// A plan in the making. Reads the tables, never changes them.
pub(super) struct PlanBuilder<'a> {
    pub(super) tables: &'a MapState,
    pub(super) ops: Vec<MapOp>,
    next_service: u32,
    next_backend: u32,
    slots: Ranges,
    next_slot: u32,
    allows: usize,
    allowed_cgroups: usize,
}

/// A map that is too small, and what helps.
pub(super) struct MapFull {
    pub(super) map: &'static str,
    pub(super) has: u32,
    pub(super) remedy: &'static str,
}

impl fmt::Display for MapFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { map, has, remedy } = self;
        write!(f, "does not fit: {map} holds {has} entries, all taken; {remedy}")
    }
}

impl<'a> PlanBuilder<'a> {
    pub(super) fn new(tables: &'a MapState) -> Self {
        let entries = || tables.services().values();
        Self {
            tables,
            ops: Vec::new(),
            next_service: 0,
            next_backend: 0,
            slots: Ranges::default(),
            next_slot: 0,
            allows: entries().map(|entry| entry.allow.len()).sum(),
            allowed_cgroups: entries().map(|entry| entry.allow_cgroups.len()).sum(),
        }
    }

    /// The lowest free service id: low ids keep what the hooks read close together.
    pub(super) fn take_service(&mut self) -> Result<u32, MapFull> {
        let has = self.tables.capacity.services;
        let id = lowest_free(self.tables.services(), self.next_service);
        if id >= has {
            return Err(MapFull { map: "SERVICES", has, remedy: "start the agent with a larger --max-services" });
        }
        self.next_service = id + 1;
        Ok(id)
    }

    /// The lowest free backend id but for those that rest or are drained: that is said of owners before.
    pub(super) fn take_backend(&mut self, desired: &Desired) -> Result<u32, MapFull> {
        let has = self.tables.capacity.backends;
        let mut id = lowest_free(self.tables.backends(), self.next_backend);
        while desired.parked.contains(&id) || desired.drained.contains(&id) {
            id = lowest_free(self.tables.backends(), id + 1);
        }
        if id >= has {
            return Err(MapFull { map: "BACKENDS", has, remedy: "start the agent with a larger --max-backends" });
        }
        self.next_backend = id + 1;
        Ok(id)
    }

    /// A free range of slots.
    pub(super) fn take_slots(&mut self, length: u32) -> Result<u32, MapFull> {
        let has = self.tables.capacity.slots;
        let given = |from, to| self.slots.find_free(length, from, to, |base, _| Some(base));
        // On from the last one given, so that a plan for many services walks the ranges once for each, not more.
        let base = self.tables.ranges().find_free(length, self.next_slot, has, given);
        let base = base.or_else(|| self.tables.ranges().find_free(length, 0, has, given));
        let base = base.ok_or(MapFull { map: "SLOTS", has, remedy: "start the agent with a larger --max-slots" })?;
        self.slots.take(base, length);
        self.next_slot = base + length;
        Ok(base)
    }
}

/// The entries of allow lists that a plan adds.
impl PlanBuilder<'_> {
    /// Room for more networks. Those that go in the same plan still take theirs: they go last.
    pub(super) fn take_allows(&mut self, more: usize) -> Result<(), MapFull> {
        self.allows += more;
        fits("SOURCE_RANGES", self.allows, self.tables.capacity.allows)
    }

    /// Room for more cgroups.
    pub(super) fn take_allowed_cgroups(&mut self, more: usize) -> Result<(), MapFull> {
        self.allowed_cgroups += more;
        fits("SOURCE_CGROUPS", self.allowed_cgroups, self.tables.capacity.allowed_cgroups)
    }
}

fn fits(map: &'static str, wanted: usize, has: u32) -> Result<(), MapFull> {
    let remedy = "without its whole allow list it is not served; make allow lists shorter";
    if wanted <= has as usize { Ok(()) } else { Err(MapFull { map, has, remedy }) }
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
