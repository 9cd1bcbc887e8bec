//! A plan under construction: its writes so far, and the ids and slots that it has taken.

use std::{collections::BTreeMap, fmt};

use super::{Desired, MapOp, MapState, ranges::Ranges};

/// A plan under construction. It reads the map state and never changes it.
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

/// A map without enough free entries, and a remedy.
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

    /// Takes the lowest free service id. Low ids keep the entries that hooks read close together.
    pub(super) fn take_service(&mut self) -> Result<u32, MapFull> {
        let has = self.tables.capacity.services;
        let id = lowest_free(self.tables.services(), self.next_service);
        if id >= has {
            return Err(MapFull { map: "SERVICES", has, remedy: "start the agent with a larger --max-services" });
        }
        self.next_service = id + 1;
        Ok(id)
    }

    /// Takes the lowest free backend id that is neither parked nor drained: those marks belong to the id's former
    /// owner.
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

    /// Takes a free range of slots.
    pub(super) fn take_slots(&mut self, length: u32) -> Result<u32, MapFull> {
        let has = self.tables.capacity.slots;
        let is_free = |from, to| self.slots.find_free(length, from, to, |base, _| Some(base));
        // Starts behind the last range taken, so that a plan for many services walks the ranges once for each service.
        let base = self.tables.ranges().find_free(length, self.next_slot, has, is_free);
        let base = base.or_else(|| self.tables.ranges().find_free(length, 0, has, is_free));
        let base = base.ok_or(MapFull { map: "SLOTS", has, remedy: "start the agent with a larger --max-slots" })?;
        self.slots.take(base, length);
        self.next_slot = base + length;
        Ok(base)
    }
}

/// The entries of allow lists that a plan adds.
impl PlanBuilder<'_> {
    /// Reserves entries for more networks. Entries that the same plan deletes still count, because deletions come last.
    pub(super) fn take_allows(&mut self, more: usize) -> Result<(), MapFull> {
        self.allows += more;
        fits("SOURCE_RANGES", self.allows, self.tables.capacity.allows)
    }

    /// Reserves entries for more cgroups.
    pub(super) fn take_allowed_cgroups(&mut self, more: usize) -> Result<(), MapFull> {
        self.allowed_cgroups += more;
        fits("SOURCE_CGROUPS", self.allowed_cgroups, self.tables.capacity.allowed_cgroups)
    }
}

fn fits(map: &'static str, needed: usize, has: u32) -> Result<(), MapFull> {
    let remedy = "the service is not served without its complete allow list; make allow lists shorter";
    if needed <= has as usize { Ok(()) } else { Err(MapFull { map, has, remedy }) }
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
