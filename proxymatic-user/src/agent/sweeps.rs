//! When the agent sweeps the sockets of this host, and for what. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proxymatic_common::{Backend, BackendState, Features};

use super::{
    census::{Census, is_tcp},
    effect::Effect,
    event_bus::describe_backend,
};
use crate::{
    dataplane::Counters,
    model::Warning,
    plan::{BackendEntry, MapOp, MapState},
    sockets::{BackendRef, ConntrackUsage, DestroyReason, GoneBackend, Idle, SweepReport, SweepRequest},
};

/// The time between two censuses.
const CENSUS: Duration = Duration::from_secs(60);
/// The time until the next census after one that found a difference.
const CENSUS_AGAIN: Duration = Duration::from_secs(10);
/// The time until the second sweep for a gone backend: a hook that read the slots just before the switch may still have
/// made a connection.
const SECOND_SWEEP: Duration = Duration::from_secs(1);
/// The shortest and the longest time between two sweeps for idle connections.
const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// The time between two sweeps for remote clients' connections that are over.
const REMOTE: Duration = Duration::from_secs(5);
/// After a sweep, sweeps that can wait do so for this many times its duration.
const REST: u32 = 10;

/// The sweep under way, the times of the next ones, and the last results.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    busy: bool,
    gone: BTreeMap<BackendRef, Leaving>,
    census_at: Option<Instant>,
    idle_at: Option<Instant>,
    remote_at: Option<Instant>,
    /// Until then only sweeps that cannot wait.
    rests_until: Option<Instant>,
    census: Census,
    limitation: Option<String>,
    remote: Option<ConntrackUsage>,
}

/// A gone backend whose sockets are to be destroyed.
#[derive(Debug)]
struct Leaving {
    gone: GoneBackend,
    /// The time of the next sweep; `None` for at once.
    at: Option<Instant>,
    sweeps: u8,
}

impl Sweeps {
    /// Starts with the gone backends in the maps: an agent that died may not have destroyed their sockets.
    pub(super) fn adopt(map_state: &MapState) -> Self {
        let mut sweeps = Self::default();
        for (id, entry) in map_state.backends() {
            sweeps.add_gone(*id, &entry.backend, map_state, None);
        }
        sweeps
    }

    /// Notes the backends that are gone after these writes.
    pub(super) fn planned(&mut self, ops: &[MapOp], map_state: &MapState, now: Instant) {
        for op in ops {
            if let MapOp::DemoteBackend(id, backend) = op {
                self.add_gone(*id, backend, map_state, Some(now));
            }
        }
    }

    fn add_gone(&mut self, id: u32, backend: &Backend, map_state: &MapState, at: Option<Instant>) {
        let service = map_state.services().get(&backend.service);
        let reset = service.is_some_and(|service| service.settings.features.has(Features::RESET));
        if backend.state == BackendState::GONE && (reset || !is_tcp(map_state, backend.service)) {
            let owner = BackendRef { backend: id, generation: backend.generation };
            let gone = GoneBackend { address: backend.address, port: backend.port, tcp: reset };
            self.gone.insert(owner, Leaving { gone, at, sweeps: 0 });
        }
    }

    pub(super) fn warnings(&self) -> impl Iterator<Item = Warning> {
        let limitation = self.limitation.iter().map(|reason| Warning { app: "sockets".into(), reason: reason.clone() });
        limitation.chain(self.remote.and_then(nearly_full))
    }

    /// Returns how many connections of remote clients are tracked, as of the last sweep.
    pub(super) fn remote_connections(&self) -> Option<u64> {
        self.remote.map(|kept| kept.connections)
    }

    /// Returns whether no sweep is under way.
    pub(super) const fn is_idle(&self) -> bool {
        !self.busy
    }

    /// Returns whether sweeps that can wait may begin.
    pub(super) fn is_free(&self, now: Instant) -> bool {
        !self.busy && self.rests_until.is_none_or(|until| until <= now)
    }

    /// Returns what the next sweep does, apart from listeners; empty for nothing. `remote` is whether remote clients are
    /// served.
    pub(super) fn due(&mut self, map_state: &MapState, remote: bool, now: Instant) -> SweepRequest {
        let mut request = SweepRequest::default();
        if self.busy {
            return request;
        }
        let is_gone = |owner: &BackendRef| {
            let entry = map_state.backends().get(&owner.backend).map(|entry| &entry.backend);
            entry.is_some_and(|it| it.generation == owner.generation && it.state == BackendState::GONE)
        };
        // If the kernel refused the write, the next plan has it again, and so it is noted again.
        self.gone.retain(|owner, leaving| is_gone(owner) && leaving.sweeps < 2);
        for (owner, leaving) in self.gone.iter_mut().filter(|(_, leaving)| leaving.at.is_none_or(|at| at <= now)) {
            leaving.sweeps += 1;
            leaving.at = Some(now + SECOND_SWEEP);
            request.gone.insert(*owner, leaving.gone);
        }
        if !self.is_free(now) {
            return request;
        }
        if self.census_at.is_none_or(|at| at <= now) {
            request.census = true;
            self.census_at = Some(now + CENSUS);
        }
        if remote && self.remote_at.is_none_or(|at| at <= now) {
            request.remote = true;
            self.remote_at = Some(now + REMOTE);
        }
        if self.idle_at.is_none_or(|at| at <= now) {
            request.idle = idle(map_state);
            let shortest = request.idle.values().filter_map(|idle| idle.bound()).min().unwrap_or(IDLE.1);
            self.idle_at = Some(now + (shortest / 4).clamp(IDLE.0, IDLE.1));
        }
        request
    }

    /// Notes that a sweep begins.
    pub(super) fn begin(&mut self, request: &SweepRequest, map_state: &MapState, counters: &impl Counters) {
        self.busy = true;
        if request.census {
            self.census.begin(map_state, counters);
        }
    }

    /// Notes that the worker did not take the request.
    pub(super) const fn not_begun(&mut self) {
        self.busy = false;
    }

    /// Takes the report of a sweep. Returns corrections of counters.
    pub(super) fn swept(
        &mut self,
        report: &SweepReport,
        map_state: &MapState,
        counters: &impl Counters,
        now: Instant,
    ) -> Vec<Effect> {
        self.busy = false;
        self.rests_until = Some(now + report.took * REST);
        if self.limitation != report.limitation {
            if let Some(limitation) = &report.limitation {
                tracing::warn!("{limitation}");
            }
            self.limitation.clone_from(&report.limitation);
        }
        self.remote = report.remote.or(self.remote);
        log(report, map_state);
        match &report.census {
            Some(census) => {
                let effects = self.census.end(census, map_state, counters);
                if self.census.has_suspects() {
                    self.census_at = Some(now + CENSUS_AGAIN);
                }
                effects
            }
            None => {
                if report.limitation.is_some() {
                    self.census.cancel();
                }
                Vec::new()
            }
        }
    }
}

fn log(report: &SweepReport, map_state: &MapState) {
    for ((owner, reason), ended) in &report.ended {
        let backend = describe_backend(map_state, owner.backend);
        match reason {
            DestroyReason::GoneBackend => {
                tracing::info!("{backend} is gone: {ended} sockets that were connected to it were reset")
            }
            DestroyReason::Idle => {
                tracing::info!("{backend}: {ended} connections were idle for too long, and were reset")
            }
        }
    }
    for ((owner, reason), forgotten) in &report.forgotten {
        let reason = match reason {
            DestroyReason::GoneBackend => "is gone",
            DestroyReason::Idle => "idle for too long",
        };
        let backend = describe_backend(map_state, owner.backend);
        tracing::info!("{backend} ({reason}): {forgotten} connections of remote clients were removed");
    }
}

/// Returns a warning before the table of remote clients' connections evicts entries.
fn nearly_full(ConntrackUsage { connections, capacity: room }: ConntrackUsage) -> Option<Warning> {
    (connections * 10 > room * 9).then(|| Warning {
        app: "remote clients".into(),
        reason: format!(
            "{connections} connections are tracked, and the table holds {room}: it is about to evict the least recently used; \
             start the agent with a larger --max-remote-connections after `proxymatic detach`"
        ),
    })
}

/// Returns the backends of services that have an idle timeout.
fn idle(map_state: &MapState) -> BTreeMap<BackendRef, Idle> {
    let mut idle = BTreeMap::new();
    for service in map_state.services().values() {
        let timeouts = Idle {
            client: Duration::from_millis(service.settings.idle_client_ms.into()),
            server: Duration::from_millis(service.settings.idle_server_ms.into()),
        };
        if timeouts.bound().is_some() {
            let backends = service.backends.iter().filter_map(|id| Some((*id, map_state.backends().get(id)?)));
            let owner =
                |(backend, entry): (u32, &BackendEntry)| BackendRef { backend, generation: entry.backend.generation };
            idle.extend(backends.map(|backend| (owner(backend), timeouts)));
        }
    }
    idle
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dataplane::{Faults, Memory},
        plan::Capacity,
    };

    const SECOND: Duration = Duration::from_secs(1);

    fn memory() -> Memory {
        Memory::new(Capacity::default(), Faults { one_in: 0, seed: 0 })
    }

    #[test]
    fn nothing_is_due_while_a_sweep_is_under_way() {
        let (mut sweeps, map_state, now) = (Sweeps::default(), MapState::default(), Instant::now());
        let request = sweeps.due(&map_state, true, now);
        assert!(request.census && request.remote);
        sweeps.begin(&request, &map_state, &memory());
        assert!(sweeps.due(&map_state, true, now + CENSUS).is_empty() && !sweeps.is_free(now + CENSUS));
        sweeps.not_begun();
        assert!(!sweeps.due(&map_state, true, now + CENSUS).is_empty());
    }

    #[test]
    fn sweeps_that_can_wait_take_a_tenth_of_the_time() {
        let (mut sweeps, map_state, now) = (Sweeps::default(), MapState::default(), Instant::now());
        let report = SweepReport { took: SECOND, ..SweepReport::default() };
        assert_eq!(sweeps.swept(&report, &map_state, &memory(), now), []);
        assert!(!sweeps.is_free(now + 9 * SECOND) && sweeps.is_free(now + 10 * SECOND));
        assert!(sweeps.due(&map_state, true, now + 9 * SECOND).is_empty());
    }

    #[test]
    fn remote_connections_warn_at_nine_tenths_of_the_table() {
        let (mut sweeps, map_state, now) = (Sweeps::default(), MapState::default(), Instant::now());
        for (connections, warnings) in [(90, 0), (91, 1)] {
            let remote = Some(ConntrackUsage { connections, capacity: 100 });
            let report = SweepReport { remote, ..SweepReport::default() };
            sweeps.swept(&report, &map_state, &memory(), now);
            assert_eq!((sweeps.remote_connections(), sweeps.warnings().count()), (Some(connections), warnings));
        }
    }
}
