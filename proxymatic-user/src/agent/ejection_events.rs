//! What the agent does when the kernel tells of a backend that failed: probe it, keep it out meanwhile, let it in when it
//! answers.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use proxymatic_common::{BackendState, Event, EventKind, PROTOCOL_TCP};

use super::{Agent, ejections::AHEAD, is_full};
use crate::{
    backend_probe::{Answered, Order},
    dataplane::Dataplane,
    surface::OutStatus,
};

/// Services with more backends than this are searched in vain for an eligible one when many are full.
const MANY: usize = 16;

impl<D: Dataplane> Agent<D> {
    pub(super) fn told(&mut self, events: &[Event], now: Instant) {
        self.tell_events(events);
        for event in events {
            match event.kind {
                EventKind::FAILED if event.ejected_ms > 0 => {
                    self.watch(event.backend, event.generation, now);
                }
                EventKind::BOUND => {
                    self.sweeps.listeners.soon(now);
                    self.bound(event);
                }
                _ => {}
            }
        }
        self.keep_out();
    }

    /// Says once of each group of programs that it took a service port for itself.
    fn bound(&mut self, event: &Event) {
        let Some(service) = self.tables.services().get(&event.service) else { return };
        if self.bound.insert((event.service, event.cgroup)) {
            tracing::warn!(
                "{}: process {} has bound service port {}: programs in its network namespace that dial the port get that \
                 process, not the service",
                service.name,
                event.pid,
                event.destination_port.get()
            );
        }
    }

    pub(super) fn answered(&mut self, who: Answered, now: Instant) {
        let Some(out) = self.ejected.answered(who.backend, who.generation, now) else { return };
        self.plane.readmit(who.backend);
        tracing::info!(
            "{} answers again after {:.1} s: readmitted",
            self.describe_backend(who.backend),
            out.as_secs_f64()
        );
        self.tell_readmitted(who.backend, out);
        if self.resting.remove(&who.backend) {
            self.publish(now);
        }
    }

    /// Looks at all backends, in case an event was lost or came while there was no agent.
    pub(super) fn look_round(&mut self, now: Instant) {
        let ejected = self.tables.backends().iter().filter(|(id, _)| !self.plane.counts(**id).ejected.is_zero());
        let ejected: Vec<_> = ejected.map(|(id, entry)| (*id, entry.backend.generation)).collect();
        for (id, generation) in ejected {
            self.watch(id, generation, now);
        }
        let backends = self.tables.backends();
        let gone = self.ejected.forget(|id, generation| {
            backends.get(&id).is_some_and(|entry| entry.backend.generation == generation && lives(entry.backend.state))
        });
        for backend in gone {
            self.helpers.probe(Order::Leave { backend });
        }
        self.bound.retain(|(service, _)| self.tables.services().contains_key(service));
        let out = self.keep_out();
        let mut resting = self.ejected.resting(&out, now);
        resting.extend(self.full());
        if resting != self.resting {
            self.resting = resting;
            self.publish(now);
        }
    }

    /// Has a backend probed, if that can be done and is not done yet.
    fn watch(&mut self, id: u32, generation: u32, now: Instant) {
        let Some(entry) = self.tables.backends().get(&id) else { return };
        let backend = &entry.backend;
        let service = self.tables.services().get(&backend.service);
        // Whether a UDP port is open cannot be asked.
        let tcp = service.and_then(|service| service.frontend).is_some_and(|to| to.protocol == PROTOCOL_TCP);
        let same = backend.generation == generation && lives(backend.state);
        if !tcp || !same || !self.ejected.watch(id, generation, backend.service, now) {
            return;
        }
        let to = SocketAddr::new(IpAddr::from(backend.address), backend.port.get());
        // The cure has been given, and one replica that dies is an ordinary day: nothing to wake anybody for.
        tracing::info!(
            "{} refuses connections or does not answer them: ejected until it answers",
            self.describe_backend(id)
        );
        self.helpers.probe(Order::Watch { backend: id, generation, to });
    }

    /// Renews the ejection of those that may stay out, and gives them.
    fn keep_out(&mut self) -> Vec<u32> {
        let out = self.ejected.out(|service| self.active_in(service));
        for id in &out {
            self.plane.eject(*id, AHEAD);
        }
        out
    }

    fn active_in(&self, service: u32) -> usize {
        let Some(service) = self.tables.services().get(&service) else { return 0 };
        let states = service.backends.iter().filter_map(|id| Some(self.tables.backends().get(id)?.backend.state));
        states.filter(|state| *state == BackendState::ACTIVE).count()
    }

    /// Backends that take no more connections, where there are so many that the hooks may not find one that does.
    fn full(&self) -> BTreeSet<u32> {
        let many = self.tables.services().values().filter(|service| service.backends.len() > MANY);
        let full = |id: &&u32| {
            let entry = self.tables.backends().get(id);
            entry.is_some_and(|entry| is_full(&entry.backend, self.plane.active(**id)))
        };
        many.flat_map(|service| service.backends.iter().filter(full)).copied().collect()
    }

    /// The backends that do not answer, for `status`.
    pub(super) fn out(&self, now: Instant) -> Vec<OutStatus> {
        let row = |(id, out): (u32, Duration)| {
            let entry = self.tables.backends().get(&id)?;
            let service = self.tables.services().get(&entry.backend.service)?.name.clone();
            let backend = SocketAddr::new(IpAddr::from(entry.backend.address), entry.backend.port.get());
            Some(OutStatus { service, backend, out_s: out.as_secs_f64() })
        };
        self.ejected.watched(now).filter_map(row).collect()
    }

    /// A backend and its service, for the log.
    pub(super) fn describe_backend(&self, id: u32) -> String {
        let Some(entry) = self.tables.backends().get(&id) else { return format!("backend {id}") };
        let name = self.tables.services().get(&entry.backend.service).map_or("", |service| service.name.as_str());
        format!("{name}: {}", SocketAddr::new(IpAddr::from(entry.backend.address), entry.backend.port.get()))
    }
}

/// Whether a backend of this state may be given connections.
fn lives(state: BackendState) -> bool {
    state == BackendState::ACTIVE || state == BackendState::DRAINING
}
