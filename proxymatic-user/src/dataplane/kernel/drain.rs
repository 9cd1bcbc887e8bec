//! Drains backends on behalf of the operator, with or without an agent.

use std::collections::{BTreeMap, BTreeSet};

use proxymatic_common::{BackendState, maps::Drained};

use super::{Maps, Pins};
use crate::{
    dataplane::{Error, MapReader as _},
    plan::{Desired, plan},
};

/// Whether to drain backends, or to stop draining them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drain {
    /// They take no new connections until the operator ends the drain, or until they are gone.
    Begin,
    /// They get the state again that their source gives.
    End,
}

/// Drains backends, or ends their drain. `backends` maps ids to generations.
///
/// Writes `DRAINED` first, so that every later plan respects it. An agent publishes it within 1 s; until then the
/// changed state alone keeps new connections away. Without an agent, this writes the plan itself.
///
/// # Errors
/// Fails if a map cannot be read or written.
pub fn drain(pins: &Pins, maps: &mut Maps, backends: &BTreeMap<u32, u32>, to: Drain) -> Result<(), Error> {
    for (id, generation) in backends {
        maps.set_drained(*id, (to == Drain::Begin).then_some(*generation))?;
    }
    // No agent can start while this lock is held.
    let Ok(_lock) = pins.lock() else {
        let (active, draining) = (BackendState::ACTIVE, BackendState::DRAINING);
        for id in backends.keys() {
            match to {
                Drain::Begin => maps.backends.swap_state(*id, active, draining),
                // If the agent has not read `DRAINED` yet, it never restores the state.
                Drain::End => maps.is_drained_by_operator(*id) && maps.backends.swap_state(*id, draining, active),
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
            action: format!("drain all requested backends of {}", warning.app),
            reason: warning.reason,
        }),
    }
}

impl Maps {
    /// Returns true if a backend drains although its source lists it as active.
    fn is_drained_by_operator(&self, id: u32) -> bool {
        let backend = self.backends.read(id);
        backend.is_some_and(|it| it.state == BackendState::DRAINING && it.source_state == BackendState::ACTIVE)
    }

    /// Returns true if the slots of its service include a backend: within 1 s after the agent publishes it as active.
    pub fn is_drawn(&self, id: u32) -> bool {
        let Some(backend) = self.backends.read(id) else { return false };
        let Some(range) = self.slot_range(backend.service) else { return false };
        let mut slots =
            (range.base()..range.base().saturating_add(range.length())).filter_map(|at| self.slots.read(at));
        slots.any(|slot| (slot.backend(), slot.generation()) == (id, backend.generation))
    }

    /// Returns the backends that the operator drains: id and generation.
    ///
    /// # Errors
    /// Fails if the map cannot be read.
    pub fn drained(&self) -> Result<BTreeMap<u32, u32>, Error> {
        Ok(self.rows::<Drained>()?.into_iter().collect())
    }

    /// Records the generation of a backend id that is drained, or that none is.
    pub(super) fn set_drained(&mut self, id: u32, generation: Option<u32>) -> Result<(), Error> {
        let written = self.set_keyed::<Drained>(&id, generation.as_ref());
        written.map_err(|error| Error::kernel(format!("write the drain of backend {id} to DRAINED"), &error))
    }
}
