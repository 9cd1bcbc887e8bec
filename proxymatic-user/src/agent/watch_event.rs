//! The events that `event watch` prints: those of the hooks, and what the agent does about them.

use std::{
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proxymatic_common::{BackendState, Event, EventKind, PROTOCOL_TCP, Reason};
use serde::{Deserialize, Serialize};

use crate::{dataplane::kernel::monotonic, plan::MapState};

/// An event as `event watch` prints it. The JSON is a contract: see docs/cli.md. Fields that do not apply are null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WatchEvent {
    /// The time: seconds since 1970, to the millisecond.
    pub time: f64,
    /// The kind: refused, failed, connected, bound, bind_refused, ejected, readmitted, active, draining, gone, applied or lost.
    pub event: String,
    /// The name of the service.
    pub service: Option<String>,
    /// `tcp` or `udp`.
    pub protocol: Option<String>,
    /// The destination of the connect.
    pub destination: Option<SocketAddr>,
    /// The address and port of the backend.
    pub backend: Option<SocketAddr>,
    /// The task of the backend.
    pub task: Option<String>,
    /// The verdict of a hook; for a backend that drains, whether `operator` or `source` wants that.
    pub reason: Option<String>,
    /// The process that connects or has bound, in the initial pid namespace.
    pub pid: Option<u32>,
    /// The id of the process's cgroup.
    pub cgroup: Option<u64>,
    /// How long the connect was tried; for a backend that is readmitted, how long it was ejected. Seconds.
    pub after_s: Option<f64>,
    /// How long the kernel ejects the backend at first, in seconds.
    pub for_s: Option<f64>,
    /// How many map writes a plan took.
    pub writes: Option<usize>,
    /// How many events this subscriber lost because it was too slow.
    pub lost: Option<u64>,
}

impl WatchEvent {
    /// Returns an event of this kind that happens now.
    pub fn now(event: &str) -> Self {
        Self { time: clock(0), event: event.into(), ..Self::default() }
    }

    /// Adds the fields of a backend.
    #[must_use]
    pub fn of_backend(self, map_state: &MapState, id: u32) -> Self {
        let Some(entry) = map_state.backends().get(&id) else { return self };
        let service = map_state.services().get(&entry.backend.service);
        Self {
            service: self.service.or_else(|| service.map(|service| service.name.clone())),
            protocol: service.and_then(|service| service.frontend).map(|it| protocol(it.protocol)).or(self.protocol),
            backend: Some(SocketAddr::new(entry.backend.address.into(), entry.backend.port.get())),
            task: Some(entry.task.clone()),
            ..self
        }
    }

    /// Returns the events for one event of a hook: two if a failure ejects its backend, none for the close of a listener,
    /// otherwise one.
    pub fn of_hook(event: &Event, map_state: &MapState) -> Vec<Self> {
        let kind = event.kind;
        if kind == EventKind::UNBOUND {
            return Vec::new();
        }
        let is_of_backend = kind == EventKind::FAILED || kind == EventKind::CONNECTED;
        let destination = SocketAddr::new(event.destination.into(), event.destination_port.get());
        let reason = Reason::ALL.get(event.reason as usize).map(|reason| reason.name().to_owned());
        let first = Self {
            time: clock(monotonic().saturating_sub(event.at)),
            event: kind.name().into(),
            service: map_state.services().get(&event.service).map(|service| service.name.clone()),
            protocol: (event.protocol != 0).then(|| protocol(event.protocol)),
            destination: (destination.port() != 0).then_some(destination),
            reason: reason.filter(|_| kind == EventKind::REFUSED || kind == EventKind::CONNECTED),
            pid: (event.pid != 0).then_some(event.pid),
            cgroup: (event.cgroup != 0).then_some(event.cgroup),
            after_s: (kind == EventKind::FAILED).then(|| f64::from(event.age_us) / 1e6),
            ..Self::default()
        };
        let entry = map_state.backends().get(&event.backend);
        let same = entry.is_some_and(|it| it.backend.generation == event.generation);
        let first = if is_of_backend && same { first.of_backend(map_state, event.backend) } else { first };
        if kind != EventKind::FAILED || event.ejected_ms == 0 {
            return vec![first];
        }
        let ejected = Self {
            event: "ejected".into(),
            for_s: Some(f64::from(event.ejected_ms) / 1e3),
            destination: None,
            pid: None,
            cgroup: None,
            after_s: None,
            ..first.clone()
        };
        vec![first, ejected]
    }

    /// Returns the event for a backend whose state is written; `None` if that does not change its connections.
    pub fn of_state_change(
        map_state: &MapState,
        id: u32,
        from: Option<BackendState>,
        to: BackendState,
    ) -> Option<Self> {
        let noticed = [BackendState::ACTIVE, BackendState::DRAINING, BackendState::GONE];
        (from != Some(to) && noticed.contains(&to)).then(|| Self::now(to.name()).of_backend(map_state, id))
    }
}

fn protocol(number: u8) -> String {
    if number == PROTOCOL_TCP { "tcp" } else { "udp" }.into()
}

/// Returns the time `ago_ns` before now, in seconds since 1970, to the millisecond.
fn clock(ago_ns: u64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = now.saturating_sub(Duration::from_nanos(ago_ns));
    at.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_that_affects_connections_is_an_event() {
        let event = |from, to| {
            let event = WatchEvent::of_state_change(&MapState::default(), 7, from, to);
            event.map(|it| it.event)
        };
        assert_eq!(event(None, BackendState::WARMING), None);
        assert_eq!(event(Some(BackendState::ACTIVE), BackendState::ACTIVE), None);
        assert_eq!(event(Some(BackendState::ACTIVE), BackendState::DRAINING).as_deref(), Some("draining"));
        assert_eq!(event(None, BackendState::ACTIVE).as_deref(), Some("active"));
    }
}
