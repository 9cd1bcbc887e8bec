//! An event of `event watch` as one line of text.

use super::table::{WIDTH, shorten, time};
use crate::agent::WatchEvent;

impl WatchEvent {
    /// Returns the event as one line for a terminal.
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

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proxymatic_common::{Address, Backend, BackendState, Event, EventKind, PROTOCOL_TCP, Port};

    use super::*;
    use crate::{
        dataplane::kernel::monotonic,
        plan::{Capacity, MapOp, MapState},
    };

    fn map_state() -> MapState {
        let mut map_state = MapState::new(Capacity::default());
        map_state.apply(&MapOp::PutServiceName(0, "/shop/web".into()));
        map_state.apply(&MapOp::PutBackendName(7, "web.1".into()));
        let address = Address::from(IpAddr::from([10, 0, 0, 2]));
        let backend = Backend { address, port: Port::new(31_000), state: BackendState::ACTIVE, ..Backend::free(3) };
        map_state.apply(&MapOp::PutBackend(7, backend));
        map_state
    }

    fn event(kind: EventKind, generation: u32) -> Event {
        Event {
            at: monotonic(),
            cgroup: 42,
            kind,
            backend: 7,
            generation,
            pid: 4711,
            age_us: 1200,
            ejected_ms: 2000,
            destination: IpAddr::from([127, 0, 0, 1]).into(),
            destination_port: Port::new(1234),
            protocol: PROTOCOL_TCP,
            ..Event::EMPTY
        }
    }

    fn lines(events: &[WatchEvent]) -> Vec<String> {
        let at = |it: &WatchEvent| WatchEvent { time: 1_800_000_061.5, ..it.clone() }.line();
        events.iter().map(at).collect()
    }

    #[test]
    fn failure_that_ejects_is_two_lines_with_the_backend() {
        let events = WatchEvent::of_hook(&event(EventKind::FAILED, 3), &map_state());
        assert_eq!(
            lines(&events),
            [
                "08:01:01.500  failed      /shop/web  127.0.0.1:1234/tcp, backend 10.0.0.2:31000, after 0.0s, process 4711",
                "08:01:01.500  ejected     /shop/web  backend 10.0.0.2:31000, for 2.0s",
            ]
        );
    }

    #[test]
    fn refusal_has_a_reason_and_no_backend() {
        let events = WatchEvent::of_hook(&event(EventKind::REFUSED, 3), &map_state());
        let line = "08:01:01.500  refused     /shop/web  127.0.0.1:1234/tcp, no_backend, process 4711";
        assert_eq!(lines(&events), [line]);
    }

    #[test]
    fn backend_whose_id_has_a_new_owner_is_not_named() {
        let events = WatchEvent::of_hook(&event(EventKind::CONNECTED, 2), &map_state());
        assert_eq!((events[0].backend, events[0].service.as_deref()), (None, Some("/shop/web")));
    }

    #[test]
    fn line_fits_a_terminal_and_json_round_trips() {
        let long =
            WatchEvent { service: Some("/x".repeat(100)), ..WatchEvent::now("gone") }.of_backend(&map_state(), 7);
        assert!(long.line().chars().count() <= WIDTH, "{}", long.line());
        assert_eq!(serde_json::from_str::<WatchEvent>(&serde_json::to_string(&long).unwrap()).unwrap(), long);
    }
}
