//! What happens, one line each: what the hooks tell, and what the agent does about it.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use proxymatic_common::{BackendState, Event, EventKind, PROTOCOL_TCP, Reason};
use serde::{Deserialize, Serialize};

use super::table::{WIDTH, shorten, time};
use crate::{dataplane::kernel::monotonic, plan::MapState};

/// Something that happened, as `event watch` prints it. The JSON is a contract: see docs/cli.md. What does not apply is null.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WatchEvent {
    /// When: seconds since 1970, to the millisecond.
    pub time: f64,
    /// What: refused, failed, connected, bound, ejected, readmitted, active, draining, gone, applied or lost.
    pub event: String,
    /// The name of the service.
    pub service: Option<String>,
    /// `tcp` or `udp`.
    pub protocol: Option<String>,
    /// What the program destination.
    pub destination: Option<SocketAddr>,
    /// Where the backend listens.
    pub backend: Option<SocketAddr>,
    /// Its task.
    pub task: Option<String>,
    /// The verdict of a hook; of a backend that drains, who wants it: `operator` or `source`.
    pub reason: Option<String>,
    /// The process that destination or has bound, in the initial pid namespace.
    pub pid: Option<u32>,
    /// The id of its cgroup.
    pub cgroup: Option<u64>,
    /// How long the connection had been tried; of a backend that is readmitted, how long it was out. Seconds.
    pub after_s: Option<f64>,
    /// For how long the kernel keeps the backend out at first, in seconds.
    pub for_s: Option<f64>,
    /// How many map writes a plan took.
    pub writes: Option<usize>,
    /// How many events this watcher was too slow for.
    pub lost: Option<u64>,
}

impl WatchEvent {
    /// Something that happens now.
    pub fn now(event: &str) -> Self {
        Self { time: clock(0), event: event.into(), ..Self::default() }
    }

    /// The same, of a backend.
    #[must_use]
    pub fn of_backend(self, tables: &MapState, id: u32) -> Self {
        let Some(entry) = tables.backends().get(&id) else { return self };
        let service = tables.services().get(&entry.backend.service);
        Self {
            service: self.service.or_else(|| service.map(|service| service.name.clone())),
            protocol: service.and_then(|service| service.frontend).map(|to| protocol(to.protocol)).or(self.protocol),
            backend: Some(SocketAddr::new(entry.backend.address.into(), entry.backend.port.get())),
            task: Some(entry.task.clone()),
            ..self
        }
    }

    /// What a hook told. A failure that ejects a backend is two happenings.
    pub fn told(event: &Event, tables: &MapState) -> Vec<Self> {
        let number = event.kind;
        let is_of_backend = number == EventKind::FAILED || number == EventKind::CONNECTED;
        let destination = SocketAddr::new(event.destination.into(), event.destination_port.get());
        let reason = Reason::ALL.get(event.reason as usize).map(|reason| reason.name().to_owned());
        let first = Self {
            time: clock(monotonic().saturating_sub(event.at)),
            event: number.name().into(),
            service: tables.services().get(&event.service).map(|service| service.name.clone()),
            protocol: (event.protocol != 0).then(|| protocol(event.protocol)),
            destination: (destination.port() != 0).then_some(destination),
            reason: reason.filter(|_| number == EventKind::REFUSED || number == EventKind::CONNECTED),
            pid: (event.pid != 0).then_some(event.pid),
            cgroup: (event.cgroup != 0).then_some(event.cgroup),
            after_s: (number == EventKind::FAILED).then(|| f64::from(event.age_us) / 1e6),
            ..Self::default()
        };
        let same = tables.backends().get(&event.backend).is_some_and(|it| it.backend.generation == event.generation);
        let first = if is_of_backend && same { first.of_backend(tables, event.backend) } else { first };
        if number != EventKind::FAILED || event.ejected_ms == 0 {
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

    /// A backend that is to be in another state than it was; `None` where nobody would notice.
    pub fn turned(tables: &MapState, id: u32, from: Option<BackendState>, to: BackendState) -> Option<Self> {
        let noticed = [BackendState::ACTIVE, BackendState::DRAINING, BackendState::GONE];
        (from != Some(to) && noticed.contains(&to)).then(|| Self::now(to.name()).of_backend(tables, id))
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let seconds = self.time.max(0.0);
        let day = seconds % 86_400.0;
        let clock = format!("{:02}:{:02}:{:06.3}", day as u64 / 3600, day as u64 / 60 % 60, day % 60.0);
        let words = self.words().join(", ");
        let head = format!("{clock}  {:<10}  ", self.event);
        let Some(service) = &self.service else { return format!("{head}{words}") };
        let room = WIDTH.saturating_sub(head.len() + words.chars().count() + 2).max(12);
        format!("{head}{}  {words}", shorten(service, room)).trim_end().to_owned()
    }

    fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let protocol = self.protocol.as_deref().map_or(String::new(), |protocol| format!("/{protocol}"));
        words.extend(self.destination.map(|destination| format!("{destination}{protocol}")));
        words.extend(self.backend.map(|backend| format!("backend {backend}")));
        words.extend(self.reason.clone());
        words.extend(self.after_s.map(|seconds| format!("after {}", time(seconds))));
        words.extend(self.for_s.map(|seconds| format!("for {}", time(seconds))));
        words.extend(self.pid.map(|pid| format!("process {pid}")));
        words.extend(self.writes.map(|writes| format!("{writes} writes")));
        words.extend(self.lost.map(|lost| format!("{lost} events: this watcher is too slow")));
        words
    }
}

fn protocol(number: u8) -> String {
    if number == PROTOCOL_TCP { "tcp" } else { "udp" }.into()
}

/// Seconds since 1970, so many nanoseconds ago, to the millisecond.
fn clock(ago: u64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let at = now.saturating_sub(std::time::Duration::from_nanos(ago));
    at.as_millis() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proxymatic_common::{Address, Backend, Port};

    use super::*;
    use crate::plan::{Capacity, MapOp};

    fn tables() -> MapState {
        let mut tables = MapState::new(Capacity::default());
        tables.apply(&MapOp::PutServiceName(0, "/shop/web".into()));
        tables.apply(&MapOp::PutBackendName(7, "web.1".into()));
        let address = Address::from(IpAddr::from([10, 0, 0, 2]));
        let backend = Backend { address, port: Port::new(31_000), state: BackendState::ACTIVE, ..Backend::free(3) };
        tables.apply(&MapOp::PutBackend(7, backend));
        tables
    }

    fn event(kind: EventKind, generation: u32) -> Event {
        Event {
            at: monotonic(),
            cgroup: 42,
            kind,
            reason: 0,
            service: 0,
            backend: 7,
            generation,
            pid: 4711,
            age_us: 1200,
            ejected_ms: 2000,
            destination: IpAddr::from([127, 0, 0, 1]).into(),
            destination_port: Port::new(1234),
            protocol: PROTOCOL_TCP,
            zero: [0; 5],
        }
    }

    fn lines(happenings: &[WatchEvent]) -> Vec<String> {
        let at = |it: &WatchEvent| WatchEvent { time: 1_800_000_061.5, ..it.clone() }.line();
        happenings.iter().map(at).collect()
    }

    #[test]
    fn a_failure_that_ejects_is_two_lines_and_names_its_backend() {
        let told = WatchEvent::told(&event(EventKind::FAILED, 3), &tables());
        assert_eq!(
            lines(&told),
            [
                "08:01:01.500  failed      /shop/web  127.0.0.1:1234/tcp, backend 10.0.0.2:31000, after 0.0s, process 4711",
                "08:01:01.500  ejected     /shop/web  backend 10.0.0.2:31000, for 2.0s",
            ]
        );
    }

    #[test]
    fn a_refusal_says_why_and_names_no_backend() {
        let told = WatchEvent::told(&event(EventKind::REFUSED, 3), &tables());
        let line = "08:01:01.500  refused     /shop/web  127.0.0.1:1234/tcp, no_backend, process 4711";
        assert_eq!(lines(&told), [line]);
    }

    #[test]
    fn a_backend_whose_id_has_another_owner_by_now_is_not_named() {
        let told = WatchEvent::told(&event(EventKind::CONNECTED, 2), &tables());
        assert_eq!((told[0].backend, told[0].service.as_deref()), (None, Some("/shop/web")));
    }

    #[test]
    fn lines_fit_a_terminal_and_events_come_back_from_json() {
        let long = WatchEvent { service: Some("/x".repeat(100)), ..WatchEvent::now("gone") }.of_backend(&tables(), 7);
        assert!(long.line().chars().count() <= WIDTH, "{}", long.line());
        assert_eq!(serde_json::from_str::<WatchEvent>(&serde_json::to_string(&long).unwrap()).unwrap(), long);
    }

    #[test]
    fn only_what_changes_who_gets_connections_is_told() {
        let turned = |from, to| WatchEvent::turned(&tables(), 7, from, to).map(|it| it.event);
        assert_eq!(turned(None, BackendState::WARMING), None);
        assert_eq!(turned(Some(BackendState::ACTIVE), BackendState::ACTIVE), None);
        assert_eq!(turned(Some(BackendState::ACTIVE), BackendState::DRAINING).as_deref(), Some("draining"));
        assert_eq!(turned(None, BackendState::ACTIVE).as_deref(), Some("active"));
    }
}
