//! A data plane in memory, for tests without a kernel. It applies the same writes, and refuses some on request.

use std::{collections::BTreeMap, time::Duration};

use proxymatic_common::{ListenerEntry, ListenerKey};

use super::{AgentReport, Counters, Counts, Error, ListenerScope, ListenerSeq, MapWriter, Takeover};
use crate::plan::{Capacity, MapOp, MapState};

/// How often writes are refused.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// About one write in this many is refused; 0 for none.
    pub one_in: u64,
    /// The start of the random sequence, so that a test is the same each time.
    pub seed: u64,
}

/// A data plane in memory.
#[derive(Clone, Debug)]
pub struct Memory {
    map_state: MapState,
    /// How often writes are refused from now on.
    pub faults: Faults,
    /// Whether the agent has ever reported that a complete answer was applied.
    pub complete: bool,
    /// How many writes were refused.
    pub refused: u64,
    /// The agent's last report.
    pub report: Option<AgentReport>,
    /// The writes that were carried out.
    pub applied: Vec<MapOp>,
    /// How often the agent took over.
    pub takeovers: u32,
    /// The ids of the cgroups that exist, by path.
    pub cgroups: BTreeMap<String, u64>,
    /// The counters of backends. Ejections do not end with time here.
    pub counts: BTreeMap<u32, Counts>,
    /// The counters of services.
    pub service_counts: BTreeMap<u32, Counts>,
    /// Where the hooks look for listeners.
    pub scope: Option<ListenerScope>,
    /// What is known of listeners on the ports of services.
    pub listener_seqs: BTreeMap<u32, ListenerSeq>,
    /// The listeners of the host that are published for the hooks.
    pub listeners: BTreeMap<ListenerKey, ListenerEntry>,
    /// The backends that the operator drains: id and generation.
    pub drained: BTreeMap<u32, u32>,
}

impl Memory {
    /// Returns empty maps.
    pub fn new(capacity: Capacity, faults: Faults) -> Self {
        Self {
            map_state: MapState::new(capacity),
            faults,
            complete: false,
            refused: 0,
            report: None,
            applied: Vec::new(),
            takeovers: 0,
            cgroups: BTreeMap::new(),
            counts: BTreeMap::new(),
            service_counts: BTreeMap::new(),
            scope: None,
            listener_seqs: BTreeMap::new(),
            listeners: BTreeMap::new(),
            drained: BTreeMap::new(),
        }
    }

    fn fault(&mut self) -> bool {
        let mut random = fastrand::Rng::with_seed(self.faults.seed);
        let fails = self.faults.one_in != 0 && random.u64(..self.faults.one_in) == 0;
        self.faults.seed = random.get_seed();
        fails
    }
}

impl MapWriter for Memory {
    fn tables(&self) -> Result<MapState, Error> {
        Ok(self.map_state.clone())
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn apply(&mut self, op: &MapOp) -> Result<(), Error> {
        if self.fault() {
            self.refused += 1;
            return Err(Error::Kernel { action: op.to_string(), reason: "injected fault".into() });
        }
        self.map_state.apply(op);
        if let MapOp::ResetServiceLoad(id) = op {
            self.listener_seqs.insert(*id, ListenerSeq { bind_seq: 1, no_listener_seq: 0 });
        }
        self.applied.push(op.clone());
        Ok(())
    }

    fn cgroup(&self, path: &str) -> Option<u64> {
        self.cgroups.get(path).copied()
    }

    fn drained(&self) -> BTreeMap<u32, u32> {
        self.drained.clone()
    }

    fn drain(&mut self, backend: u32, generation: u32) {
        self.drained.insert(backend, generation);
    }

    fn forget_drained(&mut self, backend: u32) {
        self.drained.remove(&backend);
    }
}

impl Counters for Memory {
    fn active(&self, backend: u32) -> u64 {
        let counts = self.counts(backend);
        counts.opened.saturating_sub(counts.closed)
    }

    fn counts(&self, backend: u32) -> Counts {
        self.counts.get(&backend).copied().unwrap_or_default()
    }

    fn service_counts(&self, service: u32) -> Counts {
        self.service_counts.get(&service).copied().unwrap_or_default()
    }

    fn eject(&mut self, backend: u32, time: Duration) {
        self.counts.entry(backend).or_default().ejected = time;
    }

    fn readmit(&mut self, backend: u32) {
        self.counts.entry(backend).or_default().ejected = Duration::ZERO;
    }

    fn correct(&mut self, backend: u32, by: i64) {
        correct(self.counts.entry(backend).or_default(), by);
    }

    fn correct_service(&mut self, service: u32, by: i64) {
        correct(self.service_counts.entry(service).or_default(), by);
    }

    fn listener_scope(&self) -> Option<ListenerScope> {
        self.scope
    }

    fn listener_seq(&self, service: u32) -> Option<ListenerSeq> {
        self.listener_seqs.get(&service).copied()
    }

    fn set_no_listener(&mut self, service: u32, bind_seq: u64) {
        if let Some(seq) = self.listener_seqs.get_mut(&service) {
            seq.no_listener_seq = bind_seq;
        }
    }

    fn published_listeners(&self) -> BTreeMap<ListenerKey, ListenerEntry> {
        self.listeners.clone()
    }

    fn publish_listener(&mut self, key: ListenerKey, entry: Option<ListenerEntry>) {
        match entry {
            Some(entry) => self.listeners.insert(key, entry),
            None => self.listeners.remove(&key),
        };
    }
}

impl Takeover for Memory {
    fn publish_status(&mut self, report: AgentReport) {
        self.complete |= report.synced;
        self.report = Some(report);
    }

    fn take_over(&mut self) -> Result<(), Error> {
        if self.fault() {
            return Err(Error::Kernel { action: "attach".into(), reason: "injected fault".into() });
        }
        self.takeovers += 1;
        Ok(())
    }
}

fn correct(counts: &mut Counts, by: i64) {
    let count = if by > 0 { &mut counts.opened } else { &mut counts.closed };
    *count += by.unsigned_abs();
}
