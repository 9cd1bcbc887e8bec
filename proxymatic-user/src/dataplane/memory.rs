//! The data plane's twin in memory, for tests without a kernel: the same writes, and faults on request.

use std::{collections::BTreeMap, time::Duration};

use super::{AgentReport, Counts, Dataplane, Error, ListenerScope, ListenerSeq};
use crate::plan::{Capacity, MapOp, MapState};

/// Fails about one write in so many.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// How many writes there are to one fault; 0 for none.
    pub one_in: u64,
    /// Where the sequence starts, so that a test is the same each time.
    pub seed: u64,
}

/// Tables that follow writes, without a kernel.
#[derive(Clone, Debug)]
pub struct Memory {
    tables: MapState,
    /// How often a write is refused from here on.
    pub faults: Faults,
    /// Whether the agent has ever said that a complete answer was applied.
    pub complete: bool,
    /// How many writes were refused.
    pub refused: u64,
    /// The last thing the agent said.
    pub said: Option<AgentReport>,
    /// The writes that were carried out.
    pub applied: Vec<MapOp>,
    /// How often connections were to go by these tables from then on.
    pub served: u32,
    /// The cgroups there are.
    pub cgroups: BTreeMap<String, u64>,
    /// What is counted of backends. Ejections here do not pass with time.
    pub counts: BTreeMap<u32, Counts>,
    /// What is counted of services.
    pub service_counts: BTreeMap<u32, Counts>,
    /// Where the hooks would ask for listeners.
    pub reach: Option<ListenerScope>,
    /// What is known of who listens on the ports of services.
    pub hearing: BTreeMap<u32, ListenerSeq>,
    /// The backends that the operator drains: id and generation.
    pub drained: BTreeMap<u32, u32>,
}

impl Memory {
    /// Empty tables.
    pub fn new(capacity: Capacity, faults: Faults) -> Self {
        Self {
            tables: MapState::new(capacity),
            faults,
            complete: false,
            refused: 0,
            said: None,
            applied: Vec::new(),
            served: 0,
            cgroups: BTreeMap::new(),
            counts: BTreeMap::new(),
            service_counts: BTreeMap::new(),
            reach: None,
            hearing: BTreeMap::new(),
            drained: BTreeMap::new(),
        }
    }

    fn fault(&mut self) -> bool {
        // xorshift64: good enough to spread faults, and the same on every run.
        let mut x = self.faults.seed | 1;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.faults.seed = x;
        self.faults.one_in != 0 && x.is_multiple_of(self.faults.one_in)
    }
}

impl Dataplane for Memory {
    fn tables(&self) -> Result<MapState, Error> {
        Ok(self.tables.clone())
    }

    fn is_complete(&self) -> bool {
        self.complete
    }

    fn apply(&mut self, op: &MapOp) -> Result<(), Error> {
        if self.fault() {
            self.refused += 1;
            return Err(Error::Kernel { action: op.to_string(), reason: "injected fault".into() });
        }
        self.tables.apply(op);
        if let MapOp::ResetServiceLoad(id) = op {
            self.hearing.insert(*id, ListenerSeq { bound: 1, unheard: 0 });
        }
        self.applied.push(op.clone());
        Ok(())
    }

    fn cgroup(&self, path: &str) -> Option<u64> {
        self.cgroups.get(path).copied()
    }

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
        self.reach
    }

    fn listener_seq(&self, service: u32) -> Option<ListenerSeq> {
        self.hearing.get(&service).copied()
    }

    fn set_no_listener(&mut self, service: u32, bound: u64) {
        if let Some(hearing) = self.hearing.get_mut(&service) {
            hearing.unheard = bound;
        }
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

    fn publish_status(&mut self, said: AgentReport) {
        self.complete |= said.synced;
        self.said = Some(said);
    }

    fn take_over(&mut self) -> Result<(), Error> {
        if self.fault() {
            return Err(Error::Kernel { action: "attach".into(), reason: "injected fault".into() });
        }
        self.served += 1;
        Ok(())
    }
}

fn correct(counts: &mut Counts, by: i64) {
    let count = if by > 0 { &mut counts.opened } else { &mut counts.closed };
    *count += by.unsigned_abs();
}
