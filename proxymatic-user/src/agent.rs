//! The one loop: everything that can wake the agent is an [`Event`], and nothing else changes its state.

mod adopted;
mod changes;
mod drift;
mod eject;
mod hear;
mod helpers;
mod listeners;
mod merge;
mod sweeps;
mod wishes;

pub use helpers::Helpers;
pub(crate) use merge::merge;
pub use wishes::Wishes;

use self::{eject::Ejected, sweeps::Sweeps};

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use proxymatic_common::AgentState;
use tokio::sync::{mpsc, watch};

use crate::{
    dataplane::{Dataplane, Error, Said},
    model::{Complaint, Snapshot},
    plan::{Desired, Quarantine, Tables, plan_changes},
    probe::Answered,
    sockets,
    source::{Report, SourceId},
    surface::{AgentStatus, Latencies, SourceStatus, Trouble},
};

/// How long the agent waits after the kernel refused a write before it plans again.
const RETRY: Duration = Duration::from_secs(1);

/// How long the agent waits for the first answer of every source before it publishes without those that are silent.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that can wake the agent.
#[derive(Debug)]
pub enum Event {
    /// A source has something to say.
    Source(Report),
    /// The addresses of this host, all of them.
    Addresses(BTreeSet<IpAddr>),
    /// What the hooks tell, in order.
    Kernel(Vec<proxymatic_common::Event>),
    /// An ejected backend has answered.
    Answered(Answered),
    /// The sockets of this host have been looked through.
    Swept(Box<sockets::Report>),
    /// Time has passed.
    Tick,
    /// The agent is to leave soon: it says so, and goes on until then.
    Leave,
    /// The agent is to leave. The data plane stays.
    Stop,
}

/// What one source said last.
#[derive(Debug)]
struct Heard {
    snapshot: Option<Snapshot>,
    at: Option<Instant>,
    trouble: Option<Trouble>,
    /// How many attempts have failed.
    failures: u64,
}

/// The agent's state. Owns the data plane: the only caller of plan and of dataplane.
#[derive(Debug)]
pub struct Agent<D> {
    plane: D,
    /// What the maps hold, kept by following each write that was carried out.
    tables: Tables,
    /// What the maps are known to say. Nothing where the last plan was not carried out whole.
    settled: Desired,
    quarantine: Quarantine,
    addresses: BTreeSet<IpAddr>,
    wishes: Wishes,
    /// The ids of the cgroups that are named anywhere, by path, as last published.
    cgroups: BTreeMap<String, u64>,
    sources: BTreeMap<SourceId, Heard>,
    complaints: Vec<Complaint>,
    /// When the first event came.
    began: Option<Instant>,
    /// Why the last write was refused, and when to plan again.
    refused: Option<(String, Instant)>,
    state: AgentState,
    /// How long it took from a report of a source to the last write of it.
    published: Latencies,
    helpers: Helpers,
    ejected: Ejected,
    /// Backends that are kept out of the slots.
    resting: BTreeSet<u32>,
    /// By service, the cgroups of programs that have bound its port.
    bound: BTreeSet<(u32, u64)>,
    sweeps: Sweeps,
}

impl<D: Dataplane> Agent<D> {
    /// Adopts what the maps hold. Nothing is written before every source has given a complete answer, or [`PATIENCE`]
    /// is over and one has.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub fn adopt(plane: D, sources: &[SourceId]) -> Result<Self, Error> {
        let tables = plane.tables()?;
        let heard = |source: &SourceId| (*source, Heard { snapshot: None, at: None, trouble: None, failures: 0 });
        Ok(Self {
            plane,
            tables,
            settled: Desired::default(),
            quarantine: Quarantine::default(),
            addresses: BTreeSet::new(),
            wishes: Wishes::default(),
            cgroups: BTreeMap::new(),
            sources: sources.iter().map(heard).collect(),
            complaints: Vec::new(),
            began: None,
            refused: None,
            state: AgentState::INITIALIZING,
            published: Latencies::default(),
            helpers: Helpers::default(),
            ejected: Ejected::default(),
            resting: BTreeSet::new(),
            bound: BTreeSet::new(),
            sweeps: Sweeps::default(),
        })
    }

    /// With those who do what takes time.
    #[must_use]
    pub fn with(self, helpers: Helpers) -> Self {
        Self { helpers, ..self }
    }

    /// With what the operator wishes for all services.
    #[must_use]
    pub fn wishing(self, wishes: Wishes) -> Self {
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
                if self.addresses != addresses {
                    tracing::info!("addresses of this host: {}", changes::list(&addresses));
                    self.addresses = addresses;
                    self.publish(now);
                }
            }
            Event::Kernel(events) => self.told(&events, now),
            Event::Answered(who) => self.answered(who, now),
            Event::Swept(report) => self.swept(&report, now),
            Event::Tick => self.tick(now),
            Event::Leave => self.announce(AgentState::TERMINATING, false),
            Event::Stop => {
                self.announce(AgentState::TERMINATING, false);
                return false;
            }
        }
        true
    }

    /// What the maps hold.
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// What the maps hold of a source, as if it had said so.
    pub fn adopted(&self, source: SourceId) -> Snapshot {
        adopted::adopted(&self.tables, source)
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
                changes::log(source, heard.snapshot.as_ref(), &snapshot);
                heard.snapshot = Some(snapshot);
                heard.at = Some(at);
                if self.publish(now) {
                    self.published.note(now.elapsed());
                }
            }
            Report::Trouble { source, url, reason, attempt, again_in } => {
                changes::trouble(source, &reason, attempt, again_in);
                if let Some(heard) = self.sources.get_mut(&source) {
                    // Not every attempt is told of.
                    let known = heard.trouble.as_ref().map_or(0, |trouble| trouble.attempts);
                    heard.failures += u64::from(if attempt > known { attempt - known } else { attempt });
                    heard.trouble = Some(Trouble { url, reason, attempts: attempt });
                }
            }
        }
    }

    /// Whether it is known well enough what the maps should say.
    fn knows_enough(&self, now: Instant) -> bool {
        let answered = self.sources.values().filter(|heard| heard.snapshot.is_some()).count();
        let waited = self.began.is_some_and(|began| now.saturating_duration_since(began) >= PATIENCE);
        answered == self.sources.len() || (waited && answered > 0)
    }

    /// Plans and carries out, once enough is known. Whether anything was written, and all of it.
    fn publish(&mut self, now: Instant) -> bool {
        if !self.knows_enough(now) {
            return false;
        }
        let said = self.sources.iter().map(|(source, heard)| (*source, heard.snapshot.as_ref())).collect();
        let (mut desired, conflicts) = merge(&said, &self.addresses, &self.tables);
        desired.resting.clone_from(&self.resting);
        self.cgroups = self.named_cgroups();
        let missing = self.wishes.put(&mut desired, self.cgroups.clone());
        let planned = plan_changes(&desired, &self.tables, &std::mem::take(&mut self.settled));
        self.sweeps.leave(&planned.ops, &self.tables, now);
        self.sweeps.listeners.added(&planned.ops, now);
        self.complaints = conflicts;
        self.complaints.extend(missing);
        self.complaints.extend(planned.complaints);
        self.refused = None;
        for op in &planned.ops {
            tracing::debug!("{op}");
            if let Err(error) = self.plane.apply(op) {
                // Every prefix of a plan serves every service: stopping here is safe.
                tracing::error!("{error}; planning again in {} s", RETRY.as_secs());
                self.refused = Some((error.to_string(), now + RETRY));
                return false;
            }
            self.tables.apply(op);
        }
        desired.services.retain(|key, _| !planned.unsettled.contains(key));
        self.settled = desired;
        self.announce(AgentState::OK, true);
        self.sweep(now);
        !planned.ops.is_empty()
    }

    fn tick(&mut self, now: Instant) {
        let again = match &self.refused {
            Some((_, again)) => now >= *again,
            // Enough may be known now that a source has been silent for so long.
            None => self.state == AgentState::INITIALIZING || self.named_cgroups() != self.cgroups,
        };
        if again {
            self.publish(now);
        }
        let plane = &self.plane;
        for op in self.quarantine.release(&self.tables, |backend| plane.active(backend), now) {
            tracing::debug!("{op}");
            match self.plane.apply(&op) {
                Ok(()) => self.tables.apply(&op),
                // The next tick tries again.
                Err(error) => return tracing::error!("{error}"),
            }
        }
        self.look_round(now);
        self.sweep(now);
        self.announce(self.state, false);
    }

    /// The ids of the cgroups that are named anywhere, as far as they are there now.
    fn named_cgroups(&self) -> BTreeMap<String, u64> {
        let snapshots = self.sources.values().filter_map(|heard| heard.snapshot.as_ref());
        let settings = snapshots.flat_map(|snapshot| snapshot.services.values()).map(|service| &service.settings);
        self.wishes.cgroups(settings, |path| self.plane.cgroup(path))
    }

    fn announce(&mut self, state: AgentState, synced: bool) {
        // Who is leaving stays so, whatever is published meanwhile.
        if self.state != AgentState::TERMINATING {
            self.state = state;
        }
        self.plane.announce(Said { agent: self.state, synced });
    }

    /// What only the agent knows.
    pub fn status(&self, now: Instant) -> AgentStatus {
        let source = |(source, heard): (&SourceId, &Heard)| SourceStatus {
            source: source.to_string(),
            answered_s: heard.at.map(|at| now.saturating_duration_since(at).as_secs_f64()),
            trouble: heard.trouble.clone(),
            failures: heard.failures,
        };
        let read = self.sources.values().filter_map(|heard| heard.snapshot.as_ref());
        let complaints = read.flat_map(|snapshot| &snapshot.complaints).chain(&self.complaints).cloned();
        let complaints: BTreeSet<_> = complaints.chain(self.sweeps.complaint()).collect();
        AgentStatus {
            state: self.state.name().into(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            sources: self.sources.iter().map(source).collect(),
            complaints: complaints.into_iter().collect(),
            refused: self.refused.as_ref().map(|(reason, _)| reason.clone()),
            at: Some(now),
            published: self.published,
        }
    }
}
