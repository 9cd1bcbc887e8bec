//! The one loop: everything that can wake the agent is an [`Event`], and nothing else changes its state.

mod adopted_snapshot;
mod change_log;
mod desired_state;
mod drain;
mod drift;
mod ejection_events;
mod ejections;
mod event_bus;
mod global_settings;
mod listeners;
mod merge;
mod publish;
mod restore;
mod self_tests;
mod socket_sweeps;
mod state_persistence;
mod workers;

pub(crate) use desired_state::{Inputs, SelfTestService, SourceInput, desired_state, drained_in, is_full, parked_in};
pub use global_settings::GlobalSettings;
pub use publish::PATIENCE;
pub use restore::{Restored, SILENCE};
pub use self_tests::SelfTest;
pub use workers::WorkerHandles;

use self::{
    ejections::Ejections, event_bus::Subscribers, restore::RestoredSource, self_tests::SelfTestState,
    socket_sweeps::Sweeps, state_persistence::StatePersister,
};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use proxymatic_common::{AgentState, Class};
use tokio::sync::{mpsc, watch};

use crate::{
    backend_probe::Answered,
    dataplane::{Dataplane, Error},
    model::{Snapshot, Warning},
    plan::{Desired, MapState, Quarantine},
    sockets,
    source::{Report, SourceId},
    state::Drained,
    surface::{AgentStatus, Latencies, SourceStatus, Trouble},
};

/// Everything that can wake the agent.
#[derive(Debug)]
pub enum Event {
    /// A source has something to say.
    Source(Report),
    /// The addresses of this host, all of them.
    Addresses(BTreeSet<IpAddr>),
    /// What the hooks tell, in order.
    HookEvents(Vec<proxymatic_common::Event>),
    /// An ejected backend has answered.
    ProbeSucceeded(Answered),
    /// The sockets of this host have been looked through.
    SweepDone(Box<sockets::SweepReport>),
    /// What came of a self-test.
    SelfTestDone(Result<(), String>),
    /// What on this host is in the way of services, all of it.
    HostWarnings(Vec<Warning>),
    /// What cannot be done with interfaces, all of it.
    Interfaces(Vec<Warning>),
    /// What the sources say has been written down; `Err` is one sentence.
    StateSaved(Result<(), String>),
    /// Time has passed.
    Tick,
    /// The agent is to leave soon: it says so, and goes on until then.
    Drain,
    /// The agent is to leave. The data plane stays.
    Stop,
}

/// What one source said last.
#[derive(Debug)]
struct SourceState {
    snapshot: Option<Snapshot>,
    at: Option<Instant>,
    trouble: Option<Trouble>,
    restored: Option<RestoredSource>,
    /// How many attempts have failed.
    failures: u64,
}

/// The agent's state. Owns the data plane: the only caller of plan and of dataplane.
#[derive(Debug)]
pub struct Agent<D> {
    plane: D,
    /// What the maps hold, kept by following each write that was carried out.
    tables: MapState,
    /// What the maps are known to say. Nothing where the last plan was not carried out whole.
    settled: Desired,
    quarantine: Quarantine,
    /// Until they are told, those that the maps hold.
    addresses: BTreeSet<IpAddr>,
    addresses_told: bool,
    wishes: GlobalSettings,
    /// The ids of the cgroups that are named anywhere, by path, as last published.
    cgroups: BTreeMap<String, u64>,
    sources: BTreeMap<SourceId, SourceState>,
    warnings: Vec<Warning>,
    /// When the first event came.
    began: Option<Instant>,
    /// Why the last write was refused, and when to plan again.
    refused: Option<(String, Instant)>,
    state: AgentState,
    /// How long it took from a report of a source to the last write of it.
    published: Latencies,
    helpers: WorkerHandles,
    ejected: Ejections,
    /// Backends that are kept out of the slots.
    resting: BTreeSet<u32>,
    /// Backends that the operator drains, as last published.
    drained: BTreeSet<u32>,
    /// What was written down of those, of backends that the maps do not have yet.
    to_drain: BTreeSet<Drained>,
    /// By service, the cgroups of programs that have bound its port.
    bound: BTreeSet<(u32, u64)>,
    sweeps: Sweeps,
    tested: SelfTestState,
    host_warnings: Vec<Warning>,
    interfaces: Vec<Warning>,
    keeping: StatePersister,
    watchers: Subscribers,
}

impl<D: Dataplane> Agent<D> {
    /// Adopts what the maps hold. Nothing is written before every source has given a complete answer, or [`PATIENCE`]
    /// is over and one has.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn adopt(plane: D, sources: &[SourceId]) -> Result<Self, Error> {
        let tables = plane.tables()?;
        let hosts = tables.addresses().iter().filter(|(_, class)| **class == Class::HOST);
        let addresses = hosts.map(|(address, _)| IpAddr::from(*address)).collect();
        let heard = |source: &SourceId| {
            (*source, SourceState { snapshot: None, at: None, trouble: None, restored: None, failures: 0 })
        };
        Ok(Self {
            sweeps: Sweeps::adopt(&tables),
            plane,
            tables,
            settled: Desired::default(),
            quarantine: Quarantine::default(),
            addresses,
            addresses_told: false,
            wishes: GlobalSettings::default(),
            cgroups: BTreeMap::new(),
            sources: sources.iter().map(heard).collect(),
            warnings: Vec::new(),
            began: None,
            refused: None,
            state: AgentState::INITIALIZING,
            published: Latencies::default(),
            helpers: WorkerHandles::default(),
            ejected: Ejections::default(),
            resting: BTreeSet::new(),
            drained: BTreeSet::new(),
            to_drain: BTreeSet::new(),
            bound: BTreeSet::new(),
            tested: SelfTestState::default(),
            host_warnings: Vec::new(),
            interfaces: Vec::new(),
            keeping: StatePersister::default(),
            watchers: Subscribers::default(),
        })
    }

    /// With those who do what takes time.
    #[must_use]
    pub fn with(self, helpers: WorkerHandles) -> Self {
        Self { helpers, ..self }
    }

    /// With what the operator wishes for all services.
    #[must_use]
    pub fn wishing(self, wishes: GlobalSettings) -> Self {
        Self { wishes, ..self }
    }

    /// Takes events until one says stop. After each, `status` says how things are.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, status: watch::Sender<AgentStatus>) {
        while let Some(event) = events.recv().await {
            let now = Instant::now();
            let goes_on = self.handle(event, now);
            status.send_replace(self.status(now));
            if !goes_on {
                break;
            }
        }
    }

    /// Handles one event. False where it was the last.
    pub fn handle(&mut self, event: Event, now: Instant) -> bool {
        self.began.get_or_insert(now);
        match event {
            Event::Source(report) => self.heard(report, now),
            Event::Addresses(addresses) => {
                let first = !std::mem::replace(&mut self.addresses_told, true);
                if self.addresses != addresses {
                    tracing::info!("addresses of this host: {}", change_log::list(&addresses));
                    self.addresses = addresses;
                    self.publish(now);
                } else if first {
                    // Another version may have waited for this.
                    self.publish(now);
                }
            }
            Event::HookEvents(events) => self.told(&events, now),
            Event::ProbeSucceeded(who) => self.answered(who, now),
            Event::SweepDone(report) => self.swept(&report, now),
            Event::SelfTestDone(answer) => self.tested.end(answer, now),
            Event::HostWarnings(warnings) => warned(&mut self.host_warnings, warnings),
            Event::Interfaces(warnings) => warned(&mut self.interfaces, warnings),
            Event::StateSaved(outcome) => self.kept(outcome, now),
            Event::Tick => self.tick(now),
            Event::Drain => self.announce(AgentState::TERMINATING, false),
            Event::Stop => {
                self.keep_now(now);
                self.announce(AgentState::TERMINATING, false);
                return false;
            }
        }
        true
    }

    /// What the maps hold.
    pub const fn tables(&self) -> &MapState {
        &self.tables
    }

    /// The data plane.
    pub const fn plane(&self) -> &D {
        &self.plane
    }

    /// The data plane, to be brought into a state that only a kernel comes to.
    pub const fn plane_mut(&mut self) -> &mut D {
        &mut self.plane
    }

    fn heard(&mut self, report: Report, now: Instant) {
        match report {
            Report::Snapshot { source, snapshot, at } => {
                let Some(heard) = self.sources.get_mut(&source) else { return };
                if heard.trouble.take().is_some() {
                    tracing::info!("{source}: answers again");
                }
                change_log::log(source, heard.known(), &snapshot);
                if heard.snapshot.as_ref() != Some(&snapshot) {
                    self.keeping.changed();
                }
                heard.snapshot = Some(snapshot);
                heard.restored = None;
                heard.at = Some(at);
                if self.publish(now) {
                    self.published.note(now.elapsed());
                }
            }
            Report::Failed { source, url, reason, attempt, again_in } => {
                change_log::trouble(source, &reason, attempt, again_in);
                if let Some(heard) = self.sources.get_mut(&source) {
                    // Not every attempt is told of.
                    let known = heard.trouble.as_ref().map_or(0, |trouble| trouble.attempts);
                    heard.failures += u64::from(if attempt > known { attempt - known } else { attempt });
                    heard.trouble = Some(Trouble { url, reason, attempts: attempt });
                }
                if self.fall_back(now) {
                    self.publish(now);
                }
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        self.fall_back(now);
        self.keep(now);
        let again = match &self.refused {
            Some((_, again)) => now >= *again,
            // Enough may be known now that a source has been silent for so long.
            None => {
                self.state == AgentState::INITIALIZING
                    || self.named_cgroups() != self.cgroups
                    || self.wished_drained() != self.drained
            }
        };
        if again {
            self.publish(now);
        }
        let plane = &self.plane;
        for op in self.quarantine.release(&self.tables, |backend| plane.active(backend), now) {
            tracing::debug!("{op}");
            self.sweeps.leave(std::slice::from_ref(&op), &self.tables, now);
            if let Err(error) = self.write(&op) {
                // The next tick tries again. What else there is to do does not wait for that.
                tracing::error!("{error}");
                break;
            }
        }
        self.look_round(now);
        self.sweep(now);
        self.test(now);
        self.announce(self.state, false);
    }

    /// The ids of the cgroups that are named anywhere, as far as they are there now.
    fn named_cgroups(&self) -> BTreeMap<String, u64> {
        let snapshots = self.sources.values().filter_map(SourceState::known);
        let settings = snapshots.flat_map(|snapshot| snapshot.services.values()).map(|service| &service.settings);
        self.wishes.cgroups(settings, |path| self.plane.cgroup(path))
    }

    /// What only the agent knows.
    pub fn status(&self, now: Instant) -> AgentStatus {
        let source = |(source, heard): (&SourceId, &SourceState)| SourceStatus {
            source: source.to_string(),
            answered_s: heard.at.map(|at| now.saturating_duration_since(at).as_secs_f64()),
            trouble: heard.trouble.clone(),
            restored: heard.restored_from(self.began, now),
            failures: heard.failures,
        };
        let read = self.sources.values().filter_map(SourceState::known);
        let warnings = read.flat_map(|snapshot| &snapshot.warnings).chain(&self.warnings).cloned();
        let warnings = warnings.chain(self.sweeps.warnings()).chain(self.keeping.warning(now));
        let warnings: BTreeSet<_> =
            warnings.chain(self.host_warnings.iter().chain(&self.interfaces).cloned()).collect();
        AgentStatus {
            state: self.state.name().into(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            sources: self.sources.iter().map(source).collect(),
            warnings: warnings.into_iter().collect(),
            refused: self.refused.as_ref().map(|(reason, _)| reason.clone()),
            self_test: self.tested.status(now),
            ejected: self.out(now),
            remote_connections: self.sweeps.remote(),
            at: Some(now),
            published: self.published,
        }
    }
}

/// Takes what is in the way of services now in place of what was; what is new goes to the log.
fn warned(known: &mut Vec<Warning>, now: Vec<Warning>) {
    for new in now.iter().filter(|warning| !known.contains(warning)) {
        tracing::warn!("{}: {}", new.app, new.reason);
    }
    *known = now;
}
