//! What the maps hold of a source, as if it had said so itself: what its first answer is measured by. Pure.

use std::sync::Arc;

use proxymatic_common::BackendState;

use super::merge::held;
use crate::{
    model::{Backend, Service, Snapshot, State, Weight},
    plan::{BackendEntry, MapState},
    source::SourceId,
};

/// The services that the maps hold of a source, with all backends that have not gone.
pub(super) fn adopted(tables: &MapState, source: SourceId) -> Snapshot {
    let service = |id: u32| {
        let entry = tables.services().get(&id)?;
        let backends = entry.backends.iter().filter_map(|id| tables.backends().get(id));
        let mut backends: Vec<_> = backends.filter_map(backend).collect();
        backends.sort_by(|a, b| (&a.task, a.address, a.port).cmp(&(&b.task, b.address, b.port)));
        // There is one policy.
        Some(Arc::new(Service { name: entry.name.clone(), backends, ..Service::default() }))
    };
    let services = held(tables).filter(|(_, _, code)| *code == source.code());
    let services = services.filter_map(|(key, id, _)| Some((key, service(id)?))).collect();
    Snapshot { services, warnings: Vec::new() }
}

fn backend(BackendEntry { backend, task }: &BackendEntry) -> Option<Backend> {
    if backend.state == BackendState::GONE {
        return None;
    }
    let state = match backend.source_state {
        BackendState::WARMING => State::Warming,
        BackendState::ACTIVE => State::Active,
        BackendState::DRAINING => State::Draining,
        _ => return None,
    };
    let weight = u16::try_from(backend.weight).ok().and_then(Weight::new)?;
    let (address, port) = (backend.address.into(), backend.port.get());
    Some(Backend { task: task.clone(), address, port, weight, maxconn: backend.maxconn, state })
}
