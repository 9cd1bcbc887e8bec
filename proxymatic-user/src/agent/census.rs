//! The census: compares the counters of open connections with the sockets, and corrects them. Pure.

use std::collections::BTreeMap;

use proxymatic_common::PROTOCOL_TCP;

use super::{
    drift::{CounterSample, Drift},
    effect::Effect,
    event_bus::describe_backend,
};
use crate::{
    dataplane::{Counters, Counts},
    plan::{BackendEntry, MapState},
    sockets::BackendRef,
};

/// The census under way, and what the last one found.
#[derive(Debug, Default)]
pub(super) struct Census {
    backends: Drift<BackendRef>,
    services: Drift<u32>,
}

impl Census {
    /// Begins a census of all TCP services.
    pub(super) fn begin(&mut self, map_state: &MapState, counters: &impl Counters) {
        let backends = map_state.backends().iter().filter(|(_, entry)| is_tcp(map_state, entry.backend.service));
        let owners = backends.map(|(id, entry)| BackendRef { backend: *id, generation: entry.backend.generation });
        self.backends.begin(owners.map(|owner| (owner, sample(counters.counts(owner.backend)))));
        let services = map_state.services().keys().filter(|id| is_tcp(map_state, **id));
        self.services.begin(services.map(|id| (*id, sample(counters.service_counts(*id)))));
    }

    /// Ends the census with the number of sockets of each backend. Returns the corrections.
    pub(super) fn end(
        &mut self,
        sockets: &BTreeMap<BackendRef, u64>,
        map_state: &MapState,
        counters: &impl Counters,
    ) -> Vec<Effect> {
        let current = |owner: BackendRef| -> Option<&BackendEntry> {
            map_state.backends().get(&owner.backend).filter(|entry| entry.backend.generation == owner.generation)
        };
        let backend_now = |owner: BackendRef| current(owner).map(|_| sample(counters.counts(owner.backend)));
        let of_backends = self.backends.end(sockets, backend_now);
        let mut by_service: BTreeMap<u32, u64> = BTreeMap::new();
        for (owner, seen) in sockets {
            if let Some(entry) = current(*owner) {
                *by_service.entry(entry.backend.service).or_default() += seen;
            }
        }
        let service_now = |id| map_state.services().contains_key(&id).then(|| sample(counters.service_counts(id)));
        let of_services = self.services.end(&by_service, service_now);
        let correct_backend = |(owner, by): (BackendRef, i64)| {
            tracing::info!(
                "{}: the count of open connections was {} off, and is corrected",
                describe_backend(map_state, owner.backend),
                by.abs()
            );
            Effect::CorrectBackend(owner.backend, by)
        };
        let of_services = of_services.into_iter().map(|(service, by)| Effect::CorrectService(service, by));
        of_backends.into_iter().map(correct_backend).chain(of_services).collect()
    }

    /// Cancels the census under way: not all sockets were seen.
    pub(super) fn cancel(&mut self) {
        self.backends.cancel();
        self.services.cancel();
    }

    /// Returns whether the last census found a difference that the next one may confirm.
    pub(super) fn has_suspects(&self) -> bool {
        self.backends.has_suspects() || self.services.has_suspects()
    }
}

/// Returns whether a service is known to be a TCP service. The kernel does not report which UDP sockets count as open.
pub(super) fn is_tcp(map_state: &MapState, service: u32) -> bool {
    let frontend = map_state.services().get(&service).and_then(|service| service.frontend);
    frontend.is_some_and(|frontend| frontend.protocol == PROTOCOL_TCP)
}

const fn sample(counts: Counts) -> CounterSample {
    CounterSample { opened: counts.opened, closed: counts.closed }
}

#[cfg(test)]
mod tests {
    use proxymatic_common::{Address, Backend, BackendState, Class, Frontend, Port};

    use super::*;
    use crate::{
        dataplane::{Faults, Memory},
        plan::{Capacity, MapOp},
    };

    #[test]
    fn difference_found_twice_corrects_backend_and_service() {
        let (mut map_state, owner) = (MapState::new(Capacity::default()), BackendRef { backend: 7, generation: 1 });
        let backend = Backend {
            address: Address::from(std::net::IpAddr::from([10, 0, 0, 1])),
            state: BackendState::ACTIVE,
            ..Backend::free(1)
        };
        map_state.apply(&MapOp::PutBackend(7, backend));
        map_state.apply(&MapOp::PutFrontend(Frontend::new(Class::HOST, Port::new(1234), PROTOCOL_TCP), 0));
        let mut memory = Memory::new(Capacity::default(), Faults { one_in: 0, seed: 0 });
        let counts = Counts { opened: 7, closed: 1, ..Counts::default() };
        memory.counts.insert(7, counts);
        memory.service_counts.insert(0, counts);
        let mut census = Census::default();
        let corrections = [Effect::CorrectBackend(7, -2), Effect::CorrectService(0, -2)];
        for (expected, suspects) in [(&[][..], true), (&corrections[..], false)] {
            census.begin(&map_state, &memory);
            assert_eq!(census.end(&[(owner, 4)].into(), &map_state, &memory), expected);
            assert_eq!(census.has_suspects(), suspects);
        }
    }
}
