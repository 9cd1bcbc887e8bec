//! The map state in memory: a plan starts from it, and each write of a plan is applied to it.

use std::collections::{BTreeMap, BTreeSet};

use proxymatic_common::{
    Address, Backend, BackendState, Class, Frontend, Port, Service, Slot, SlotRange, SourceCgroup, SourceRangeKey,
};

use super::{MapOp, ranges::Ranges};

/// The number of entries that the maps can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// `FRONTENDS`, `SLOT_RANGES`, `SERVICES`, `SERVICE_STATS`.
    pub services: u32,
    /// `BACKENDS`, `BACKEND_STATS`.
    pub backends: u32,
    /// `SLOTS`.
    pub slots: u32,
    /// `ADDRESSES`.
    pub addresses: u32,
    /// `SOURCE_RANGES`.
    pub allows: u32,
    /// `SOURCE_CGROUPS`.
    pub allowed_cgroups: u32,
    /// `EXCLUDED`.
    pub excluded: u32,
}

impl Default for Capacity {
    fn default() -> Self {
        use proxymatic_common::maps::{
            Addresses, Backends, Excluded, MapDef, Services, Slots, SourceCgroups, SourceRanges,
        };
        Self {
            services: Services::MAX,
            backends: Backends::MAX,
            slots: Slots::MAX,
            addresses: Addresses::MAX,
            allows: SourceRanges::MAX,
            allowed_cgroups: SourceCgroups::MAX,
            excluded: Excluded::MAX,
        }
    }
}

/// The entries of one service id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEntry {
    /// `SERVICES`.
    pub settings: Service,
    /// `SERVICE_NAMES`.
    pub name: String,
    /// `SLOT_RANGES`.
    pub slot_range: SlotRange,
    /// The key in `FRONTENDS`; `None` before the service is published and after it is withdrawn.
    pub frontend: Option<Frontend>,
    /// The ids of its backends, in any state.
    pub backends: BTreeSet<u32>,
    /// `SOURCE_RANGES`: the networks that may connect.
    pub allow: BTreeSet<SourceRangeKey>,
    /// `SOURCE_CGROUPS`: the ids of cgroups that may connect.
    pub allow_cgroups: BTreeSet<u64>,
}

impl Default for ServiceEntry {
    fn default() -> Self {
        Self {
            settings: Service::FREE,
            name: String::new(),
            slot_range: SlotRange::default(),
            frontend: None,
            backends: BTreeSet::new(),
            allow: BTreeSet::new(),
            allow_cgroups: BTreeSet::new(),
        }
    }
}

/// The entries of one backend id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendEntry {
    /// `BACKENDS`.
    pub backend: Backend,
    /// `BACKEND_NAMES`.
    pub task: String,
}

/// Something that nothing refers to any more. It may be used again after quarantine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Garbage {
    /// A range of slots, by base.
    Slots(u32),
    /// A service id.
    Service(u32),
    /// A backend id.
    Backend(u32),
}

/// The content of the maps. Equal states mean equal maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapState {
    /// The number of entries that the maps can hold.
    pub capacity: Capacity,
    addresses: BTreeMap<Address, Class>,
    frontends: BTreeMap<Frontend, u32>,
    ports: BTreeSet<(u8, Port)>,
    excluded: BTreeSet<u64>,
    services: BTreeMap<u32, ServiceEntry>,
    backends: BTreeMap<u32, BackendEntry>,
    slots: BTreeMap<u32, Vec<Slot>>,
    ranges: Ranges,
    /// The number of switches or owners so far, for free ids.
    switches: BTreeMap<u32, u16>,
    owners: BTreeMap<u32, u32>,
    garbage: BTreeSet<Garbage>,
}

impl MapState {
    /// Makes an empty state with these sizes.
    pub fn new(capacity: Capacity) -> Self {
        Self { capacity, ..Self::default() }
    }

    /// Returns the class of each address.
    pub const fn addresses(&self) -> &BTreeMap<Address, Class> {
        &self.addresses
    }

    /// Returns the service id of each frontend.
    pub const fn frontends(&self) -> &BTreeMap<Frontend, u32> {
        &self.frontends
    }

    /// Returns the service of a frontend. In damaged maps two frontends may name one service; only the frontend that
    /// the service itself names counts.
    pub fn service_at(&self, frontend: &Frontend) -> Option<u32> {
        let id = self.frontends.get(frontend)?;
        let owned = self.services.get(id).is_some_and(|entry| entry.frontend == Some(*frontend));
        owned.then_some(*id)
    }

    /// Returns the protocols and ports whose bit is set.
    pub const fn ports(&self) -> &BTreeSet<(u8, Port)> {
        &self.ports
    }

    /// Returns the ids of cgroups whose programs the hooks leave alone.
    pub const fn excluded(&self) -> &BTreeSet<u64> {
        &self.excluded
    }

    /// Returns the entries of each service id that is not free.
    pub const fn services(&self) -> &BTreeMap<u32, ServiceEntry> {
        &self.services
    }

    /// Returns the entries of each backend id that is not free.
    pub const fn backends(&self) -> &BTreeMap<u32, BackendEntry> {
        &self.backends
    }

    /// Returns the number of taken slots, including those in quarantine.
    pub fn slots_taken(&self) -> u32 {
        self.ranges.total()
    }

    /// Returns the slots in a range; empty if the map state has no such range.
    pub fn slots_of(&self, head: SlotRange) -> &[Slot] {
        match self.slots.get(&head.base()) {
            Some(slots) if head.length() > 0 && slots.len() == head.length() as usize => slots,
            _ => &[],
        }
    }

    /// Returns one slot, by its index in the map.
    pub fn slot(&self, index: u32) -> Option<Slot> {
        let (base, slots) = self.slots.range(..=index).next_back()?;
        slots.get((index - base) as usize).copied()
    }

    /// Returns what nothing refers to any more.
    pub const fn garbage(&self) -> &BTreeSet<Garbage> {
        &self.garbage
    }

    /// Returns the number of owners that a backend id has had.
    pub fn backend_generation(&self, backend: u32) -> u32 {
        let now = self.backends.get(&backend).map(|entry| entry.backend.generation);
        now.or_else(|| self.owners.get(&backend).copied()).unwrap_or(0)
    }

    /// Returns the number of switches of a service id, modulo 65,536.
    pub fn head_generation(&self, service: u32) -> u16 {
        let now = self.services.get(&service).map(|entry| entry.slot_range.generation());
        now.or_else(|| self.switches.get(&service).copied()).unwrap_or(0)
    }

    pub(super) const fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    /// Returns the length of the range of slots at `base`.
    pub(super) fn range_length(&self, base: u32) -> u32 {
        self.slots.get(&base).map_or(0, |slots| slots.len() as u32)
    }

    /// Applies one write. Nothing else changes the state; adoption uses this function too.
    pub fn apply(&mut self, op: &MapOp) {
        match op {
            MapOp::ResetLoad(_) | MapOp::ResetServiceLoad(_) => {}
            MapOp::PutExcluded(cgroup) => {
                self.excluded.insert(*cgroup);
            }
            MapOp::DelExcluded(cgroup) => {
                self.excluded.remove(cgroup);
            }
            MapOp::SetPort(port, protocol) => {
                self.ports.insert((*protocol, *port));
            }
            MapOp::ClearPort(port, protocol) => {
                self.ports.remove(&(*protocol, *port));
            }
            MapOp::PutAllow(key) => {
                self.service_entry(key.network.service).allow.insert(*key);
            }
            MapOp::DelAllow(key) => {
                if let Some(entry) = self.services.get_mut(&key.network.service) {
                    entry.allow.remove(key);
                }
            }
            MapOp::PutAllowCgroup(SourceCgroup { cgroup, service, .. }) => {
                self.service_entry(*service).allow_cgroups.insert(*cgroup);
            }
            MapOp::DelAllowCgroup(SourceCgroup { cgroup, service, .. }) => {
                if let Some(entry) = self.services.get_mut(service) {
                    entry.allow_cgroups.remove(cgroup);
                }
            }
            MapOp::PutBackendName(id, name) => self.backend_entry(*id).task.clone_from(name),
            MapOp::PutBackend(id, backend) | MapOp::DemoteBackend(id, backend) => self.put_backend(*id, backend),
            MapOp::FreeBackend(id, backend) => self.free_backend(*id, backend.generation),
            MapOp::DelBackendName(id) => {
                if let Some(entry) = self.backends.get_mut(id) {
                    entry.task.clear();
                }
            }
            MapOp::PutSlots(base, slots) => {
                self.ranges.take(*base, slots.len() as u32);
                self.slots.insert(*base, slots.clone());
                // Garbage until a slot range names it.
                self.garbage.insert(Garbage::Slots(*base));
            }
            MapOp::ClearSlots(base, _) => {
                self.ranges.free(*base);
                self.slots.remove(base);
                self.garbage.remove(&Garbage::Slots(*base));
            }
            MapOp::PutService(id, settings) => self.service_entry(*id).settings = *settings,
            MapOp::PutServiceName(id, name) => self.service_entry(*id).name.clone_from(name),
            MapOp::PutSlotRange(id, head) => self.put_head(*id, *head),
            MapOp::PutFrontend(frontend, id) => {
                if let Some(before) = self.frontends.insert(*frontend, *id) {
                    self.unlink_frontend(before, frontend);
                }
                self.service_entry(*id).frontend = Some(*frontend);
                self.garbage.remove(&Garbage::Service(*id));
            }
            MapOp::DelFrontend(frontend) => {
                if let Some(id) = self.frontends.remove(frontend) {
                    self.unlink_frontend(id, frontend);
                }
            }
            MapOp::PutAddress(address, class) => {
                self.addresses.insert(*address, *class);
            }
            MapOp::DelAddress(address) => {
                self.addresses.remove(address);
            }
            MapOp::ClearHead(id, head) => self.put_head(*id, *head),
            MapOp::DelServiceName(id) => {
                if let Some(entry) = self.services.get_mut(id) {
                    entry.name.clear();
                }
            }
            MapOp::ClearService(id) => self.free_service(*id),
        }
    }

    fn service_entry(&mut self, id: u32) -> &mut ServiceEntry {
        let (switches, garbage) = (&mut self.switches, &mut self.garbage);
        self.services.entry(id).or_insert_with(|| {
            garbage.insert(Garbage::Service(id));
            let slot_range = SlotRange::new(switches.remove(&id).unwrap_or(0), 0, 0).unwrap_or_default();
            ServiceEntry { slot_range, ..ServiceEntry::default() }
        })
    }

    /// Removes the link from a service to a frontend that no longer names it; another frontend may name the service.
    fn unlink_frontend(&mut self, id: u32, frontend: &Frontend) {
        let entry = self.service_entry(id);
        if entry.frontend == Some(*frontend) {
            entry.frontend = None;
            self.garbage.insert(Garbage::Service(id));
        }
    }

    fn backend_entry(&mut self, id: u32) -> &mut BackendEntry {
        let (owners, garbage) = (&mut self.owners, &mut self.garbage);
        self.backends.entry(id).or_insert_with(|| {
            garbage.insert(Garbage::Backend(id));
            BackendEntry { backend: Backend::free(owners.remove(&id).unwrap_or(0)), task: String::new() }
        })
    }

    fn put_backend(&mut self, id: u32, backend: &Backend) {
        let entry = self.backend_entry(id);
        let before = std::mem::replace(&mut entry.backend, *backend);
        if before.service != backend.service
            && let Some(service) = self.services.get_mut(&before.service)
        {
            service.backends.remove(&id);
        }
        self.service_entry(backend.service).backends.insert(id);
        if backend.state == BackendState::GONE {
            self.garbage.insert(Garbage::Backend(id));
        } else {
            self.garbage.remove(&Garbage::Backend(id));
        }
    }

    fn free_backend(&mut self, id: u32, generation: u32) {
        if let Some(entry) = self.backends.remove(&id)
            && let Some(service) = self.services.get_mut(&entry.backend.service)
        {
            service.backends.remove(&id);
        }
        self.owners.insert(id, generation);
        self.garbage.remove(&Garbage::Backend(id));
    }

    fn put_head(&mut self, id: u32, head: SlotRange) {
        let before = std::mem::replace(&mut self.service_entry(id).slot_range, head);
        if before.length() > 0 {
            self.garbage.insert(Garbage::Slots(before.base()));
        }
        if head.length() > 0 {
            self.garbage.remove(&Garbage::Slots(head.base()));
        }
    }

    fn free_service(&mut self, id: u32) {
        if let Some(entry) = self.services.remove(&id) {
            self.switches.insert(id, entry.slot_range.generation());
        }
        self.garbage.remove(&Garbage::Service(id));
    }
}
