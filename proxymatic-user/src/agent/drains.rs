//! The backends that the operator drains. Pinned map `DRAINED` holds the drains, so they outlive the agent; a drain ends with
//! its backend. Pure.

use std::collections::{BTreeMap, BTreeSet};

use proxymatic_common::BackendState;

use super::{
    desired_state::{drained_in, is_current},
    effect::Effect,
    event_bus::describe_backend,
    merge::services_in,
};
use crate::{
    plan::{BackendEntry, MapState},
    state::Drained,
};

/// The backends that the operator drains.
#[derive(Debug, Default)]
pub(super) struct Drains {
    /// Their ids, as last published.
    drained: BTreeSet<u32>,
    /// Backends that the state file lists and that the maps do not have yet.
    pending: BTreeSet<Drained>,
}

/// What has changed since the last publish. It is carried out before the plan: a drain that is removed later could be the
/// operator's next one, for a new owner of the id.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Update {
    /// The backends that are gone, whose drains are to be removed from the map.
    pub(super) gone: Vec<u32>,
    /// Whether the state file is to be written.
    pub(super) changed: bool,
}

impl Drains {
    /// Takes the drained backends that the state file lists.
    pub(super) fn restore(&mut self, saved: BTreeSet<Drained>) {
        self.pending = saved;
    }

    /// Returns the ids that were last published.
    pub(super) const fn drained(&self) -> &BTreeSet<u32> {
        &self.drained
    }

    /// Returns whether the operator has changed a drain since the last publish.
    pub(super) fn have_changed(&self, map_state: &MapState, drains: &BTreeMap<u32, u32>) -> bool {
        drained_in(map_state, drains) != self.drained
    }

    /// Takes the drains that are to be published.
    pub(super) fn update(&mut self, map_state: &MapState, drains: &BTreeMap<u32, u32>) -> Update {
        let gone = drains.iter().filter(|(id, generation)| !is_current(map_state, **id, **generation));
        let gone = gone.map(|(id, _)| *id).collect();
        let drained = drained_in(map_state, drains);
        for id in drained.difference(&self.drained) {
            tracing::info!("{}: drained by the operator", describe_backend(map_state, *id));
        }
        for id in self.drained.difference(&drained).filter(|id| exists(map_state, **id)) {
            tracing::info!("{}: no longer drained by the operator", describe_backend(map_state, *id));
        }
        let changed = self.drained != drained;
        self.drained = drained;
        Update { gone, changed }
    }

    /// Returns the effects that drain the state file's backends, if they are published now. Entries without a backend are
    /// dropped once `all_answered`.
    pub(super) fn apply_pending(&mut self, map_state: &MapState, all_answered: bool) -> Vec<Effect> {
        if self.pending.is_empty() {
            return Vec::new();
        }
        let all = by_name(map_state, |_| true);
        let ids: BTreeMap<_, _> = all.map(|(id, generation, name)| (name, (id, generation))).collect();
        let mut effects = Vec::new();
        for drained in std::mem::take(&mut self.pending) {
            if let Some((id, generation)) = ids.get(&drained) {
                effects.push(Effect::Drain(*id, *generation));
            } else if !all_answered {
                self.pending.insert(drained);
            }
        }
        effects
    }

    /// Returns the drained backends by name, for the state file: in new maps they have other ids.
    pub(super) fn by_name(&self, map_state: &MapState) -> BTreeSet<Drained> {
        let published = by_name(map_state, |id| self.drained.contains(&id)).map(|(.., name)| name);
        published.chain(self.pending.iter().cloned()).collect()
    }
}

/// Returns id, generation and name of each backend whose id is `wanted`.
fn by_name(map_state: &MapState, wanted: impl Fn(u32) -> bool) -> impl Iterator<Item = (u32, u32, Drained)> {
    let entries = services_in(map_state).flat_map(|(service, id, _)| {
        let ids = map_state.services().get(&id).into_iter().flat_map(|entry| &entry.backends);
        ids.map(move |id| (service, *id))
    });
    let wanted = entries.filter(move |(_, id)| wanted(*id) && exists(map_state, *id));
    wanted.filter_map(|(service, id)| {
        let BackendEntry { backend, task } = map_state.backends().get(&id)?;
        let (task, address, port) = (task.clone(), backend.address.into(), backend.port.get());
        Some((id, backend.generation, Drained { service, task, address, port }))
    })
}

fn exists(map_state: &MapState, id: u32) -> bool {
    map_state.backends().get(&id).is_some_and(|entry| entry.backend.state != BackendState::GONE)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proxymatic_common::{Address, Backend, Class, Frontend, PROTOCOL_TCP, Port};

    use super::*;
    use crate::{
        model::{Protocol, ServiceKey},
        plan::{Capacity, MapOp},
    };

    const ADDRESS: [u8; 4] = [10, 0, 0, 1];

    /// Maps with backend 7, generation 3, of a service on port 1234.
    fn map_state() -> MapState {
        let mut map_state = MapState::new(Capacity::default());
        let address = Address::from(IpAddr::from(ADDRESS));
        let backend = Backend { address, port: Port::new(31_000), state: BackendState::ACTIVE, ..Backend::free(3) };
        for op in [
            MapOp::PutBackendName(7, "web.1".into()),
            MapOp::PutBackend(7, backend),
            MapOp::PutServiceName(0, "/web".into()),
            MapOp::PutFrontend(Frontend::new(Class::HOST, Port::new(1234), PROTOCOL_TCP), 0),
        ] {
            map_state.apply(&op);
        }
        map_state
    }

    fn saved() -> Drained {
        let service = ServiceKey::host(1234, Protocol::Tcp);
        Drained { service, task: "web.1".into(), address: ADDRESS.into(), port: 31_000 }
    }

    #[test]
    fn drain_of_an_earlier_generation_is_forgotten() {
        let (mut drains, map_state) = (Drains::default(), map_state());
        assert_eq!(drains.update(&map_state, &[(7, 2)].into()), Update { gone: vec![7], changed: false });
        assert_eq!(drains.update(&map_state, &[(7, 3)].into()), Update { gone: Vec::new(), changed: true });
        assert_eq!((drains.drained(), drains.by_name(&map_state)), (&[7].into(), [saved()].into()));
        assert!(!drains.have_changed(&map_state, &[(7, 3)].into()));
        assert!(drains.have_changed(&map_state, &BTreeMap::new()));
    }

    #[test]
    fn saved_drain_waits_for_its_backend_until_all_have_answered() {
        let (mut drains, empty) = (Drains::default(), MapState::default());
        drains.restore([saved()].into());
        assert_eq!(drains.apply_pending(&empty, false), []);
        assert_eq!(drains.by_name(&empty), [saved()].into(), "it stays in the state file");
        assert_eq!(drains.apply_pending(&map_state(), false), [Effect::Drain(7, 3)]);
        drains.restore([saved()].into());
        assert_eq!(drains.apply_pending(&empty, true), []);
        assert_eq!(drains.by_name(&empty), BTreeSet::new(), "its backend is gone");
    }
}
