//! The pinned maps, each opened once with its types.

use std::{os::fd::AsFd as _, path::Path};

use aya::maps::{HashMap, LpmTrie, Map, MapData};
use proxymatic_common::{
    Address, Backend, BackendStats, Cell64, Class, Config, Counters, Frontend, Name, Reason, Service, ServiceStats,
    Slot, SlotRange, SourceCgroup, SourceRange,
    maps::{self as declared, MapDef, MapSpec},
};

use super::{HOOKS, Pins, bpf, host, mmap_array::MmapArray};
use crate::{dataplane::Error, plan::Capacity};

/// The pinned maps. Reading them needs no agent.
#[derive(Debug)]
pub struct Maps {
    pub(super) addresses: HashMap<MapData, Address, Class>,
    pub(super) frontends: HashMap<MapData, Frontend, u32>,
    pub(super) allow: LpmTrie<MapData, SourceRange, u32>,
    pub(super) allow_cgroups: HashMap<MapData, SourceCgroup, u32>,
    pub(super) excluded: HashMap<MapData, u64, u32>,
    pub(super) drained: HashMap<MapData, u32, u32>,
    pub(super) ports: MmapArray<Cell64>,
    pub(super) service_names: HashMap<MapData, u32, Name>,
    pub(super) backend_names: HashMap<MapData, u32, Name>,
    pub(super) heads: MmapArray<Cell64>,
    pub(super) services: MmapArray<Service>,
    pub(super) slots: MmapArray<Slot>,
    pub(super) backends: MmapArray<Backend>,
    service_loads: MmapArray<ServiceStats>,
    loads: MmapArray<BackendStats>,
    counters: MmapArray<Counters>,
    config: MmapArray<Config>,
    capacity: Capacity,
}

impl Maps {
    /// Opens what is pinned.
    ///
    /// # Errors
    /// Nothing is pinned there, or what is pinned has another layout.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let services = entries::<declared::Services>(pins)?.1;
        Ok(Self {
            addresses: hash::<declared::Addresses, _, _>(pins)?,
            frontends: hash::<declared::Frontends, _, _>(pins)?,
            allow: trie(pins)?,
            allow_cgroups: hash::<declared::SourceCgroups, _, _>(pins)?,
            excluded: hash::<declared::Excluded, _, _>(pins)?,
            drained: hash::<declared::Drained, _, _>(pins)?,
            ports: shared::<declared::Ports, Cell64>(pins)?,
            service_names: hash::<declared::ServiceNames, _, _>(pins)?,
            backend_names: hash::<declared::BackendNames, _, _>(pins)?,
            heads: shared::<declared::SlotRanges, Cell64>(pins)?,
            services: shared::<declared::Services, _>(pins)?,
            slots: shared::<declared::Slots, _>(pins)?,
            backends: shared::<declared::Backends, _>(pins)?,
            service_loads: shared::<declared::ServiceStatsMap, _>(pins)?,
            loads: shared::<declared::BackendStatsMap, _>(pins)?,
            counters: shared::<declared::CountersMap, _>(pins)?,
            config: shared::<declared::ConfigMap, _>(pins)?,
            capacity: Capacity {
                services,
                backends: entries::<declared::Backends>(pins)?.1,
                slots: entries::<declared::Slots>(pins)?.1,
                addresses: entries::<declared::Addresses>(pins)?.1,
                allows: entries::<declared::SourceRanges>(pins)?.1,
                allowed_cgroups: entries::<declared::SourceCgroups>(pins)?.1,
                excluded: entries::<declared::Excluded>(pins)?.1,
            },
        })
    }

    /// How many entries the maps have.
    pub const fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// What the agent last said of itself.
    pub fn config(&self) -> Config {
        self.config.read(0).unwrap_or_default()
    }

    pub(super) fn set_config(&self, config: Config) {
        self.config.write(0, config);
    }

    /// The head of a service: its generation counts switches. One load, so that it can be watched closely.
    pub fn head(&self, service: u32) -> Option<SlotRange> {
        self.heads.cell(service).map(|cell| SlotRange::from_word(cell.get()))
    }

    /// What is counted of a backend.
    pub fn load(&self, backend: u32) -> Option<&BackendStats> {
        self.loads.load(backend)
    }

    /// Whether a backend is ejected at the moment: it failed, and its time is not over.
    pub fn ejected(&self, backend: u32) -> bool {
        self.load(backend).is_some_and(|load| load.ejected_until.get() > host::monotonic())
    }

    /// What is counted of a service.
    pub fn service_load(&self, service: u32) -> Option<&ServiceStats> {
        self.service_loads.service_load(service)
    }

    /// How often a reason was given, on all CPUs.
    pub fn count(&self, reason: Reason) -> u64 {
        let rows = (0..self.counters.entries()).filter_map(|cpu| self.counters.counters(cpu));
        rows.map(|row| row.by_reason[reason as usize].get()).sum()
    }
}

/// Holds that what is pinned is what this version pins, before anything is loaded that uses it. Where hooks are in place
/// all of it must be there: a map made anew in the place of one that is lost would hold no services.
///
/// # Errors
/// A map is another one, or lost; something else is in the place of a link.
pub(super) fn check(pins: &Pins) -> Result<(), Error> {
    let mut attached = false;
    for path in HOOKS.iter().map(|hook| pins.link(hook)).filter(|path| path.exists()) {
        if let Err(error) = bpf::open(&path).and_then(|link| bpf::attached(link.as_fd())) {
            return Err(Error::host(
                format!("{} is not the link of a hook: {error}", path.display()),
                "remove it, or name another folder with --bpffs",
            ));
        }
        attached = true;
    }
    for map in declared::ALL {
        let path = pins.map(map.name);
        if path.exists() {
            open(pins, map)?;
        } else if attached && (!of_packets(map.name) || pins.serves_interfaces()) {
            return Err(Error::host(
                format!("{} is lost, although hooks are in place that use it", path.display()),
                "remove what is pinned with `proxymatic detach` and start again",
            ));
        }
    }
    Ok(())
}

/// The maps that only hooks of interfaces use. While there are none of those they hold nothing, and can be made anew in
/// whatever size is wanted.
pub(super) const OF_PACKETS: [&str; 3] =
    [declared::Conntrack::NAME, declared::CtHalfOpen::NAME, declared::Fragments::NAME];

fn of_packets(name: &str) -> bool {
    OF_PACKETS.contains(&name)
}

/// Opens a pin and compares it with its declaration. Gives the number of entries too.
pub(super) fn entries<D: MapDef>(pins: &Pins) -> Result<(MapData, u32), Error> {
    open(pins, &declaration(D::NAME))
}

fn open(pins: &Pins, wanted: &MapSpec) -> Result<(MapData, u32), Error> {
    let path = pins.map(wanted.name);
    let map = MapData::from_pin(&path).map_err(|error| {
        if path.exists() { Error::kernel(format!("open {}", path.display()), &error) } else { pins.missing() }
    })?;
    let info = map.info().map_err(|error| Error::kernel(format!("ask about {}", path.display()), &error))?;
    let kind = info.map_type().map_or(0, |kind| kind as u32);
    let found = (kind, info.key_size(), info.value_size());
    let expected = (wanted.kind as u32, wanted.key, wanted.value);
    if found != expected {
        return Err(other_layout(&path, found, expected));
    }
    let entries = info.max_entries();
    Ok((map, entries))
}

fn declaration(name: &str) -> MapSpec {
    let found = declared::ALL.iter().find(|map| map.name == name);
    *found.expect("every declared map is in the list: one macro makes both")
}

fn other_layout(path: &Path, found: (u32, u32, u32), expected: (u32, u32, u32)) -> Error {
    Error::host(
        format!(
            "{} is another map than this version's (kind, key and value size {found:?}, not {expected:?})",
            path.display()
        ),
        "remove what is pinned with `proxymatic detach` and start again",
    )
}

pub(super) const fn map_name<D: MapDef>() -> &'static str {
    D::NAME
}

pub(super) fn hash<D: MapDef<Key = K, Value = V>, K: aya::Pod, V: aya::Pod>(
    pins: &Pins,
) -> Result<HashMap<MapData, K, V>, Error> {
    let (map, _) = entries::<D>(pins)?;
    let map = if matches!(D::KIND, declared::Kind::LruHash) { Map::LruHashMap(map) } else { Map::HashMap(map) };
    HashMap::try_from(map).map_err(|error| Error::kernel(format!("open {}", D::NAME), &error))
}

fn trie(pins: &Pins) -> Result<LpmTrie<MapData, SourceRange, u32>, Error> {
    let (map, _) = entries::<declared::SourceRanges>(pins)?;
    let name = declared::SourceRanges::NAME;
    LpmTrie::try_from(Map::LpmTrie(map)).map_err(|error| Error::kernel(format!("open {name}"), &error))
}

fn shared<D: MapDef, T>(pins: &Pins) -> Result<MmapArray<T>, Error> {
    const { assert!(size_of::<D::Value>() == size_of::<T>()) };
    let (map, entries) = entries::<D>(pins)?;
    MmapArray::new(D::NAME, &map, entries)
}
