//! The map state as the hooks see it, and a program that connects to services.

use std::net::{IpAddr, Ipv4Addr};

use proxymatic_common::{
    Address, Affinity, AffinityKey, Backend, BackendStats, Cell64, Class, Config, DirectPeer, Families, Frontend,
    ListenerEntry, ListenerKey, Loopback, NetnsAddresses, PROTOCOL_TCP, PROTOCOL_UDP, Port, Reason, Service,
    ServiceStats, Slot, SlotRange, SourceCgroup, SourceRangeKey,
};
use proxymatic_ebpf::{
    Environment as _, Flow, Tables, Verdict, cgroup_listed, route,
    testing::{FakeCaller, FakeEnvironment, InMemory},
};
use proxymatic_user::{
    model::{Protocol, ServiceKey},
    plan::MapState,
};

/// The cgroup of the program.
pub(crate) const CGROUP: u64 = 42;

/// The address of the program's network namespace.
pub(crate) const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 1, 2, 3));
/// The cookie of that namespace.
const NETNS: u64 = 7;

/// The map state as the hooks see it.
pub(crate) struct Kernel<'a> {
    tables: &'a MapState,
    config: Config,
    pub(crate) backend_stats: Vec<BackendStats>,
    service_stats: Vec<ServiceStats>,
    environment: FakeEnvironment,
}

/// Returns the address that the program connects to for a service.
pub(crate) fn address(key: ServiceKey) -> IpAddr {
    key.address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

impl<'a> Kernel<'a> {
    pub(crate) fn new(tables: &'a MapState, seed: u64) -> Self {
        let config = Config { loopback: Loopback::ALL, ..Config::default() };
        let backend_stats = (0..tables.capacity.backends).map(|_| BackendStats::default()).collect();
        let service_stats = (0..tables.capacity.services).map(|_| ServiceStats::default()).collect();
        Self { tables, config, backend_stats, service_stats, environment: FakeEnvironment::new(seed) }
    }

    /// Connects to a service from a socket of both families. The program is in a container, and its socket is not bound.
    pub(crate) fn connect(&self, key: ServiceKey) -> Verdict {
        let protocol = if key.protocol == Protocol::Tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
        let program = FakeCaller { netns: NETNS, tgid: self.random(), cgroups: [0, CGROUP], ..FakeCaller::default() };
        let listed = |service| cgroup_listed(self, &program, service);
        let caller = FakeCaller { listed: &listed, ..program };
        route(self, &caller, &Flow::new(address(key).into(), Port::new(key.port), protocol, Families::BOTH))
    }

    /// Returns the backend that a connection to a service gets.
    pub(crate) fn backend_of(&self, key: ServiceKey) -> Option<(IpAddr, u16)> {
        match self.connect(key) {
            Verdict::Translate(choice) => Some((choice.address.into(), choice.port.get())),
            _ => None,
        }
    }
}

impl InMemory for Kernel<'_> {
    fn environment(&self) -> &FakeEnvironment {
        &self.environment
    }
}

impl Tables for Kernel<'_> {
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
    fn service_stats(&self, id: u32) -> Option<&ServiceStats> {
        self.service_stats.get(id as usize)
    }
    fn slot_range(&self, service: u32) -> SlotRange {
        self.tables.services().get(&service).map(|entry| entry.slot_range).unwrap_or_default()
    }
    fn slot(&self, index: u32) -> Option<Slot> {
        self.tables.slot(index)
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.tables.backends().get(&id).map(|entry| &entry.backend)
    }
    fn backend_stats(&self, id: u32) -> Option<&BackendStats> {
        self.backend_stats.get(id as usize)
    }
    fn affinity(&self, _: &AffinityKey) -> Option<Affinity> {
        None
    }
    fn save_affinity(&self, _: &AffinityKey, _: &Affinity) {}
    fn source_allowed(&self, asked: &SourceRangeKey) -> bool {
        let bits = |key: &SourceRangeKey| IpAddr::from(key.network.address).to_canonical();
        let within = |key: &SourceRangeKey| match (bits(key), bits(asked)) {
            (IpAddr::V4(of), IpAddr::V4(at)) => (of.to_bits() ^ at.to_bits()).leading_zeros() + 128 >= key.prefix_len,
            (IpAddr::V6(of), IpAddr::V6(at)) => (of.to_bits() ^ at.to_bits()).leading_zeros() + 32 >= key.prefix_len,
            _ => false,
        };
        self.tables.services().get(&asked.network.service).is_some_and(|entry| entry.allow.iter().any(within))
    }
    fn netns_addresses(&self, netns: u64) -> Option<NetnsAddresses> {
        (netns == NETNS).then(|| NetnsAddresses { v4: SOURCE.into(), v6: Address::ZERO })
    }
    fn cgroup_allowed(&self, key: &SourceCgroup) -> bool {
        let entry = self.tables.services().get(&key.service);
        entry.is_some_and(|entry| entry.allow_cgroups.contains(&key.cgroup))
    }
    fn cgroup_excluded(&self, cgroup: u64) -> bool {
        self.tables.excluded().contains(&cgroup)
    }
    fn listener(&self, _: &ListenerKey) -> Option<ListenerEntry> {
        None
    }
    fn save_listener(&self, _: &ListenerKey, _: &ListenerEntry) {}
    fn direct_peer(&self, _: &DirectPeer) -> Option<u64> {
        None
    }
    fn save_direct_peer(&self, _: &DirectPeer, _: u64) {}
    fn add(&self, cell: &Cell64, by: u64) {
        cell.add(by);
    }
    fn count(&self, reason: Reason) {
        self.environment.count(reason);
    }
}
