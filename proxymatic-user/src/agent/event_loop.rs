//! The event loop: routes each event to the parts of the agent, and carries out the effects that they return.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use proxymatic_common::AgentState;
use tokio::{
    sync::{mpsc, watch},
    time::timeout_at,
};

use super::{
    desired_state::{Inputs, desired_state},
    drains::Drains,
    effect::{Effect, Trigger},
    ejections::Ejections,
    event::Event,
    event_bus::Subscribers,
    first_answers::FirstAnswers,
    global_settings::GlobalSettings,
    host::Host,
    listeners::Listeners,
    netns_reads::NetnsReads,
    publish::Publisher,
    self_tests::SelfTests,
    sources::Sources,
    state_persistence::StatePersister,
    status::AgentStatus,
    sweeps::Sweeps,
    workers::WorkerHandles,
};
use crate::{
    dataplane::{AgentReport, Dataplane, Error},
    plan::{Exposed, MapState, Plan},
    sockets::SweepRequest,
    source::{Report, SourceId},
    state::Job,
};

/// The agent. It owns the data plane and the parts that hold all other state; nothing else plans or writes to maps.
#[derive(Debug)]
pub struct Agent<D> {
    pub(super) plane: D,
    /// What the maps hold: read once, and updated with each write.
    pub(super) map_state: MapState,
    pub(super) state: AgentState,
    pub(super) settings: GlobalSettings,
    pub(super) sources: Sources,
    pub(super) host: Host,
    pub(super) drains: Drains,
    pub(super) ejections: Ejections,
    pub(super) first_answers: FirstAnswers,
    pub(super) listeners: Listeners,
    pub(super) netns_reads: NetnsReads,
    pub(super) sweeps: Sweeps,
    pub(super) self_tests: SelfTests,
    pub(super) persister: StatePersister,
    pub(super) publisher: Publisher,
    pub(super) subscribers: Subscribers,
    pub(super) workers: WorkerHandles,
}

impl<D: Dataplane> Agent<D> {
    /// Adopts what the maps hold. The agent writes nothing before every source has given a complete answer, or one has and
    /// [`PATIENCE`](super::PATIENCE) is over.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn adopt(plane: D, sources: &[SourceId]) -> Result<Self, Error> {
        let map_state = plane.tables()?;
        Ok(Self {
            host: Host::adopt(&map_state),
            sweeps: Sweeps::adopt(&map_state),
            plane,
            map_state,
            state: AgentState::INITIALIZING,
            settings: GlobalSettings::default(),
            sources: Sources::new(sources),
            drains: Drains::default(),
            ejections: Ejections::default(),
            first_answers: FirstAnswers::new(Duration::ZERO, 0),
            listeners: Listeners::default(),
            netns_reads: NetnsReads::default(),
            self_tests: SelfTests::default(),
            persister: StatePersister::default(),
            publisher: Publisher::default(),
            subscribers: Subscribers::default(),
            workers: WorkerHandles::default(),
        })
    }

    /// Handles events until [`Event::Stop`]. After each event it sends the status.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, status: watch::Sender<AgentStatus>) {
        while let Some(event) = next_event(self.wake_at(), &mut events).await {
            let now = Instant::now();
            let goes_on = self.handle(event, now);
            status.send_replace(self.status(now));
            if !goes_on {
                break;
            }
        }
    }

    /// Returns when the agent must handle [`Event::Wake`]; `None` if it waits for nothing.
    pub fn wake_at(&self) -> Option<Instant> {
        self.first_answers.wake_at()
    }

    /// Handles one event. Returns false if it was the last.
    pub fn handle(&mut self, event: Event, now: Instant) -> bool {
        self.sources.start(now);
        let effects = match event {
            Event::Source(report) => {
                if let Report::Snapshot { source, snapshot, .. } = &report {
                    let maps = self.plane.is_serving().then_some(&self.map_state);
                    let before = self.sources.before(*source, maps);
                    self.first_answers.listed(*source, snapshot, before, now);
                }
                self.sources.report(report, now)
            }
            Event::LinksChanged => self.netns_reads.changed(&self.map_state, now),
            Event::Addresses(addresses) => {
                let mut effects = self.host.set_addresses(addresses);
                effects.extend(self.netns_reads.changed(&self.map_state, now));
                effects
            }
            Event::HookEvents(events) => {
                self.subscribers.hook_events(&events, &self.map_state);
                self.listeners.hook_events(&events, &self.map_state, self.plane.listener_scope(), now);
                let mut effects = self.netns_reads.hook_events(&events, now);
                effects.extend(self.ejections.hook_events(&events, &self.map_state, now));
                effects
            }
            Event::ProbeSucceeded(answered) => self.ejections.answered(answered, &self.map_state, now),
            Event::Probed(probed) => self.first_answers.probed(probed, now),
            Event::Wake => self.first_answers.wake(now),
            Event::SweepDone(report) => {
                let mut effects = self.sweeps.swept(&report, &self.map_state, &self.plane, now);
                effects.extend(self.listeners.swept(&report, &self.map_state, &self.plane, now));
                self.carry_out(effects, now);
                if self.listeners.end_first_look() {
                    vec![Effect::Publish(Trigger::Other)]
                } else {
                    // Requests that came up during the sweep.
                    self.begin_sweep(now).into_iter().collect()
                }
            }
            Event::SelfTestDone(result) => {
                self.self_tests.end(result, now);
                Vec::new()
            }
            Event::HostWarnings(warnings) => {
                self.host.set_warnings(warnings);
                Vec::new()
            }
            Event::Interfaces(warnings) => {
                self.host.set_interface_warnings(warnings);
                Vec::new()
            }
            Event::StateSaved(result) => {
                self.persister.end(result, now);
                Vec::new()
            }
            Event::Tick => {
                self.tick(now);
                Vec::new()
            }
            Event::Drain => {
                self.report(AgentState::TERMINATING, false);
                Vec::new()
            }
            Event::Stop => {
                self.save(now);
                self.report(AgentState::TERMINATING, false);
                return false;
            }
        };
        self.carry_out(effects, now);
        true
    }

    fn tick(&mut self, now: Instant) {
        self.sources.use_restored(now);
        if self.persister.is_due(now) {
            self.save(now);
        }
        if self.is_publish_due(now) {
            self.carry_out(vec![Effect::Publish(Trigger::Other)], now);
        }
        let sweeps = &mut self.sweeps;
        self.publisher.release(&mut self.plane, &mut self.map_state, now, |op, map_state| {
            sweeps.planned(std::slice::from_ref(op), map_state, now);
        });
        self.listeners.forget_gone(&self.map_state);
        let mut effects = self.ejections.check_all(&self.map_state, &self.plane, now);
        effects.extend(self.netns_reads.tick(&self.map_state, now));
        self.carry_out(effects, now);
        let effects = self.begin_sweep(now).into_iter().chain(self.begin_self_test(now)).collect();
        self.carry_out(effects, now);
        self.report(self.state, false);
    }

    /// Carries out effects, and those that come of them.
    fn carry_out(&mut self, effects: Vec<Effect>, now: Instant) {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            match effect {
                Effect::Publish(trigger) => queue.extend(self.publish(trigger, now)),
                Effect::Eject(backend, time) => self.plane.eject(backend, time),
                Effect::Readmit(backend, out) => {
                    self.plane.readmit(backend);
                    self.subscribers.readmitted(&self.map_state, backend, out);
                }
                Effect::CorrectBackend(backend, by) => self.plane.correct(backend, by),
                Effect::CorrectService(service, by) => self.plane.correct_service(service, by),
                Effect::SetNoListener(service, bind_seq) => self.plane.set_no_listener(service, bind_seq),
                Effect::PublishListener(key, entry) => self.plane.publish_listener(key, entry),
                Effect::Drain(backend, generation) => self.plane.drain(backend, generation),
                Effect::Probe(order) => self.workers.probe(order),
                Effect::Sweep(request) => {
                    if !self.workers.sweep(request) {
                        self.sweeps.not_begun();
                    }
                }
                Effect::ReadNetns => self.workers.read_netns(),
                Effect::SelfTest => {
                    if !self.workers.test() {
                        self.self_tests.not_started();
                    }
                }
                Effect::SaveSoon => self.persister.changed(),
            }
        }
    }

    /// Returns whether a refused write is to be tried again, or an input that sends no event has changed.
    fn is_publish_due(&self, now: Instant) -> bool {
        match self.publisher.retry_at() {
            Some(retry_at) => now >= retry_at,
            // While INITIALIZING, enough may be known by now without a source that is silent.
            None => {
                self.state == AgentState::INITIALIZING
                    || self.named_cgroups() != *self.publisher.cgroups()
                    || self.drains.have_changed(&self.map_state, &self.plane.drained())
            }
        }
    }

    /// Plans the desired state and applies the writes, once enough is known. Returns further effects.
    fn publish(&mut self, trigger: Trigger, now: Instant) -> Vec<Effect> {
        let enough = self.sources.enough_answered(now);
        if !enough && !self.sources.uses_restored() {
            return Vec::new();
        }
        // Listeners that are older than the agent keep their ports from the first service on.
        let scope = self.plane.listener_scope().filter(|_| self.workers.can_sweep());
        let (waits, begun) = self.listeners.first_look(&self.map_state, scope, self.sweeps.is_idle(), now);
        if waits {
            let request = begun.map(|scope| SweepRequest { listeners: Some(scope), ..SweepRequest::default() });
            return request.map(|request| self.sweep(request)).into_iter().collect();
        }
        let update = self.drains.update(&self.map_state, &self.plane.drained());
        update.gone.into_iter().for_each(|backend| self.plane.forget_drained(backend));
        if update.changed {
            self.persister.changed();
        }
        let (desired, warnings) = desired_state(Inputs {
            sources: self.sources.inputs(),
            addresses: self.host.addresses(),
            map_state: &self.map_state,
            settings: &self.settings,
            cgroups: self.named_cgroups(),
            self_test: self.self_tests.service(),
            drained: self.drains.drained().clone(),
            parked: self.ejections.parked().clone(),
            first_answers: Some(&self.first_answers),
        });
        let Plan { ops, incomplete, .. } = self.publisher.plan(&desired, warnings, &self.map_state);
        self.sweeps.planned(&ops, &self.map_state, now);
        let effects = self.listeners.planned(&ops, now);
        self.carry_out(effects, now);
        let changes = self.subscribers.state_changes(&ops, &self.map_state);
        if !self.publisher.apply(&ops, &mut self.plane, &mut self.map_state, now) {
            return Vec::new();
        }
        let mut pending = self.drains.apply_pending(&self.map_state, self.sources.all_answered());
        if !pending.is_empty() {
            pending.push(Effect::Publish(trigger));
            return pending;
        }
        // Before that, only the version that is to be replaced may know what a silent source last answered.
        let complete = self.host.addresses_known() && self.sources.all_answered();
        if complete && !self.publisher.take_over(&mut self.plane, now) {
            return Vec::new();
        }
        self.publisher.set_applied(desired, &incomplete);
        let by_operator = |id| self.drains.drained().contains(&id);
        self.subscribers.applied(&self.map_state, ops.len(), &changes, by_operator);
        if enough {
            self.report(AgentState::OK, true);
        }
        self.workers.send_ports(&self.map_state);
        if trigger == Trigger::Answer && !ops.is_empty() {
            self.publisher.record_latency(now.elapsed());
        }
        let netns = self.netns_reads.tick(&self.map_state, now);
        self.begin_sweep(now).into_iter().chain(self.begin_self_test(now)).chain(netns).collect()
    }

    fn begin_sweep(&mut self, now: Instant) -> Option<Effect> {
        if !self.workers.can_sweep() {
            return None;
        }
        let mut request = self.sweeps.due(&self.map_state, self.settings.exposed != Exposed::None, now);
        if self.sweeps.is_free(now) {
            request.listeners = self.listeners.begin_if_due(&self.map_state, &self.plane, now);
        }
        if request.is_empty() {
            return None;
        }
        Some(self.sweep(request))
    }

    fn sweep(&mut self, request: SweepRequest) -> Effect {
        self.sweeps.begin(&request, &self.map_state, &self.plane);
        Effect::Sweep(request)
    }

    /// Begins a self-test if one is due. Its service is published like any other, so there is none before the agent is OK.
    fn begin_self_test(&mut self, now: Instant) -> Option<Effect> {
        let refused = self.publisher.refused().is_some();
        let services = self.publisher.services();
        if self.state == AgentState::OK { self.self_tests.start_if_due(services, refused, now) } else { None }
    }

    /// Has the state file written. Entries of sources that have not answered stay in the file.
    fn save(&mut self, now: Instant) {
        if !self.workers.can_save() {
            return;
        }
        let answers = self.sources.answers(now);
        // The worker refuses a job only if it has not begun the one before, which is as new as this one.
        if !answers.is_empty() && self.workers.save(Job { answers, drained: self.drains.by_name(&self.map_state) }) {
            self.persister.begin(now);
        }
    }

    /// Writes the agent's state and heartbeat to the maps. `synced` is whether a complete answer was just applied.
    fn report(&mut self, state: AgentState, synced: bool) {
        // TERMINATING stays, whatever is published meanwhile.
        if self.state != AgentState::TERMINATING {
            self.state = state;
        }
        self.plane.publish_status(AgentReport { agent: self.state, synced });
    }

    /// Returns the ids of the existing cgroups that are named anywhere, by path.
    fn named_cgroups(&self) -> BTreeMap<String, u64> {
        self.settings.cgroups(self.sources.settings(), |path| self.plane.cgroup(path))
    }

    /// Returns the status of the agent.
    pub fn status(&self, now: Instant) -> AgentStatus {
        let read = self.sources.snapshots().flat_map(|snapshot| &snapshot.warnings);
        let warnings = read.chain(self.publisher.warnings()).chain(self.host.warnings()).cloned();
        let warnings: BTreeSet<_> = warnings.chain(self.sweeps.warnings()).chain(self.persister.warning(now)).collect();
        AgentStatus {
            state: self.state.name().into(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            sources: self.sources.status(now),
            warnings: warnings.into_iter().collect(),
            refused: self.publisher.refused().map(ToOwned::to_owned),
            self_test: self.self_tests.status(now),
            ejected: self.ejections.status(&self.map_state, now),
            awaited: self.first_answers.status(&self.map_state, now),
            awaited_count: self.first_answers.count(),
            first_probes: self.first_answers.counts(),
            remote_connections: self.sweeps.remote_connections(),
            at: Some(now),
            published: self.publisher.latencies(),
        }
    }
}

/// Returns the next event: what is due comes first. `None` if there can be no more.
async fn next_event(wake_at: Option<Instant>, events: &mut mpsc::Receiver<Event>) -> Option<Event> {
    match wake_at {
        None => events.recv().await,
        Some(at) if at <= Instant::now() => Some(Event::Wake),
        Some(at) => timeout_at(at.into(), events.recv()).await.unwrap_or(Some(Event::Wake)),
    }
}
