//! When the agent has the sockets of this host looked through, for what, and what it makes of the answer.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proxymatic_common::{Backend, BackendState, Class, Features, PROTOCOL_TCP};

use super::{
    Agent,
    drift::{CounterSample, Drift},
    listeners::{ListenerCheck, Listeners},
};
use crate::{
    dataplane::{Counts, Dataplane},
    model::Warning,
    plan::{Exposed, MapOp, MapState},
    sockets::{BackendRef, ConntrackUsage, DestroyReason, GoneBackend, Idle, SweepReport, SweepRequest},
};

/// How often counts are compared with sockets.
const CENSUS: Duration = Duration::from_secs(60);
/// How long after a census that found something wrong.
const AGAIN: Duration = Duration::from_secs(10);
/// After how long the sockets of a backend that is gone are looked for once more: a connection may have been made by a
/// hook that had read the slots just before.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// How often, at least and at most, idle connections are looked for.
const IDLE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));
/// How often connections of clients on other machines that are over are forgotten.
const REMOTE: Duration = Duration::from_secs(5);
/// Looking through sockets may take one part in so many of the time.
const SHARE: u32 = 10;

/// When to do what, and what was seen last.
#[derive(Debug, Default)]
pub(super) struct Sweeps {
    busy: bool,
    gone: BTreeMap<BackendRef, Leaving>,
    census_at: Option<Instant>,
    idle_at: Option<Instant>,
    remote_at: Option<Instant>,
    /// Before this, no more than has to be.
    rests_until: Option<Instant>,
    backends: Drift<BackendRef>,
    services: Drift<u32>,
    pub(super) listeners: Listeners,
    blind: Option<String>,
    remote: Option<ConntrackUsage>,
}

#[derive(Debug)]
struct Leaving {
    gone: GoneBackend,
    /// When to look; `None` for at once.
    at: Option<Instant>,
    looks: u8,
}

impl Sweeps {
    /// With what an agent may have left undone that died: backends that are gone, whose sockets nobody may have told.
    pub(super) fn adopt(tables: &MapState) -> Self {
        let mut sweeps = Self::default();
        for (id, entry) in tables.backends() {
            sweeps.note(*id, &entry.backend, tables, None);
        }
        sweeps
    }

    /// Notes the backends whose sockets have to be told when these writes have been carried out.
    pub(super) fn leave(&mut self, ops: &[MapOp], tables: &MapState, now: Instant) {
        for op in ops {
            if let MapOp::DemoteBackend(id, backend) = op {
                self.note(*id, backend, tables, Some(now));
            }
        }
    }

    fn note(&mut self, id: u32, backend: &Backend, tables: &MapState, at: Option<Instant>) {
        let service = tables.services().get(&backend.service);
        let reset = service.is_some_and(|service| service.settings.features.has(Features::RESET));
        if backend.state == BackendState::GONE && (reset || !is_tcp(tables, backend.service)) {
            let owner = BackendRef { backend: id, generation: backend.generation };
            let gone = GoneBackend { address: backend.address, port: backend.port, tcp: reset };
            self.gone.insert(owner, Leaving { gone, at, looks: 0 });
        }
    }

    /// What cannot be done, for the operator.
    pub(super) fn warnings(&self) -> impl Iterator<Item = Warning> {
        let blind = self.blind.as_ref().map(|reason| Warning { app: "sockets".into(), reason: reason.clone() });
        blind.into_iter().chain(self.remote.and_then(crowded))
    }

    /// How many connections of clients on other machines are kept, as last seen.
    pub(super) fn remote(&self) -> Option<u64> {
        self.remote.map(|kept| kept.connections)
    }

    /// Whether there is time for what can wait.
    fn is_free(&self, now: Instant) -> bool {
        !self.busy && self.rests_until.is_none_or(|until| until <= now)
    }

    /// What is to be done now; empty for nothing.
    fn due(&mut self, tables: &MapState, remote: bool, now: Instant) -> SweepRequest {
        let mut job = SweepRequest::default();
        if self.busy {
            return job;
        }
        let is_gone = |owner: &BackendRef| {
            let entry = tables.backends().get(&owner.backend).map(|entry| &entry.backend);
            entry.is_some_and(|it| it.generation == owner.generation && it.state == BackendState::GONE)
        };
        // What was not carried out is planned, and so noted, again.
        self.gone.retain(|owner, leaving| is_gone(owner) && leaving.looks < 2);
        for (owner, leaving) in self.gone.iter_mut().filter(|(_, leaving)| leaving.at.is_none_or(|at| at <= now)) {
            leaving.looks += 1;
            leaving.at = Some(now + SECOND_LOOK);
            job.gone.insert(*owner, leaving.gone);
        }
        if !self.is_free(now) {
            return job;
        }
        if self.census_at.is_none_or(|at| at <= now) {
            job.census = true;
            self.census_at = Some(now + CENSUS);
        }
        if remote && self.remote_at.is_none_or(|at| at <= now) {
            job.remote = true;
            self.remote_at = Some(now + REMOTE);
        }
        if self.idle_at.is_none_or(|at| at <= now) {
            job.idle = idle(tables);
            let shortest = job.idle.values().filter_map(|idle| idle.bound()).min().unwrap_or(IDLE.1);
            self.idle_at = Some(now + (shortest / 4).clamp(IDLE.0, IDLE.1));
        }
        job
    }
}

/// Said before connections are pushed out.
fn crowded(ConntrackUsage { connections, capacity: room }: ConntrackUsage) -> Option<Warning> {
    (connections * 10 > room * 9).then(|| Warning {
        app: "clients on other machines".into(),
        reason: format!(
            "{connections} connections are kept, and {room} fit: those that are used least will break; start the agent with a \
             larger --max-remote-connections after `proxymatic detach`"
        ),
    })
}

/// Whether a service is known to be one of TCP. The kernel does not say of UDP sockets what they count as.
fn is_tcp(tables: &MapState, service: u32) -> bool {
    let frontend = tables.services().get(&service).and_then(|service| service.frontend);
    frontend.is_some_and(|frontend| frontend.protocol == PROTOCOL_TCP)
}

/// The backends of services whose connections may not be idle for ever.
fn idle(tables: &MapState) -> BTreeMap<BackendRef, Idle> {
    let mut idle = BTreeMap::new();
    for service in tables.services().values() {
        let bounds = Idle {
            client: Duration::from_millis(service.settings.idle_client_ms.into()),
            server: Duration::from_millis(service.settings.idle_server_ms.into()),
        };
        if bounds.bound().is_some() {
            let backends = service.backends.iter().filter_map(|id| Some((*id, tables.backends().get(id)?)));
            let owner = |(backend, entry): (u32, &crate::plan::BackendEntry)| BackendRef {
                backend,
                generation: entry.backend.generation,
            };
            idle.extend(backends.map(|backend| (owner(backend), bounds)));
        }
    }
    idle
}

impl<D: Dataplane> Agent<D> {
    /// Has done what is due.
    pub(super) fn sweep(&mut self, now: Instant) {
        if !self.helpers.sweeps() {
            return;
        }
        let mut job = self.sweeps.due(&self.tables, self.wishes.exposed != Exposed::None, now);
        // Whatever is bound from here on counts one more.
        if let Some(reach) = self.plane.listener_scope()
            && self.sweeps.is_free(now)
            && self.sweeps.listeners.is_due(now)
        {
            let asked = self.tables.services().keys().filter_map(|id| Some((*id, self.asked(*id)?))).collect();
            job.listeners = self.sweeps.listeners.begin(asked, now).then_some(reach);
        }
        if job.is_empty() {
            return;
        }
        if job.census {
            let (tables, plane) = (&self.tables, &self.plane);
            let owners = tables.backends().iter().filter(|(_, entry)| is_tcp(tables, entry.backend.service));
            let owners = owners.map(|(id, entry)| BackendRef { backend: *id, generation: entry.backend.generation });
            self.sweeps.backends.begin(owners.map(|owner| (owner, moment(plane.counts(owner.backend)))));
            let services = tables.services().keys().filter(|id| is_tcp(tables, **id));
            self.sweeps.services.begin(services.map(|id| (*id, moment(plane.service_counts(*id)))));
        }
        self.sweeps.busy = self.helpers.sweep(job);
    }

    /// Takes what came of it.
    pub(super) fn swept(&mut self, report: &SweepReport, now: Instant) {
        self.sweeps.busy = false;
        self.sweeps.rests_until = Some(now + report.took * SHARE);
        if self.sweeps.blind != report.limitation {
            if let Some(why) = &report.limitation {
                tracing::warn!("{why}");
            }
            self.sweeps.blind.clone_from(&report.limitation);
        }
        self.sweeps.remote = report.remote.or(self.sweeps.remote);
        for ((owner, why), ended) in &report.ended {
            let (backend, ended) = (self.describe_backend(owner.backend), ended);
            match why {
                DestroyReason::GoneBackend => {
                    tracing::info!("{backend} is gone: {ended} sockets that were connected to it were reset")
                }
                DestroyReason::Idle => {
                    tracing::info!("{backend}: {ended} connections were idle for too long, and were reset")
                }
            }
        }
        for ((owner, why), forgotten) in &report.forgotten {
            let why = match why {
                DestroyReason::GoneBackend => "is gone",
                DestroyReason::Idle => "idle for too long",
            };
            let backend = self.describe_backend(owner.backend);
            tracing::info!("{backend} ({why}): {forgotten} connections of clients on other machines were given up");
        }
        match &report.census {
            Some(census) => self.correct(census, now),
            None if report.limitation.is_some() => {
                self.sweeps.backends.give_up();
                self.sweeps.services.give_up();
            }
            None => {}
        }
        self.listened(report, now);
        // What came up meanwhile.
        self.sweep(now);
    }

    /// What is known of who listens on the port of a service; `None` where one of its own replicas may.
    fn asked(&self, id: u32) -> Option<ListenerCheck> {
        let service = self.tables.services().get(&id)?;
        let frontend = service.frontend.filter(|frontend| frontend.class == Class::HOST)?;
        let own = service.settings.features.has(Features::OWN_LISTENER);
        let hearing = self.plane.listener_seq(id).filter(|_| !own)?;
        Some(ListenerCheck { frontend, hearing })
    }

    fn listened(&mut self, report: &SweepReport, now: Instant) {
        let mut listeners = std::mem::take(&mut self.sweeps.listeners);
        if report.listening_ports.is_none() && report.limitation.is_none() && listeners.is_under_way() {
            // A process went away in the midst of it.
            listeners.soon(now);
        }
        for (service, bound) in listeners.end(report.listening_ports.as_ref(), |id| self.asked(id)) {
            self.plane.set_no_listener(service, bound);
        }
        self.sweeps.listeners = listeners;
    }

    fn correct(&mut self, census: &BTreeMap<BackendRef, u64>, now: Instant) {
        let (tables, plane) = (&self.tables, &self.plane);
        let is = |owner: &BackendRef| {
            tables.backends().get(&owner.backend).filter(|entry| entry.backend.generation == owner.generation)
        };
        let of_backends =
            self.sweeps.backends.end(census, |owner| Some(moment(is(&owner).map(|_| plane.counts(owner.backend))?)));
        let mut by_service: BTreeMap<u32, u64> = BTreeMap::new();
        for (owner, seen) in census {
            if let Some(entry) = is(owner) {
                *by_service.entry(entry.backend.service).or_default() += seen;
            }
        }
        let of_services = self
            .sweeps
            .services
            .end(&by_service, |id| tables.services().contains_key(&id).then(|| moment(plane.service_counts(id))));
        for (owner, by) in of_backends {
            tracing::info!(
                "{}: the count of open connections was {} off, and is corrected",
                self.describe_backend(owner.backend),
                by.abs()
            );
            self.plane.correct(owner.backend, by);
        }
        for (service, by) in of_services {
            self.plane.correct_service(service, by);
        }
        if self.sweeps.backends.suspects() || self.sweeps.services.suspects() {
            self.sweeps.census_at = Some(now + AGAIN);
        }
    }
}

const fn moment(counts: Counts) -> CounterSample {
    CounterSample { opened: counts.opened, closed: counts.closed }
}
