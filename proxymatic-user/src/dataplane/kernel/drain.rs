//! What the operator drains, written by commands: with an agent or without one.

use std::collections::{BTreeMap, BTreeSet};

use proxymatic_common::BackendState;

use super::{Maps, Pins, adopt::all};
use crate::{
    dataplane::Error,
    plan::{Desired, plan},
};

/// What is to become of backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// They take no new connections until further notice, or until they are gone.
    Begin,
    /// They are again what their source says.
    End,
}

/// Drains backends, or ends that. `backends` are ids, each with the owner that is meant.
///
/// The wish is written first, so that it holds for every plan from then on. An agent publishes it within a second; until
/// then the state alone keeps new connections away from what is drained. Where there is no agent, this carries out what it would.
///
/// # Errors
/// A map cannot be read or written.
pub fn drain(pins: &Pins, maps: &mut Maps, backends: &BTreeMap<u32, u32>, to: Drain) -> Result<(), Error> {
    for (id, generation) in backends {
        maps.set_drained(*id, (to == Drain::Begin).then_some(*generation))?;
    }
    // As long as this is held no agent can start.
    let Ok(_lock) = pins.lock() else {
        let (active, draining) = (BackendState::ACTIVE, BackendState::DRAINING);
        for id in backends.keys() {
            match to {
                Drain::Begin => maps.backends.swap_state(*id, active, draining),
                // The agent may never have seen the wish: then nobody else would.
                Drain::End => maps.is_held(*id) && maps.backends.swap_state(*id, draining, active),
            };
        }
        return Ok(());
    };
    let tables = maps.tables()?;
    let is = |id: &u32, generation: u32| {
        tables.backends().get(id).is_some_and(|entry| entry.backend.generation == generation)
    };
    let drained: BTreeSet<u32> =
        maps.drained()?.into_iter().filter(|(id, generation)| is(id, *generation)).map(|(id, _)| id).collect();
    let planned = plan(&Desired::from_maps(&tables, drained), &tables);
    for op in &planned.ops {
        maps.apply(op)?;
    }
    match planned.warnings.into_iter().next() {
        None => Ok(()),
        Some(warning) => Err(Error::Kernel {
            action: format!("drain all that was asked of {}", warning.app),
            reason: warning.reason,
        }),
    }
}

impl Maps {
    /// Whether a backend drains though its source does not say so.
    fn is_held(&self, id: u32) -> bool {
        let backend = self.backends.read(id);
        backend.is_some_and(|it| it.state == BackendState::DRAINING && it.source_state == BackendState::ACTIVE)
    }

    /// Whether a backend is drawn for new connections: by the agent's hand, within a second of its being active.
    pub fn is_drawn(&self, id: u32) -> bool {
        let Some(backend) = self.backends.read(id) else { return false };
        let Some(head) = self.head(backend.service) else { return false };
        let mut slots = (head.base()..head.base().saturating_add(head.length())).filter_map(|at| self.slots.read(at));
        slots.any(|slot| (slot.backend(), slot.generation()) == (id, backend.generation))
    }

    /// The backends that the operator drains: id, and which of its owners in turn is meant.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn drained(&self) -> Result<BTreeMap<u32, u32>, Error> {
        Ok(all("DRAINED", &self.drained)?.into_iter().collect())
    }

    /// Notes that an owner of a backend id is to be drained, or that none is.
    pub(super) fn set_drained(&mut self, id: u32, generation: Option<u32>) -> Result<(), Error> {
        let written = match generation {
            Some(generation) => self.drained.insert(id, generation, 0),
            None => super::apply::absent_is_done(self.drained.remove(&id)),
        };
        written.map_err(|error| Error::kernel(format!("note in DRAINED what becomes of backend {id}"), &error))
    }
}
