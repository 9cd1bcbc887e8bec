//! Logs what a new snapshot changes: one line for each service that was added, modified or removed, with the differences.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use crate::{
    model::{Backend, Service, ServiceKey, Settings, Snapshot, State, merge_join},
    source::SourceId,
};

/// The most backends that one line lists.
const LISTED: usize = 8;

/// Logs the differences between two snapshots of a source, and new warnings.
pub(super) fn log(source: SourceId, before: Option<&Snapshot>, after: &Snapshot) {
    let (nothing, no_warnings) = (BTreeMap::new(), Vec::new());
    let old = before.map_or(&nothing, |snapshot| &snapshot.services);
    for Change { service, port, was, is } in changes(old, &after.services) {
        match (was, is) {
            (None, Some(is)) => tracing::info!(%source, service, %port, is, "added"),
            (Some(was), None) => tracing::info!(%source, service, %port, was, "removed"),
            (was, is) => tracing::info!(%source, service, %port, is, was, "modified"),
        }
    }
    let known: BTreeSet<_> = before.map_or(&no_warnings, |snapshot| &snapshot.warnings).iter().collect();
    for warning in after.warnings.iter().filter(|warning| !known.contains(warning)) {
        tracing::warn!("{source}: {}: {}", warning.app, warning.reason);
    }
}

/// Logs that a request to a source failed: the first failure at INFO, further ones at WARN.
pub(super) fn trouble(source: SourceId, reason: &str, attempt: u32, again_in: Duration) {
    let again = again_in.as_secs_f64();
    if attempt > 1 {
        tracing::warn!("{source}: {reason}; the last state stays, trying again in {again:.0} s");
    } else {
        tracing::info!("{source}: {reason}; the last state stays, trying again in {again:.0} s");
    }
}

/// A service that differs, in words.
#[derive(Debug, PartialEq)]
struct Change<'a> {
    service: &'a str,
    port: &'a ServiceKey,
    was: Option<String>,
    is: Option<String>,
}

fn changes<'a>(
    old: &'a BTreeMap<ServiceKey, Arc<Service>>,
    new: &'a BTreeMap<ServiceKey, Arc<Service>>,
) -> impl Iterator<Item = Change<'a>> {
    merge_join(old, new).filter_map(|(port, was, is)| {
        if was == is {
            return None;
        }
        let named = is.or(was)?;
        let words = |service: &Arc<Service>, other: Option<&Arc<Service>>| words(service, other.map(AsRef::as_ref));
        Some(Change {
            service: &named.name,
            port,
            was: was.map(|service| words(service, is)),
            is: is.map(|service| words(service, was)),
        })
    })
}

/// Returns the number of backends by state, then what of a service differs from the `other`.
fn words(service: &Service, other: Option<&Service>) -> String {
    let mut words = vec![counts(service)];
    if other.is_some_and(|other| other.name != service.name) {
        words.push(format!("called {}", service.name));
    }
    let usual = other.map_or_else(|| Settings::default().log_texts(), |other| other.settings.log_texts());
    let differ = service.settings.log_texts().into_iter().zip(usual).filter(|(own, usual)| own != usual);
    words.extend(differ.map(|(own, _)| own));
    let known = |backend: &&Backend| other.is_none_or(|other| !other.backends.contains(backend));
    let differ: Vec<_> = service.backends.iter().filter(known).collect();
    words.extend(differ.iter().take(LISTED).map(|backend| describe_backend(backend)));
    if differ.len() > LISTED {
        words.push(format!("and {} more", differ.len() - LISTED));
    }
    words.join("; ")
}

fn counts(service: &Service) -> String {
    let count = |state| service.backends.iter().filter(|backend| backend.state == state).count();
    let others = [State::Warming, State::Draining].into_iter().filter(|state| count(*state) > 0);
    let others = others.map(|state| format!(", {} {}", count(state), name(state)));
    format!("{} active", count(State::Active)) + &others.collect::<String>()
}

fn describe_backend(backend: &Backend) -> String {
    let mut words = format!("{} {}", SocketAddr::new(backend.address, backend.port), name(backend.state));
    if backend.weight != crate::model::Weight::default() {
        words += &format!(" weight {}", backend.weight.get());
    }
    if backend.maxconn != 0 {
        words += &format!(" maxconn {}", backend.maxconn);
    }
    words
}

const fn name(state: State) -> &'static str {
    match state {
        State::Warming => "warming",
        State::Active => "active",
        State::Draining => "draining",
    }
}

/// Returns the values, separated by commas.
pub(super) fn list<T: Display>(values: impl IntoIterator<Item = T>) -> String {
    values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Policy, Protocol, Weight};

    fn service(states: &[State]) -> Service {
        let backend = |(nth, state): (usize, &State)| Backend {
            task: format!("task.{nth}"),
            address: [10, 0, 0, nth as u8].into(),
            port: 31_000,
            weight: Weight::default(),
            maxconn: 0,
            state: *state,
        };
        let backends = states.iter().enumerate().map(backend).collect();
        Service { name: "/web".into(), backends, ..Service::default() }
    }

    /// Returns the `was` and `is` of the line for a service.
    fn change(was: Option<Service>, is: Option<Service>) -> (Option<String>, Option<String>) {
        let key = ServiceKey::host(1234, Protocol::Tcp);
        let map = |service: Option<Service>| service.map(|it| (key, Arc::new(it))).into_iter().collect();
        let (old, new) = (map(was), map(is));
        let lines: Vec<_> = changes(&old, &new).map(|change| (change.was, change.is)).collect();
        assert!(lines.len() <= 1, "one line for each service");
        lines.into_iter().next().unwrap_or_default()
    }

    #[test]
    fn added_service_is_complete_and_unchanged_one_has_no_line() {
        let web = service(&[State::Active, State::Warming]);
        let words = "1 active, 1 warming; 10.0.0.0:31000 active; 10.0.0.1:31000 warming".to_owned();
        assert_eq!(change(None, Some(web.clone())), (None, Some(words.clone())));
        assert_eq!(change(Some(web.clone()), None), (Some(words), None));
        assert_eq!(change(Some(web.clone()), Some(web)), (None, None));
    }

    #[test]
    fn modified_service_has_only_differences_old_and_new() {
        let was = service(&[State::Active, State::Active]);
        let mut is = was.clone();
        is.backends[1].state = State::Draining;
        is.backends[1].weight = Weight::new(0).unwrap();
        is.settings.policy = Policy::Random;
        let (old, new) = change(Some(was), Some(is));
        assert_eq!(old.unwrap(), "2 active; balance leastconn; 10.0.0.1:31000 active");
        assert_eq!(new.unwrap(), "1 active, 1 draining; balance random; 10.0.0.1:31000 draining weight 0");
    }

    #[test]
    fn line_lists_at_most_8_backends() {
        let (_, is) = change(None, Some(service(&[State::Active; 100])));
        let is = is.unwrap();
        assert!(is.starts_with("100 active; 10.0.0.0:31000 active; ") && is.ends_with("; and 92 more"), "{is}");
    }
}
