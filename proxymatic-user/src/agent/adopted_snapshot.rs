//! The services of a source in the maps, as a snapshot: the loss guard compares the source's first answer with it,
//! and owners of services stay. Pure.

use std::sync::Arc;

use proxymatic_common::BackendState;

use super::merge::services_in;
use crate::{
    model::{Backend, Service, Snapshot, State, Weight},
    plan::{BackendEntry, MapState},
    source::SourceId,
};

/// Returns the services of a source in the maps, with all backends that are not gone.
pub(crate) fn adopted(map_state: &MapState, source: SourceId) -> Snapshot {
    let service = |id: u32| {
        let entry = map_state.services().get(&id)?;
        let backends = entry.backends.iter().filter_map(|id| map_state.backends().get(id));
        let mut backends: Vec<_> = backends.filter_map(backend).collect();
        backends.sort_by(|a, b| (&a.task, a.address, a.port).cmp(&(&b.task, b.address, b.port)));
        let (name, owner) = (entry.name.clone(), owner(&entry.name));
        // The loss guard compares no settings.
        Some(Arc::new(Service { name, owner, backends, ..Service::default() }))
    };
    let services = services_in(map_state).filter(|(_, _, code)| *code == source.code());
    let services = services.filter_map(|(key, id, _)| Some((key, service(id)?))).collect();
    Snapshot { services, warnings: Vec::new() }
}

/// Returns the owner of a service, which its name in the maps is, if it is the whole id of an app: a named virtual address
/// has a port behind a colon, and a name that is too long for the maps has lost its start.
fn owner(name: &str) -> Option<String> {
    (name.starts_with('/') && !name.contains(':')).then(|| name.to_owned())
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
