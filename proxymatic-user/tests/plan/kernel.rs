//! Tables as the hooks would see them, and a program that dials.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use proxymatic_common::{
    Address, Affinity, AffinityKey, Backend, BackendStats, Cell64, Class, Config, Event, Families, Frontend, Loopback,
    PROTOCOL_TCP, PROTOCOL_UDP, Port, Reason, Service, ServiceStats, Slot, SlotRange, SourceCgroup, SourceRangeKey,
};
use proxymatic_ebpf::{Caller, Draw, Flow, Listener, Seen, Verdict, listed, look, route, select};
use proxymatic_user::{
    model::{Protocol, ServiceKey},
    plan::MapState,
};

/// The cgroup of the program that dials.
pub(crate) const CGROUP: u64 = 42;

/// Tables as the hooks would see them.
pub(crate) struct Kernel<'a> {
    tables: &'a MapState,
    config: Config,
    pub(crate) loads: Vec<BackendStats>,
    service_loads: Vec<ServiceStats>,
    random: Cell<u64>,
    counts: RefCell<BTreeMap<Reason, u64>>,
}

/// What a program dials for a service.
pub(crate) fn address(key: ServiceKey) -> IpAddr {
    key.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

impl<'a> Kernel<'a> {
    pub(crate) fn new(tables: &'a MapState, seed: u64) -> Self {
        let config = Config { loopback: Loopback::ALL, ..Config::default() };
        let loads = (0..tables.capacity.backends).map(|_| BackendStats::default()).collect();
        let service_loads = (0..tables.capacity.services).map(|_| ServiceStats::default()).collect();
        Self { tables, config, loads, service_loads, random: Cell::new(seed | 1), counts: RefCell::default() }
    }

    /// Dials a service from a socket of both families.
    pub(crate) fn dial(&self, key: ServiceKey) -> Verdict {
        let protocol = if key.protocol == Protocol::Tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
        route(self, self, &Flow::new(address(key).into(), Port::new(key.port), protocol, Families::BOTH))
    }

    /// Where a service leads to.
    pub(crate) fn lead(&self, key: ServiceKey) -> Option<(IpAddr, u16)> {
        match self.dial(key) {
            Verdict::Translate(choice) => Some((choice.address.into(), choice.port.get())),
            _ => None,
        }
    }
}

impl proxymatic_ebpf::Tables for Kernel<'_> {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }
    fn ports(&self, word: u32) -> u64 {
        let bits = self.tables.ports().iter().filter_map(|(protocol, port)| {
            proxymatic_common::PortBit::of(*port, *protocol).filter(|bit| bit.word == word)
        });
        bits.fold(0, |all, bit| all | bit.mask)
    }
    fn class(&self, address: &Address) -> Option<Class> {
        self.tables.addresses().get(address).copied()
    }
    fn frontend(&self, frontend: &Frontend) -> Option<u32> {
        self.tables.frontends().get(frontend).copied()
    }
    fn service(&self, id: u32) -> Option<&Service> {
        self.tables.services().get(&id).map(|entry| &entry.settings)
    }
    fn service_load(&self, id: u32) -> Option<&ServiceStats> {
        self.service_loads.get(id as usize)
    }
    fn head(&self, service: u32) -> SlotRange {
        self.tables.services().get(&service).map(|entry| entry.head).unwrap_or_default()
    }
    fn slot(&self, index: u32) -> Option<Slot> {
        self.tables.slot(index)
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.tables.backends().get(&id).map(|entry| &entry.backend)
    }
    fn load(&self, id: u32) -> Option<&BackendStats> {
        self.loads.get(id as usize)
    }
    fn affinity(&self, _: &AffinityKey) -> Option<Affinity> {
        None
    }
    fn remember(&self, _: &AffinityKey, _: &Affinity) {}
    fn allows(&self, asked: &SourceRangeKey) -> bool {
        let bits = |key: &SourceRangeKey| IpAddr::from(key.network.address).to_canonical();
        let within = |key: &SourceRangeKey| match (bits(key), bits(asked)) {
            (IpAddr::V4(of), IpAddr::V4(at)) => (of.to_bits() ^ at.to_bits()).leading_zeros() + 128 >= key.prefix_len,
            (IpAddr::V6(of), IpAddr::V6(at)) => (of.to_bits() ^ at.to_bits()).leading_zeros() + 32 >= key.prefix_len,
            _ => false,
        };
        self.tables.services().get(&asked.network.service).is_some_and(|entry| entry.allow.iter().any(within))
    }
    fn allows_cgroup(&self, key: &SourceCgroup) -> bool {
        let entry = self.tables.services().get(&key.service);
        entry.is_some_and(|entry| entry.allow_cgroups.contains(&key.cgroup))
    }
    fn excludes(&self, cgroup: u64) -> bool {
        self.tables.excluded().contains(&cgroup)
    }
    fn look(&self, index: u32, draw: Draw) -> Seen {
        look(self, index, draw)
    }
    fn select(&self, service: u32, draw: Draw, hash: u64) -> Result<(u32, Reason), Reason> {
        select(self, service, draw, hash)
    }
    fn random(&self) -> u32 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 32) as u32
    }
    fn now(&self) -> u64 {
        0
    }
    fn raise(&self, cell: &Cell64, by: u64) {
        cell.add(by);
    }
    fn count(&self, reason: Reason) {
        *self.counts.borrow_mut().entry(reason).or_default() += 1;
    }
    fn tell(&self, _: &Event) -> bool {
        true
    }
}

/// A program in a container of its own, whose sockets are bound to nothing.
impl Caller for Kernel<'_> {
    fn netns(&self) -> u64 {
        7
    }
    fn bound(&self) -> Address {
        Address::ZERO
    }
    fn bound_port(&self) -> u32 {
        0
    }
    fn mark(&self) -> u32 {
        0
    }
    fn tgid(&self) -> u32 {
        proxymatic_ebpf::Tables::random(self)
    }
    fn cgroup(&self) -> u64 {
        CGROUP
    }
    fn ancestor(&self, _: u32) -> u64 {
        0
    }
    fn listed(&self, service: Option<u32>) -> bool {
        listed(self, self, service)
    }
    fn listener(&self, _: &Address, _: Port, _: u8) -> Listener {
        Listener::None
    }
}
