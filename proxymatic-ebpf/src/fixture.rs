//! Tables and a caller in plain memory, for the tests of this crate.

use core::cell::{Cell, RefCell};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    vec::Vec,
};

use proxymatic_common::{
    Address, Affinity, AffinityKey, Backend, BackendState, BackendStats, Cell64, Class, Config, CtEntry, CtEntryAtomic,
    Event, Families, FiveTuple, FragmentKey, FragmentPorts, Frontend, Interface, Loopback, PROTOCOL_TCP, Policy, Port,
    PortBit, Reason, Service, ServiceStats, Slot, SlotRange, SourceCgroup, SourceCode, SourceRangeKey,
};

use crate::{Caller, Connections, Draw, Flow, Listener, Seen, Stage, Tables};

pub(crate) mod wire;

/// Halves of connections by their tuples. Leaked, as long as a test runs: what a decision holds must not move.
pub(crate) type Halves = RefCell<BTreeMap<FiveTuple, &'static CtEntryAtomic>>;

/// One service, id 0, on port 1234 of TCP and UDP, as the agent would publish it.
pub(crate) struct Fixture {
    pub(crate) config: Config,
    pub(crate) addresses: BTreeMap<Address, Class>,
    pub(crate) service: Service,
    pub(crate) service_load: ServiceStats,
    pub(crate) heads: Vec<SlotRange>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) loads: Vec<BackendStats>,
    pub(crate) allowed: Vec<SourceRangeKey>,
    pub(crate) allowed_cgroups: BTreeSet<u64>,
    pub(crate) excluded: BTreeSet<u64>,
    /// Nanoseconds; moved by the tests.
    pub(crate) now: Cell<u64>,
    pub(crate) told: RefCell<Vec<Event>>,
    /// Connections that are open, and those that are not yet.
    pub(crate) open: Halves,
    pub(crate) handshakes: Halves,
    pub(crate) fragments: RefCell<BTreeMap<FragmentKey, FragmentPorts>>,
    pub(crate) interfaces: BTreeMap<u32, Interface>,
    pub(crate) answer_ports: RefCell<BTreeSet<(Port, u8)>>,
    /// How often it was looked for an open connection.
    pub(crate) looked: Cell<u32>,
    affinities: RefCell<BTreeMap<AffinityKey, Affinity>>,
    random: Cell<u64>,
    counts: RefCell<BTreeMap<Reason, u64>>,
}

impl Fixture {
    /// Backends 10.9.0.0, 10.9.0.1, ... with a slot for each unit of weight.
    pub(crate) fn with_weights(weights: &[u32]) -> Self {
        let backend = |(i, weight): (usize, &u32)| Backend {
            address: address(&std::format!("10.9.0.{i}")),
            port: Port::new(8000),
            families: Families::V4,
            state: BackendState::ACTIVE,
            weight: *weight,
            price: Backend::price(*weight),
            ..Backend::free(7)
        };
        let slot = |(i, weight): (usize, &u32)| std::vec![Slot::new(i as u32, 7); *weight as usize];
        let slots: Vec<Slot> = weights.iter().enumerate().flat_map(slot).collect();
        Self {
            config: Config { loopback: Loopback::HOST, host_netns: 1, ..Config::default() },
            addresses: BTreeMap::new(),
            service: Service::new(Policy::LEASTCONN, SourceCode::MARATHON),
            service_load: {
                let load = ServiceStats::default();
                load.reset();
                load
            },
            heads: std::vec![SlotRange::new(1, slots.len() as u32, 0).unwrap()],
            slots,
            backends: weights.iter().enumerate().map(backend).collect(),
            loads: weights.iter().map(|_| BackendStats::default()).collect(),
            allowed: Vec::new(),
            allowed_cgroups: BTreeSet::new(),
            excluded: BTreeSet::new(),
            now: Cell::new(1_000_000_000),
            told: RefCell::default(),
            open: Halves::default(),
            handshakes: Halves::default(),
            fragments: RefCell::default(),
            interfaces: BTreeMap::new(),
            answer_ports: RefCell::default(),
            looked: Cell::default(),
            affinities: RefCell::default(),
            random: Cell::new(88_172_645_463_325_252),
            counts: RefCell::default(),
        }
    }

    pub(crate) fn policy(mut self, policy: Policy) -> Self {
        self.service.policy = policy;
        self
    }

    pub(crate) fn address(mut self, text: &str, class: Class) -> Self {
        self.addresses.insert(address(text), class);
        self
    }

    /// The reasons counted so far.
    pub(crate) fn counted(&self) -> Vec<(Reason, u64)> {
        self.counts.borrow().iter().map(|(reason, n)| (*reason, *n)).collect()
    }

    pub(crate) fn pass(&self, seconds: f64) {
        self.now.set(self.now.get() + (seconds * 1e9) as u64);
    }
}

impl Tables for Fixture {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }
    fn ports(&self, word: u32) -> u64 {
        let bits = [6, 17].map(|protocol| PortBit::of(Port::new(1234), protocol).unwrap());
        bits.iter().filter(|bit| bit.word == word).map(|bit| bit.mask).sum()
    }
    fn class(&self, address: &Address) -> Option<Class> {
        self.addresses.get(address).copied()
    }
    fn frontend(&self, frontend: &Frontend) -> Option<u32> {
        (*frontend == Frontend::new(Class::HOST, Port::new(1234), frontend.protocol)).then_some(0)
    }
    fn service(&self, id: u32) -> Option<&Service> {
        (id == 0).then_some(&self.service)
    }
    fn service_load(&self, id: u32) -> Option<&ServiceStats> {
        (id == 0).then_some(&self.service_load)
    }
    fn head(&self, service: u32) -> SlotRange {
        self.heads.get(service as usize).copied().unwrap_or_default()
    }
    fn slot(&self, index: u32) -> Option<Slot> {
        self.slots.get(index as usize).copied()
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(id as usize)
    }
    fn load(&self, id: u32) -> Option<&BackendStats> {
        self.loads.get(id as usize)
    }
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinities.borrow().get(key).copied()
    }
    fn remember(&self, key: &AffinityKey, affinity: &Affinity) {
        self.affinities.borrow_mut().insert(*key, *affinity);
    }
    fn allows(&self, key: &SourceRangeKey) -> bool {
        // As the kernel's trie: the bits of an entry are those of the key.
        let bit = |of: &SourceRangeKey, at: u32| {
            let mut bytes = of.network.service.to_ne_bytes().to_vec();
            bytes.extend(of.network.address.v6_words().iter().flat_map(|word| word.to_ne_bytes()));
            bytes[at as usize / 8] >> (7 - at % 8) & 1
        };
        self.allowed.iter().any(|entry| (0..entry.prefix_len).all(|at| bit(entry, at) == bit(key, at)))
    }
    fn allows_cgroup(&self, key: &SourceCgroup) -> bool {
        key.service == 0 && self.allowed_cgroups.contains(&key.cgroup)
    }
    fn excludes(&self, cgroup: u64) -> bool {
        self.excluded.contains(&cgroup)
    }
    fn select(&self, service: u32, draw: Draw, hash: u64) -> Result<(u32, Reason), Reason> {
        crate::select(self, service, draw, hash)
    }
    fn look(&self, index: u32, draw: Draw) -> Seen {
        crate::look(self, index, draw)
    }
    fn random(&self) -> u32 {
        // xorshift64: the tests must be the same on every run.
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 32) as u32
    }
    fn now(&self) -> u64 {
        self.now.get()
    }
    fn raise(&self, cell: &Cell64, by: u64) {
        cell.add(by);
    }
    fn count(&self, reason: Reason) {
        *self.counts.borrow_mut().entry(reason).or_default() += 1;
    }
    fn tell(&self, event: &Event) -> bool {
        self.told.borrow_mut().push(*event);
        true
    }
}

impl Fixture {
    fn halves(&self, stage: Stage) -> &Halves {
        match stage {
            Stage::Handshake => &self.handshakes,
            Stage::Open => &self.open,
        }
    }
}

impl Connections for Fixture {
    fn connection(&self, key: &FiveTuple) -> Option<&CtEntryAtomic> {
        self.looked.set(self.looked.get() + 1);
        self.open.borrow().get(key).copied()
    }
    fn handshake(&self, key: &FiveTuple) -> Option<&CtEntryAtomic> {
        self.handshakes.borrow().get(key).copied()
    }
    fn put(&self, stage: Stage, key: &FiveTuple, half: &CtEntry, only_new: bool) -> bool {
        let mut halves = self.halves(stage).borrow_mut();
        if only_new && halves.contains_key(key) {
            return false;
        }
        let live = CtEntryAtomic {
            translated: half.translated,
            start: half.start,
            last_seen: Cell64::new(half.last_seen),
            state: Cell64::new(half.state),
            service: half.service,
            backend: half.backend,
            generation: half.generation,
            flags: half.flags,
        };
        halves.insert(*key, std::boxed::Box::leak(std::boxed::Box::new(live)));
        true
    }
    fn forget(&self, stage: Stage, key: &FiveTuple) -> bool {
        self.halves(stage).borrow_mut().remove(key).is_some()
    }
    fn locked<R>(&self, _: u64, change: impl FnOnce() -> R) -> Option<R> {
        Some(change())
    }
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(key).copied()
    }
    fn note_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        self.fragments.borrow_mut().insert(*key, *ports);
    }
    fn interface(&self, number: u32) -> Option<&Interface> {
        self.interfaces.get(&number)
    }
    fn answers_from(&self, port: Port, protocol: u8) -> bool {
        self.answer_ports.borrow().contains(&(port, protocol))
    }
    fn will_answer_from(&self, port: Port, protocol: u8) {
        self.answer_ports.borrow_mut().insert((port, protocol));
    }
}

/// A program in the host's namespace, with a socket that is bound to nothing.
#[derive(Clone, Copy)]
pub(crate) struct Someone {
    pub(crate) netns: u64,
    pub(crate) bound: Address,
    pub(crate) bound_port: u32,
    pub(crate) mark: u32,
    pub(crate) tgid: u32,
    /// From the one below the root to that of the process.
    pub(crate) cgroups: [u64; 2],
    pub(crate) listener: Listener,
    /// What [`Caller::listed`] says: the tests of `listed` itself ask the tables.
    pub(crate) listed: bool,
}

impl Default for Someone {
    fn default() -> Self {
        Self {
            netns: 1,
            bound: Address::ZERO,
            bound_port: 0,
            mark: 0,
            tgid: 77,
            cgroups: [40, 41],
            listener: Listener::None,
            listed: false,
        }
    }
}

impl Caller for Someone {
    fn netns(&self) -> u64 {
        self.netns
    }
    fn bound(&self) -> Address {
        self.bound
    }
    fn bound_port(&self) -> u32 {
        self.bound_port
    }
    fn mark(&self) -> u32 {
        self.mark
    }
    fn tgid(&self) -> u32 {
        self.tgid
    }
    fn cgroup(&self) -> u64 {
        self.cgroups[1]
    }
    fn ancestor(&self, level: u32) -> u64 {
        self.cgroups.get(level as usize - 1).copied().unwrap_or(0)
    }
    fn listed(&self, _: Option<u32>) -> bool {
        self.listed
    }
    fn listener(&self, _: &Address, _: Port, _: u8) -> Listener {
        self.listener
    }
}

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

pub(crate) fn flow(to: &str, port: u16) -> Flow {
    Flow::new(address(to), Port::new(port), PROTOCOL_TCP, Families::V4)
}
