//! The pinned maps, each opened with its types.

use std::{collections::BTreeMap, os::fd::AsFd as _, path::Path};

use aya::maps::{HashMap, LpmTrie, Map, MapData, MapError};
use proxymatic_common::{
    Backend, BackendStats, Cell64, Config, Counters, Reason, Service, ServiceStats, Slot, SlotRange, SourceRange,
    maps::{self as declared, KeyedMap, MapDef, MapSpec},
};

use super::{Pins, bpf, hook_names::HOOKS, host, mmap_array::MmapArray};
use crate::{dataplane::Error, plan::Capacity};

/// The pinned maps. Reading them needs no agent.
#[derive(Debug)]
pub struct Maps {
    /// The hash maps that the agent writes, by name.
    keyed: BTreeMap<&'static str, Map>,
    pub(super) source_ranges: LpmTrie<MapData, SourceRange, u32>,
    pub(super) ports: MmapArray<Cell64>,
    pub(super) slot_ranges: MmapArray<Cell64>,
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
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// Fails if a map is not pinned, or has another layout.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        let services = entries::<declared::Services>(pins)?.1;
        Ok(Self {
            keyed: open_keyed(pins)?,
            source_ranges: trie(pins)?,
            ports: mmap::<declared::Ports, Cell64>(pins)?,
            slot_ranges: mmap::<declared::SlotRanges, Cell64>(pins)?,
            services: mmap::<declared::Services, _>(pins)?,
            slots: mmap::<declared::Slots, _>(pins)?,
            backends: mmap::<declared::Backends, _>(pins)?,
            service_loads: mmap::<declared::ServiceStatsMap, _>(pins)?,
            loads: mmap::<declared::BackendStatsMap, _>(pins)?,
            counters: mmap::<declared::CountersMap, _>(pins)?,
            config: mmap::<declared::ConfigMap, _>(pins)?,
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

    /// The sizes of the maps.
    pub const fn capacity(&self) -> Capacity {
        self.capacity
    }

    /// Returns a hash map that the agent writes.
    pub(super) fn keyed<D: KeyedMap>(&self) -> Result<HashMap<&MapData, D::Key, D::Value>, Error> {
        let map = self.keyed.get(D::NAME).expect("`open_keyed` opens all maps of this kind");
        HashMap::try_from(map).map_err(|error| Error::kernel(format!("read {}", D::NAME), &error))
    }

    /// Inserts an entry of a hash map, or removes it if there is no value.
    pub(super) fn set_keyed<D: KeyedMap>(&mut self, key: &D::Key, value: Option<&D::Value>) -> Result<(), MapError> {
        let map = self.keyed.get_mut(D::NAME).expect("`open_keyed` opens all maps of this kind");
        let mut map: HashMap<&mut MapData, D::Key, D::Value> = HashMap::try_from(map)?;
        match value {
            Some(value) => map.insert(key, value, 0),
            None => ignore_missing(map.remove(key)),
        }
    }

    /// The configuration and state that the agent last wrote.
    pub fn config(&self) -> Config {
        self.config.read(0).unwrap_or_default()
    }

    pub(super) fn set_config(&self, config: Config) {
        self.config.write(0, config);
    }

    /// The slot range of a service. Its generation counts switches. One load, so that a caller can poll it cheaply.
    pub fn slot_range(&self, service: u32) -> Option<SlotRange> {
        self.slot_ranges.cell(service).map(|cell| SlotRange::from_word(cell.get()))
    }

    /// The counts of a backend.
    pub fn load(&self, backend: u32) -> Option<&BackendStats> {
        self.loads.load(backend)
    }

    /// Returns true if a backend is ejected now.
    pub fn ejected(&self, backend: u32) -> bool {
        self.load(backend).is_some_and(|load| load.ejected_until.get() > host::monotonic())
    }

    /// The counts of a service.
    pub fn service_load(&self, service: u32) -> Option<&ServiceStats> {
        self.service_loads.service_load(service)
    }

    /// Returns how often a reason was counted, on all CPUs.
    pub fn count(&self, reason: Reason) -> u64 {
        let rows = (0..self.counters.entries()).filter_map(|cpu| self.counters.counters(cpu));
        rows.map(|row| row.by_reason[reason as usize].get()).sum()
    }
}

/// Verifies before anything is loaded that the pins have the layout of this map ABI version.
///
/// If hooks are attached, all maps must be pinned: a new map in place of a missing one would hold no services.
///
/// # Errors
/// Fails if a map has another layout or is missing, or if the pin of a link is not a link.
pub(super) fn check(pins: &Pins) -> Result<(), Error> {
    let mut attached = false;
    for path in HOOKS.iter().map(|hook| pins.link(hook)).filter(|path| path.exists()) {
        if let Err(error) = bpf::open(&path).and_then(|link| bpf::cgroup_link_info(link.as_fd())) {
            return Err(Error::host(
                format!("{} is not the link of a hook: {error}", path.display()),
                "remove it, or choose another folder with --bpffs",
            ));
        }
        attached = true;
    }
    for map in declared::ALL {
        let path = pins.map(map.name);
        if path.exists() {
            open(pins, map)?;
        } else if attached && (!is_packet_map(map.name) || pins.serves_interfaces()) {
            return Err(Error::host(
                format!("{} is missing, although attached hooks use it", path.display()),
                "remove the pins with `proxymatic detach` and start again",
            ));
        }
    }
    Ok(())
}

/// The maps that only hooks of interfaces use. They hold nothing while no such hook is attached, so they can be
/// created again in another size.
pub(super) const PACKET_MAPS: [&str; 3] =
    [declared::Conntrack::NAME, declared::CtHalfOpen::NAME, declared::Fragments::NAME];

fn is_packet_map(name: &str) -> bool {
    PACKET_MAPS.contains(&name)
}

/// Opens a pinned map and compares it with its declaration. Returns its size too.
pub(super) fn entries<D: MapDef>(pins: &Pins) -> Result<(MapData, u32), Error> {
    open(pins, &spec_of(D::NAME))
}

fn open(pins: &Pins, wanted: &MapSpec) -> Result<(MapData, u32), Error> {
    let path = pins.map(wanted.name);
    let map = MapData::from_pin(&path).map_err(|error| {
        if path.exists() { Error::kernel(format!("open {}", path.display()), &error) } else { pins.missing() }
    })?;
    let info = map.info().map_err(|error| Error::kernel(format!("query {}", path.display()), &error))?;
    let kind = info.map_type().map_or(0, |kind| kind as u32);
    let found = (kind, info.key_size(), info.value_size());
    let expected = (wanted.kind as u32, wanted.key, wanted.value);
    if found != expected {
        return Err(other_layout(&path, found, expected));
    }
    let entries = info.max_entries();
    Ok((map, entries))
}

fn spec_of(name: &str) -> MapSpec {
    let found = declared::ALL.iter().find(|map| map.name == name);
    *found.expect("one macro makes the map types and the list of all maps")
}

fn other_layout(path: &Path, found: (u32, u32, u32), expected: (u32, u32, u32)) -> Error {
    Error::host(
        format!(
            "{} has another layout than in this version (kind, key size and value size {found:?}, not {expected:?})",
            path.display()
        ),
        "remove the pins with `proxymatic detach` and start again",
    )
}

/// Opens the hash maps that the agent writes.
fn open_keyed(pins: &Pins) -> Result<BTreeMap<&'static str, Map>, Error> {
    let is_keyed = |map: &&MapSpec| map.kind == declared::Kind::Hash;
    let one = |map: &MapSpec| Ok((map.name, Map::HashMap(open(pins, map)?.0)));
    declared::ALL.iter().filter(is_keyed).map(one).collect()
}

/// Treats the removal of an entry that does not exist as a success.
pub(super) fn ignore_missing(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) => Ok(()),
        other => other,
    }
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

fn mmap<D: MapDef, T>(pins: &Pins) -> Result<MmapArray<T>, Error> {
    const { assert!(size_of::<D::Value>() == size_of::<T>()) };
    let (map, entries) = entries::<D>(pins)?;
    MmapArray::new(D::NAME, &map, entries)
}
