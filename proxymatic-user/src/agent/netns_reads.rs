//! When the addresses of network namespaces are read again, for allow lists. Pure.

use std::time::{Duration, Instant};

use proxymatic_common::{Event, EventKind, Features, Reason};

use super::effect::Effect;
use crate::plan::MapState;

/// The longest time between two readings while a service has an allow list: nothing tells of an address that changes in
/// another namespace.
const EVERY: Duration = Duration::from_secs(5);

/// The time of the next reading.
#[derive(Debug, Default)]
pub(super) struct NetnsReads {
    at: Option<Instant>,
}

impl NetnsReads {
    /// Reads at once if a hook has refused a program because the address of its namespace is unknown.
    pub(super) fn hook_events(&mut self, events: &[Event], now: Instant) -> Vec<Effect> {
        let is_unknown = |event: &Event| {
            event.kind == EventKind::REFUSED && Reason::from_number(event.reason) == Some(Reason::UnknownNetns)
        };
        if events.iter().any(is_unknown) { self.read(now) } else { Vec::new() }
    }

    /// Reads if a reading is due.
    pub(super) fn tick(&mut self, map_state: &MapState, now: Instant) -> Vec<Effect> {
        if self.at.is_none_or(|at| at <= now) { self.changed(map_state, now) } else { Vec::new() }
    }

    /// Reads after a change of the host that may be a new namespace.
    pub(super) fn changed(&mut self, map_state: &MapState, now: Instant) -> Vec<Effect> {
        let needed = map_state.services().values().any(|service| service.settings.features.has(Features::ALLOW));
        if needed { self.read(now) } else { Vec::new() }
    }

    fn read(&mut self, now: Instant) -> Vec<Effect> {
        self.at = Some(now + EVERY);
        vec![Effect::ReadNetns]
    }
}

#[cfg(test)]
mod tests {
    use proxymatic_common::{Policy, Service, SourceCode};

    use super::*;
    use crate::plan::MapOp;

    fn listed() -> MapState {
        let mut map_state = MapState::default();
        let mut settings = Service::new(Policy::LEASTCONN, SourceCode::MARATHON);
        settings.features = Features::ALLOW;
        map_state.apply(&MapOp::PutService(1, settings));
        map_state
    }

    #[test]
    fn namespaces_are_read_every_5_s_while_a_service_has_a_list() {
        let (mut reads, now) = (NetnsReads::default(), Instant::now());
        assert_eq!(reads.tick(&MapState::default(), now), []);
        assert_eq!(reads.changed(&MapState::default(), now), []);
        assert_eq!(reads.tick(&listed(), now), [Effect::ReadNetns]);
        assert_eq!(reads.tick(&listed(), now + EVERY / 2), []);
        assert_eq!(reads.changed(&listed(), now + EVERY / 2), [Effect::ReadNetns]);
        assert_eq!(reads.tick(&listed(), now + EVERY), []);
        assert_eq!(reads.tick(&listed(), now + 2 * EVERY), [Effect::ReadNetns]);
    }

    #[test]
    fn program_of_an_unknown_namespace_causes_a_reading() {
        let (mut reads, now) = (NetnsReads::default(), Instant::now());
        let refused = |reason: Reason| Event { kind: EventKind::REFUSED, reason: reason as u32, ..Event::EMPTY };
        assert_eq!(reads.hook_events(&[refused(Reason::NotAllowed)], now), []);
        let events = [refused(Reason::NotAllowed), refused(Reason::UnknownNetns)];
        assert_eq!(reads.hook_events(&events, now), [Effect::ReadNetns]);
    }
}
