//! Tables of one service, in memory.

use core::cell::{Cell, RefCell};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    vec::Vec,
};

use proxymatic_common::{
    Address, Affinity, AffinityKey, Backend, BackendState, BackendStats, Cell64, Class, Config, CtEntry, CtEntryAtomic,
    DirectPeer, Event, Families, FiveTuple, FragmentKey, FragmentPorts, Frontend, Interface, ListenerEntry,
    ListenerKey, Loopback, NetnsAddresses, PROTOCOL_TCP, Policy, Port, PortBit, Reason, Service, ServiceStats, Slot,
    SlotRange, SourceCgroup, SourceCode, SourceRangeKey,
};

use crate::{
    data_plane::{Conntrack, Tables},
    packet_ctx::CtTable,
    testing::{FakeEnvironment, InMemory},
    types::Flow,
};

/// Entries by their tuples. They are leaked, since a decision may hold a reference while the table changes.
pub(crate) type Entries = RefCell<BTreeMap<FiveTuple, &'static CtEntryAtomic>>;

/// One service with id 0 on port 1234 of TCP and UDP, as the agent would publish it.
pub(crate) struct FakeTables {
    pub(crate) config: Config,
    pub(crate) addresses: BTreeMap<Address, Class>,
    pub(crate) service: Service,
    pub(crate) service_stats: ServiceStats,
    pub(crate) slot_ranges: Vec<SlotRange>,
    pub(crate) slots: Vec<Slot>,
    pub(crate) backends: Vec<Backend>,
    pub(crate) backend_stats: Vec<BackendStats>,
    pub(crate) allowed: Vec<SourceRangeKey>,
    pub(crate) allowed_cgroups: BTreeSet<u64>,
    pub(crate) netns: BTreeMap<u64, NetnsAddresses>,
    pub(crate) excluded: BTreeSet<u64>,
    pub(crate) environment: FakeEnvironment,
    /// Established and half-open connections.
    pub(crate) established: Entries,
    pub(crate) half_open: Entries,
    pub(crate) fragments: RefCell<BTreeMap<FragmentKey, FragmentPorts>>,
    pub(crate) interfaces: BTreeMap<u32, Interface>,
    pub(crate) local_reply_ports: RefCell<BTreeSet<(Port, u8)>>,
    pub(crate) listeners: RefCell<BTreeMap<ListenerKey, ListenerEntry>>,
    pub(crate) direct_peers: RefCell<BTreeMap<DirectPeer, u64>>,
    /// How many lookups of established connections there were.
    pub(crate) conntrack_lookups: Cell<u32>,
    affinities: RefCell<BTreeMap<AffinityKey, Affinity>>,
}

impl FakeTables {
    /// Makes backends 10.9.0.0, 10.9.0.1, ..., each with one slot per unit of weight.
    pub(crate) fn with_weights(weights: &[u32]) -> Self {
        let backend = |(i, weight): (usize, &u32)| Backend {
            address: address(&std::format!("10.9.0.{i}")),
            port: Port::new(8000),
            families: Families::V4,
            state: BackendState::ACTIVE,
            weight: *weight,
            inverse_weight: Backend::inverse_weight(*weight),
            ..Backend::free(7)
        };
        let slot = |(i, weight): (usize, &u32)| std::vec![Slot::new(i as u32, 7); *weight as usize];
        let slots: Vec<Slot> = weights.iter().enumerate().flat_map(slot).collect();
        Self {
            config: Config { loopback: Loopback::HOST, host_netns: 1, ..Config::default() },
            addresses: BTreeMap::new(),
            service: Service::new(Policy::LEASTCONN, SourceCode::MARATHON),
            service_stats: {
                let load = ServiceStats::default();
                load.reset();
                load
            },
            slot_ranges: std::vec![SlotRange::new(1, slots.len() as u32, 0).unwrap()],
            slots,
            backends: weights.iter().enumerate().map(backend).collect(),
            backend_stats: weights.iter().map(|_| BackendStats::default()).collect(),
            allowed: Vec::new(),
            allowed_cgroups: BTreeSet::new(),
            netns: BTreeMap::new(),
            excluded: BTreeSet::new(),
            environment: FakeEnvironment::new(88_172_645_463_325_253),
            established: Entries::default(),
            half_open: Entries::default(),
            fragments: RefCell::default(),
            interfaces: BTreeMap::new(),
            local_reply_ports: RefCell::default(),
            listeners: RefCell::default(),
            direct_peers: RefCell::default(),
            conntrack_lookups: Cell::default(),
            affinities: RefCell::default(),
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

    /// Returns the reasons that were counted.
    pub(crate) fn counted(&self) -> Vec<(Reason, u64)> {
        self.environment.counted()
    }

    /// Returns the events that were emitted.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.environment.events()
    }

    /// Advances the clock.
    pub(crate) fn pass(&self, seconds: f64) {
        self.environment.advance(seconds);
    }
}

impl Tables for FakeTables {
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
    fn service_stats(&self, id: u32) -> Option<&ServiceStats> {
        (id == 0).then_some(&self.service_stats)
    }
    fn slot_range(&self, service: u32) -> SlotRange {
        self.slot_ranges.get(service as usize).copied().unwrap_or_default()
    }
    fn slot(&self, index: u32) -> Option<Slot> {
        self.slots.get(index as usize).copied()
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(id as usize)
    }
    fn backend_stats(&self, id: u32) -> Option<&BackendStats> {
        self.backend_stats.get(id as usize)
    }
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinities.borrow().get(key).copied()
    }
    fn save_affinity(&self, key: &AffinityKey, affinity: &Affinity) {
        self.affinities.borrow_mut().insert(*key, *affinity);
    }
    fn source_allowed(&self, key: &SourceRangeKey) -> bool {
        // Compares bits as the kernel's trie does.
        let bit = |of: &SourceRangeKey, at: u32| {
            let mut bytes = of.network.service.to_ne_bytes().to_vec();
            bytes.extend(of.network.address.v6_words().iter().flat_map(|word| word.to_ne_bytes()));
            bytes[at as usize / 8] >> (7 - at % 8) & 1
        };
        self.allowed.iter().any(|entry| (0..entry.prefix_len).all(|at| bit(entry, at) == bit(key, at)))
    }
    fn netns_addresses(&self, netns: u64) -> Option<NetnsAddresses> {
        self.netns.get(&netns).copied()
    }
    fn cgroup_allowed(&self, key: &SourceCgroup) -> bool {
        key.service == 0 && self.allowed_cgroups.contains(&key.cgroup)
    }
    fn cgroup_excluded(&self, cgroup: u64) -> bool {
        self.excluded.contains(&cgroup)
    }
    fn listener(&self, key: &ListenerKey) -> Option<ListenerEntry> {
        self.listeners.borrow().get(key).copied()
    }
    fn save_listener(&self, key: &ListenerKey, entry: &ListenerEntry) {
        self.listeners.borrow_mut().insert(*key, *entry);
    }
    fn direct_peer(&self, peer: &DirectPeer) -> Option<u64> {
        self.direct_peers.borrow().get(peer).copied()
    }
    fn save_direct_peer(&self, peer: &DirectPeer, at: u64) {
        self.direct_peers.borrow_mut().insert(*peer, at);
    }
    fn add(&self, cell: &Cell64, by: u64) {
        cell.add(by);
    }
    fn count(&self, reason: Reason) {
        self.environment.count(reason);
    }
}

impl InMemory for FakeTables {
    fn environment(&self) -> &FakeEnvironment {
        &self.environment
    }
}

impl FakeTables {
    fn entries(&self, stage: CtTable) -> &Entries {
        match stage {
            CtTable::HalfOpen => &self.half_open,
            CtTable::Established => &self.established,
        }
    }
}

impl Conntrack for FakeTables {
    fn established_entry(&self, key: &FiveTuple) -> Option<&CtEntryAtomic> {
        self.conntrack_lookups.set(self.conntrack_lookups.get() + 1);
        self.established.borrow().get(key).copied()
    }
    fn half_open(&self, key: &FiveTuple) -> Option<&CtEntryAtomic> {
        self.half_open.borrow().get(key).copied()
    }
    fn insert(&self, stage: CtTable, key: &FiveTuple, half: &CtEntry, only_new: bool) -> bool {
        let mut entries = self.entries(stage).borrow_mut();
        if only_new && entries.contains_key(key) {
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
        entries.insert(*key, std::boxed::Box::leak(std::boxed::Box::new(live)));
        true
    }
    fn remove(&self, stage: CtTable, key: &FiveTuple) -> bool {
        self.entries(stage).borrow_mut().remove(key).is_some()
    }
    fn with_lock<R>(&self, _: u64, change: impl FnOnce() -> R) -> Option<R> {
        Some(change())
    }
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        self.fragments.borrow().get(key).copied()
    }
    fn save_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        self.fragments.borrow_mut().insert(*key, *ports);
    }
    fn interface(&self, number: u32) -> Option<&Interface> {
        self.interfaces.get(&number)
    }
    fn is_local_reply_port(&self, port: Port, protocol: u8) -> bool {
        self.local_reply_ports.borrow().contains(&(port, protocol))
    }
    fn mark_local_reply_port(&self, port: Port, protocol: u8) {
        self.local_reply_ports.borrow_mut().insert((port, protocol));
    }
}

pub(crate) fn address(text: &str) -> Address {
    text.parse::<IpAddr>().unwrap().into()
}

pub(crate) fn flow(to: &str, port: u16) -> Flow {
    Flow::new(address(to), Port::new(port), PROTOCOL_TCP, Families::V4)
}
