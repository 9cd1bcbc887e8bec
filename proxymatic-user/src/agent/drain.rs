//! What the operator drains: a wish that is kept in a pinned map, so that it outlives agents, and that ends with its backend.

use std::collections::BTreeSet;

use proxymatic_common::BackendState;

use super::Agent;
use crate::dataplane::Dataplane;

impl<D: Dataplane> Agent<D> {
    /// The backends that the operator drains now.
    pub(super) fn wished_drained(&self) -> BTreeSet<u32> {
        let wished = self.plane.drained();
        wished.into_iter().filter(|(id, generation)| self.lives(*id, *generation)).map(|(id, _)| id).collect()
    }

    /// The same, to be published. What is told of backends that have gone is forgotten.
    pub(super) fn take_drained(&mut self) -> BTreeSet<u32> {
        let wished = self.plane.drained();
        let (live, gone): (Vec<_>, Vec<_>) =
            wished.into_iter().partition(|(id, generation)| self.lives(*id, *generation));
        for (id, _) in gone {
            self.plane.forget_drained(id);
        }
        let drained: BTreeSet<u32> = live.into_iter().map(|(id, _)| id).collect();
        for id in drained.difference(&self.drained) {
            tracing::info!("{}: drained by the operator", self.shown(*id));
        }
        for id in self.drained.difference(&drained).filter(|id| self.is_there(**id)) {
            tracing::info!("{}: drained no longer", self.shown(*id));
        }
        self.drained.clone_from(&drained);
        drained
    }

    fn lives(&self, id: u32, generation: u32) -> bool {
        self.is_there(id) && self.tables.backends().get(&id).is_some_and(|entry| entry.backend.generation == generation)
    }

    fn is_there(&self, id: u32) -> bool {
        let state = self.tables.backends().get(&id).map(|entry| entry.backend.state);
        state.is_some_and(|state| state != BackendState::GONE)
    }
}
