//! Which backends of an answer are new, and for how long.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use proxymatic_common::BackendState;

use super::identity::{Identity, entry_socket, socket};
use crate::{
    model::{Backend, Protocol, Service, ServiceKey, Snapshot, Start, State},
    plan::MapState,
    source::SourceId,
};

/// What is known from before an answer of a source.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Before<'a> {
    /// The last answer of the source.
    Answer(&'a Snapshot),
    /// The maps, and the services from the state file: the source has not answered this agent yet.
    Adopted(&'a MapState, Option<&'a Snapshot>),
    /// Another map ABI version serves, so any backend of this answer may be in use.
    OtherVersion,
}

/// A new backend.
#[derive(Debug)]
pub(super) struct NewBackend {
    pub(super) identity: Identity,
    pub(super) key: ServiceKey,
    pub(super) service: String,
    /// When the backend is no longer new.
    pub(super) deadline: Instant,
}

/// Backends by task, address and port.
type ByIdentity<'a, T> = BTreeMap<(&'a str, SocketAddr), T>;

/// Returns the new backends of an answer, once for each service that has them. UDP backends are not probed, so none is
/// new. `is_awaited` returns whether a backend is awaited already.
pub(super) fn new_backends<'a>(
    source: SourceId,
    snapshot: &'a Snapshot,
    before: Before<'a>,
    is_awaited: impl Fn(&str, SocketAddr) -> bool,
    new_for: Duration,
    now: Instant,
) -> Vec<NewBackend> {
    if matches!(before, Before::OtherVersion) {
        return Vec::new();
    }
    let mut new: ByIdentity<'a, (Instant, Vec<(ServiceKey, &str)>)> = BTreeMap::new();
    let awaited_before = before.warming();
    for (key, service) in snapshot.services.iter().filter(|(key, _)| key.protocol == Protocol::Tcp) {
        let known = before.service(*key);
        if known.is_some_and(|known| Arc::ptr_eq(known, service)) {
            continue; // That is nearly every service, most of the time.
        }
        let is_known = |it: &Backend| known.is_some_and(|known| has_used(known, it));
        for backend in service.backends.iter().filter(|it| it.state == State::Active && !is_known(it)) {
            let identity = (backend.task.as_str(), socket(backend));
            let deadline = match start(source, service, backend) {
                Some(Start::At(start)) => start.min(now) + new_for,
                // Without a start, no backend of the first answer is new, unless the agent before this one awaited it.
                Some(Start::Unknown) if awaited_before.as_ref().is_none_or(|all| all.contains(&identity)) => {
                    now + new_for
                }
                Some(Start::Unknown) | None => continue,
            };
            if now < deadline {
                let (_, services) = new.entry(identity).or_insert_with(|| (deadline, Vec::new()));
                services.push((*key, service.name.as_str()));
            }
        }
    }
    if !new.is_empty() {
        before.remove_used(&mut new, is_awaited);
    }
    let each = new.into_iter().flat_map(|((task, at), (deadline, services))| {
        services.into_iter().map(move |(key, service)| NewBackend {
            identity: Identity { task: task.to_owned(), at },
            key,
            service: service.to_owned(),
            deadline,
        })
    });
    each.collect()
}

/// Returns when the task of a backend started; `None` if a check of its source covers it, or if it is old.
fn start(source: SourceId, service: &Service, backend: &Backend) -> Option<Start> {
    if source.has_checks() { service.unchecked.get(&backend.task).copied() } else { Some(Start::Unknown) }
}

/// Returns whether a service had a backend and used it.
fn has_used(service: &Service, backend: &Backend) -> bool {
    fn identity(it: &Backend) -> (&str, IpAddr, u16) {
        (&it.task, it.address, it.port)
    }
    let found = service.backends.binary_search_by(|it| identity(it).cmp(&identity(backend)));
    found.is_ok_and(|at| service.backends[at].state != State::Warming)
}

impl<'a> Before<'a> {
    fn service(self, key: ServiceKey) -> Option<&'a Arc<Service>> {
        match self {
            Self::Answer(snapshot) => snapshot.services.get(&key),
            Self::Adopted(..) | Self::OtherVersion => None,
        }
    }

    /// Returns the backends in the maps that are warming; `None` if this agent has had an answer.
    fn warming(self) -> Option<BTreeSet<(&'a str, SocketAddr)>> {
        let Self::Adopted(map_state, _) = self else { return None };
        let warming = map_state.backends().values().filter(|it| it.backend.source_state == BackendState::WARMING);
        Some(warming.map(|it| (it.task.as_str(), entry_socket(it))).collect())
    }

    /// Removes the backends that any service had and used. An awaited one was not used.
    fn remove_used<T>(self, new: &mut ByIdentity<'a, T>, is_awaited: impl Fn(&str, SocketAddr) -> bool) {
        let mut remove = |task: &'a str, at| {
            if new.contains_key(&(task, at)) && !is_awaited(task, at) {
                new.remove(&(task, at));
            }
        };
        let (snapshot, map_state) = match self {
            Self::Answer(snapshot) => (Some(snapshot), None),
            Self::Adopted(map_state, restored) => (restored, Some(map_state)),
            Self::OtherVersion => (None, None),
        };
        for backend in snapshot.iter().flat_map(|it| it.services.values()).flat_map(|it| &it.backends) {
            if backend.state != State::Warming {
                remove(backend.task.as_str(), socket(backend));
            }
        }
        for entry in map_state.iter().flat_map(|it| it.backends().values()) {
            let used = [BackendState::ACTIVE, BackendState::DRAINING].contains(&entry.backend.source_state);
            if used && entry.backend.state != BackendState::GONE {
                remove(entry.task.as_str(), entry_socket(entry));
            }
        }
    }
}
