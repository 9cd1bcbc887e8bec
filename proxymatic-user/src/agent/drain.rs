//! What the operator drains: a wish that is kept in a pinned map, so that it outlives agents, and that ends with its backend.

use std::collections::{BTreeMap, BTreeSet};

use proxymatic_common::BackendState;

use super::{
    Agent,
    desired_state::{drained_in, is_current},
    merge::services_in,
};
use crate::{dataplane::Dataplane, plan::BackendEntry, state::Drained};

impl<D: Dataplane> Agent<D> {
    /// The backends that the operator drains now.
    pub(super) fn wished_drained(&self) -> BTreeSet<u32> {
        drained_in(&self.tables, &self.plane.drained())
    }

    /// The same, to be published. What is told of backends that have gone is forgotten.
    pub(super) fn take_drained(&mut self) -> BTreeSet<u32> {
        let wished = self.plane.drained();
        let drained = drained_in(&self.tables, &wished);
        for (id, generation) in wished {
            if !is_current(&self.tables, id, generation) {
                self.plane.forget_drained(id);
            }
        }
        for id in drained.difference(&self.drained) {
            tracing::info!("{}: drained by the operator", self.describe_backend(*id));
        }
        for id in self.drained.difference(&drained).filter(|id| self.is_there(**id)) {
            tracing::info!("{}: drained no longer", self.describe_backend(*id));
        }
        if self.drained != drained {
            self.keeping.changed();
        }
        self.drained.clone_from(&drained);
        drained
    }

    /// With what the operator drained when that was written down last. It is used where the maps do not know: they are new,
    /// or another version of the layouts has served since.
    #[must_use]
    pub fn draining(mut self, written: BTreeSet<Drained>) -> Self {
        if !self.plane.is_serving() {
            // As old as the last time that this version served.
            for id in self.plane.drained().into_keys() {
                self.plane.forget_drained(id);
            }
        } else if self.plane.is_complete() {
            return self;
        }
        self.to_drain = written;
        self
    }

    /// Drains again what was written down, of the backends that have been published. Whether there is anything new to
    /// publish by that.
    pub(super) fn drain_again(&mut self) -> bool {
        if self.to_drain.is_empty() {
            return false;
        }
        let all = self.by_name(|_| true);
        let ids: BTreeMap<_, _> = all.map(|(id, generation, it)| (it, (id, generation))).collect();
        let mut wished = false;
        for drained in std::mem::take(&mut self.to_drain) {
            if let Some((id, generation)) = ids.get(&drained) {
                self.plane.drain(*id, *generation);
                wished = true;
            } else if self.sources.values().any(|heard| heard.snapshot.is_none()) {
                self.to_drain.insert(drained);
            }
        }
        wished
    }

    /// What the operator drains, for whoever has other ids.
    pub(super) fn drained_by_name(&self) -> BTreeSet<Drained> {
        let wished = self.by_name(|id| self.drained.contains(&id)).map(|(.., it)| it);
        wished.chain(self.to_drain.iter().cloned()).collect()
    }

    /// The backends that are there, of those ids that are wanted: id, generation, and what they are called.
    fn by_name(&self, wanted: impl Fn(u32) -> bool) -> impl Iterator<Item = (u32, u32, Drained)> {
        let entries = services_in(&self.tables).flat_map(|(service, id, _)| {
            let ids = self.tables.services().get(&id).into_iter().flat_map(|entry| &entry.backends);
            ids.map(move |id| (service, *id))
        });
        let there = entries.filter(move |(_, id)| wanted(*id) && self.is_there(*id));
        there.filter_map(|(service, id)| {
            let BackendEntry { backend, task } = self.tables.backends().get(&id)?;
            let (task, address, port) = (task.clone(), backend.address.into(), backend.port.get());
            Some((id, backend.generation, Drained { service, task, address, port }))
        })
    }

    fn is_there(&self, id: u32) -> bool {
        let state = self.tables.backends().get(&id).map(|entry| entry.backend.state);
        state.is_some_and(|state| state != BackendState::GONE)
    }
}
