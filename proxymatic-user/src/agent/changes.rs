//! What the log says of a change: each service once, as added, modified or removed.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    sync::Arc,
};

use crate::{
    model::{Service, ServiceKey, Snapshot, State, beside},
    source::SourceId,
};

/// Logs what is different between two snapshots of a source, and new complaints.
pub(super) fn log(source: SourceId, before: Option<&Snapshot>, after: &Snapshot) {
    let (nothing, no_complaints) = (BTreeMap::new(), Vec::new());
    let old = before.map_or(&nothing, |snapshot| &snapshot.services);
    for line in lines(old, &after.services) {
        tracing::info!("{source}: {line}");
    }
    let known: BTreeSet<_> = before.map_or(&no_complaints, |snapshot| &snapshot.complaints).iter().collect();
    for complaint in after.complaints.iter().filter(|complaint| !known.contains(complaint)) {
        tracing::warn!("{source}: {}: {}", complaint.app, complaint.reason);
    }
}

fn lines(old: &BTreeMap<ServiceKey, Arc<Service>>, new: &BTreeMap<ServiceKey, Arc<Service>>) -> Vec<String> {
    let line = |(key, was, is): (&ServiceKey, Option<&Arc<Service>>, Option<&Arc<Service>>)| match (was, is) {
        (None, Some(service)) => Some(format!("added {} {key}: {}", service.name, backends(service))),
        (Some(service), None) => Some(format!("removed {} {key}", service.name)),
        (Some(was), Some(is)) if was != is => {
            Some(format!("modified {} {key}: {}, was {}", is.name, backends(is), backends(was)))
        }
        _ => None,
    };
    beside(old, new).filter_map(line).collect()
}

fn backends(service: &Service) -> String {
    let count = |state| service.backends.iter().filter(|backend| backend.state == state).count();
    let others = [(State::Warming, "warming"), (State::Draining, "draining")];
    let mut text = format!("{} active", count(State::Active));
    for (state, name) in others {
        if count(state) > 0 {
            text += &format!(", {} {name}", count(state));
        }
    }
    text
}

/// Values, separated by commas.
pub(super) fn list<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
}
