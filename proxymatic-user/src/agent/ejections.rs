//! What the agent does about backends that fail: it probes them, renews their ejections, parks them after a while and
//! readmits them when they answer. Pure.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use proxymatic_common::{BackendState, Event, EventKind, PROTOCOL_TCP};

use super::{
    desired_state::is_full,
    effect::{Effect, Trigger},
    event_bus::describe_backend,
    status::EjectedBackend,
    watch_list::{AHEAD, WatchList},
};
use crate::{
    backend_probe::{Answered, Order},
    dataplane::Counters,
    plan::MapState,
};

/// Full backends are parked only in services with more backends than this: there the hooks may not find one that is not
/// full.
const MANY: usize = 16;

/// The backends that are ejected, and those that are parked.
#[derive(Debug, Default)]
pub(super) struct Ejections {
    watched: WatchList,
    parked: BTreeSet<u32>,
}

impl Ejections {
    /// Returns the ids of the parked backends.
    pub(super) const fn parked(&self) -> &BTreeSet<u32> {
        &self.parked
    }

    /// Starts a probe for each backend that the kernel has ejected.
    pub(super) fn hook_events(&mut self, events: &[Event], map_state: &MapState, now: Instant) -> Vec<Effect> {
        let ejected = events.iter().filter(|event| event.kind == EventKind::FAILED && event.ejected_ms > 0);
        let mut effects: Vec<_> =
            ejected.filter_map(|event| self.watch(event.backend, event.generation, map_state, now)).collect();
        effects.extend(self.watched.out(|service| active_in(map_state, service)).into_iter().map(renew));
        effects
    }

    /// Readmits a backend that has answered its probe.
    pub(super) fn answered(&mut self, answered: Answered, map_state: &MapState, now: Instant) -> Vec<Effect> {
        let Answered { backend, generation } = answered;
        let Some(out) = self.watched.answered(backend, generation, now) else { return Vec::new() };
        let name = describe_backend(map_state, backend);
        tracing::info!("{name} answers again after {:.1} s: readmitted", out.as_secs_f64());
        let publish = self.parked.remove(&backend).then_some(Effect::Publish(Trigger::Other));
        [Effect::Readmit(backend, out)].into_iter().chain(publish).collect()
    }

    /// Checks all backends: an event may have been lost, or come while there was no agent. Renews ejections and decides
    /// which backends are parked.
    pub(super) fn check_all(&mut self, map_state: &MapState, counters: &impl Counters, now: Instant) -> Vec<Effect> {
        let backends = map_state.backends();
        let ejected = backends.iter().filter(|(id, _)| !counters.counts(**id).ejected.is_zero());
        let mut effects: Vec<_> =
            ejected.filter_map(|(id, entry)| self.watch(*id, entry.backend.generation, map_state, now)).collect();
        let gone = self.watched.forget(|id, generation| {
            backends
                .get(&id)
                .is_some_and(|it| it.backend.generation == generation && takes_connections(it.backend.state))
        });
        effects.extend(gone.into_iter().map(|backend| Effect::Probe(Order::Leave { backend })));
        let out = self.watched.out(|service| active_in(map_state, service));
        effects.extend(out.iter().copied().map(renew));
        let mut parked = self.watched.parked(&out, now);
        parked.extend(full(map_state, counters));
        if parked != self.parked {
            self.parked = parked;
            effects.push(Effect::Publish(Trigger::Other));
        }
        effects
    }

    /// Starts to watch a backend. Returns the order for its probe, or `None` if it is probed already or cannot be.
    fn watch(&mut self, id: u32, generation: u32, map_state: &MapState, now: Instant) -> Option<Effect> {
        let backend = &map_state.backends().get(&id)?.backend;
        let service = map_state.services().get(&backend.service);
        // A connect does not tell whether a UDP port is open.
        let tcp = service.and_then(|service| service.frontend).is_some_and(|it| it.protocol == PROTOCOL_TCP);
        let same = backend.generation == generation && takes_connections(backend.state);
        if !tcp || !same || !self.watched.watch(id, generation, backend.service, now) {
            return None;
        }
        // INFO: the ejection already mitigates this.
        tracing::info!(
            "{} refuses connections or does not answer them: ejected until it answers",
            describe_backend(map_state, id)
        );
        let to = SocketAddr::new(IpAddr::from(backend.address), backend.port.get());
        Some(Effect::Probe(Order::Watch { backend: id, generation, to }))
    }

    /// Returns the backends that do not answer, for `status`.
    pub(super) fn status(&self, map_state: &MapState, now: Instant) -> Vec<EjectedBackend> {
        let row = |(id, out): (u32, Duration)| {
            let backend = &map_state.backends().get(&id)?.backend;
            let service = map_state.services().get(&backend.service)?.name.clone();
            let backend = SocketAddr::new(IpAddr::from(backend.address), backend.port.get());
            Some(EjectedBackend { service, backend, out_s: out.as_secs_f64() })
        };
        self.watched.watched(now).filter_map(row).collect()
    }
}

const fn renew(backend: u32) -> Effect {
    Effect::Eject(backend, AHEAD)
}

/// Returns how many backends of a service are active.
fn active_in(map_state: &MapState, service: u32) -> usize {
    let Some(service) = map_state.services().get(&service) else { return 0 };
    let states = service.backends.iter().filter_map(|id| Some(map_state.backends().get(id)?.backend.state));
    states.filter(|state| *state == BackendState::ACTIVE).count()
}

/// Returns the full backends of services with more than [`MANY`] backends.
fn full(map_state: &MapState, counters: &impl Counters) -> BTreeSet<u32> {
    let many = map_state.services().values().filter(|service| service.backends.len() > MANY);
    let full = |id: &&u32| {
        let entry = map_state.backends().get(id);
        entry.is_some_and(|entry| is_full(&entry.backend, counters.active(**id)))
    };
    many.flat_map(|service| service.backends.iter().filter(full)).copied().collect()
}

/// Returns whether the hooks may choose a backend in this state.
fn takes_connections(state: BackendState) -> bool {
    state == BackendState::ACTIVE || state == BackendState::DRAINING
}

#[cfg(test)]
mod tests {
    use proxymatic_common::{Address, Backend, Class, Frontend, PROTOCOL_UDP, Port};

    use super::*;
    use crate::{
        dataplane::{Counts, Faults, Memory},
        plan::{Capacity, MapOp},
    };

    const SECOND: Duration = Duration::from_secs(1);

    /// Maps with a service that has the backends 0 to 3, all active.
    fn map_state(protocol: u8) -> MapState {
        let mut map_state = MapState::new(Capacity::default());
        for id in 0..4 {
            let address = Address::from(IpAddr::from([10, 0, 0, id as u8]));
            let backend = Backend { address, port: Port::new(31_000), state: BackendState::ACTIVE, ..Backend::free(1) };
            map_state.apply(&MapOp::PutBackend(id, backend));
        }
        map_state.apply(&MapOp::PutFrontend(Frontend::new(Class::HOST, Port::new(1234), protocol), 0));
        map_state
    }

    /// Counters that show these backends as ejected.
    fn counters(ejected: &[u32]) -> Memory {
        let mut memory = Memory::new(Capacity::default(), Faults { one_in: 0, seed: 0 });
        memory.counts = ejected.iter().map(|id| (*id, Counts { ejected: SECOND, ..Counts::default() })).collect();
        memory
    }

    fn probe(backend: u32) -> Effect {
        let to = SocketAddr::from(([10, 0, 0, backend as u8], 31_000));
        Effect::Probe(Order::Watch { backend, generation: 1, to })
    }

    #[test]
    fn ejected_backend_is_probed_once_and_renewed_each_second() {
        let (mut ejections, map_state, now) = (Ejections::default(), map_state(PROTOCOL_TCP), Instant::now());
        assert_eq!(ejections.check_all(&map_state, &counters(&[2]), now), [probe(2), renew(2)]);
        assert_eq!(ejections.check_all(&map_state, &counters(&[]), now + SECOND), [renew(2)]);
        assert_eq!(ejections.status(&map_state, now + SECOND).len(), 1);
    }

    #[test]
    fn parked_backend_is_published_and_so_is_its_answer() {
        let (mut ejections, map_state, now) = (Ejections::default(), map_state(PROTOCOL_TCP), Instant::now());
        ejections.check_all(&map_state, &counters(&[2]), now);
        let (later, publish) = (now + 10 * SECOND, || Effect::Publish(Trigger::Other));
        assert_eq!(ejections.check_all(&map_state, &counters(&[2]), later), [renew(2), publish()]);
        assert_eq!(ejections.parked(), &[2].into());
        let answered = Answered { backend: 2, generation: 1 };
        assert_eq!(ejections.answered(answered, &map_state, later), [Effect::Readmit(2, 10 * SECOND), publish()]);
        assert_eq!(ejections.answered(answered, &map_state, later), []);
        assert!(ejections.parked().is_empty());
    }

    #[test]
    fn udp_backend_is_not_probed() {
        let (mut ejections, map_state) = (Ejections::default(), map_state(PROTOCOL_UDP));
        assert_eq!(ejections.check_all(&map_state, &counters(&[2]), Instant::now()), []);
    }
}
