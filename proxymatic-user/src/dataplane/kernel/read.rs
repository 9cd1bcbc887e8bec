//! Reads single maps entry by entry, for `map` commands and `status`.

use aya::maps::{HashMap, Map, MapData};
use proxymatic_common::{
    Affinity, AffinityKey, Backend, BackendState, DirectPeer, Service, Slot, SlotRange,
    maps::{self as declared, KeyedMap, KeyedMapVisitor, MapDef},
};
use serde::Serialize;

use super::{ConntrackMaps, Maps, Pins};
use crate::dataplane::{Error, MapReader as _, MapRows};

/// One pinned map, as `map show` prints it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MapRow {
    /// The name of the map.
    pub map: &'static str,
    /// The kernel's id of the map.
    pub id: u32,
    /// The map type, as the kernel calls it.
    pub kind: &'static str,
    /// Size of a key in bytes.
    pub key: u32,
    /// Size of a value in bytes.
    pub value: u32,
    /// How many entries fit; for a ring buffer its size in bytes; 0 if the kernel sizes the map.
    pub entries: u32,
    /// How many entries are in use; `None` if the map does not show it.
    pub used: Option<usize>,
    /// The pin of the map.
    pub pin: String,
}

/// Returns the pinned maps, in the order of their declaration.
///
/// # Errors
/// Fails if a map cannot be read.
pub fn map_rows(pins: &Pins, maps: &Maps) -> Result<Vec<MapRow>, Error> {
    let row = |map: &declared::MapSpec| {
        let path = pins.map(map.name);
        let failed = |error: &dyn std::error::Error| Error::kernel(format!("open {}", path.display()), error);
        let info = MapData::from_pin(&path).and_then(|map| map.info()).map_err(|error| failed(&error))?;
        Ok(MapRow {
            map: map.name,
            id: info.id(),
            kind: kind(map.kind),
            key: map.key,
            value: map.value,
            entries: info.max_entries(),
            used: maps.used(pins, map.name)?,
            pin: path.display().to_string(),
        })
    };
    declared::ALL.iter().map(row).collect()
}

const fn kind(kind: declared::Kind) -> &'static str {
    match kind {
        declared::Kind::Hash => "hash",
        declared::Kind::Array => "array",
        declared::Kind::PerCpuArray => "percpu_array",
        declared::Kind::LruHash => "lru_hash",
        declared::Kind::LpmTrie => "lpm_trie",
        declared::Kind::SkStorage => "sk_storage",
        declared::Kind::RingBuf => "ringbuf",
    }
}

/// Returns the entries of `AFFINITY`: which client stays with which backend.
///
/// # Errors
/// Fails if the map cannot be read.
pub fn affinities(pins: &Pins) -> Result<Vec<(AffinityKey, Affinity)>, Error> {
    lru_rows::<declared::Affinities>(pins)
}

/// The sockets of the host from which datagrams came to other network namespaces, with the time of the last one.
///
/// # Errors
/// Fails if the map cannot be read.
pub fn direct_peers(pins: &Pins) -> Result<Vec<(DirectPeer, u64)>, Error> {
    lru_rows::<declared::DirectPeers>(pins)
}

fn lru_rows<D: MapDef<Key: aya::Pod, Value: aya::Pod>>(pins: &Pins) -> Result<MapRows<D>, Error> {
    let failed = |error: &dyn std::error::Error| Error::kernel(format!("read {}", D::NAME), error);
    let map = MapData::from_pin(pins.map(D::NAME)).map_err(|error| failed(&error))?;
    let map: HashMap<_, D::Key, D::Value> = HashMap::try_from(Map::LruHashMap(map)).map_err(|error| failed(&error))?;
    let mut found = Vec::new();
    for key in map.keys() {
        let key = key.map_err(|error| failed(&error))?;
        // An entry without a value was evicted meanwhile.
        if let Ok(value) = map.get(&key, 0) {
            found.push((key, value));
        }
    }
    Ok(found)
}

/// Entries as they are in the maps, also if nothing refers to them; of arrays only entries in use.
impl Maps {
    /// The entries of `BACKENDS`.
    pub fn backends(&self) -> impl Iterator<Item = (u32, Backend)> {
        let read = (0..self.backends.entries()).filter_map(|id| Some((id, self.backends.read(id)?)));
        read.filter(|(_, backend)| backend.state != BackendState::FREE || backend.generation != 0)
    }

    /// The entries of `SERVICES`.
    pub fn services(&self) -> impl Iterator<Item = (u32, Service)> {
        let read = (0..self.services.entries()).filter_map(|id| Some((id, self.services.read(id)?)));
        read.filter(|(_, service)| *service != Service::FREE)
    }

    /// The entries of `SLOT_RANGES`.
    pub fn slot_ranges(&self) -> impl Iterator<Item = (u32, SlotRange)> {
        (0..self.slot_ranges.entries())
            .filter_map(|id| Some((id, self.slot_range(id)?)))
            .filter(|(_, range)| range.word() != 0)
    }

    /// The entries of `SLOTS`.
    pub fn slots(&self) -> impl Iterator<Item = (u32, Slot)> {
        let read = (0..self.slots.entries()).filter_map(|index| Some((index, self.slots.read(index)?)));
        read.filter(|(_, slot)| slot.word() != 0)
    }

    /// The words of `PORTS` that have a bit set.
    pub fn port_words(&self) -> impl Iterator<Item = (u32, u64)> {
        let read = (0..self.ports.entries()).filter_map(|word| Some((word, self.ports.cell(word)?.get())));
        read.filter(|(_, bits)| *bits != 0)
    }

    fn used(&self, pins: &Pins, map: &str) -> Result<Option<usize>, Error> {
        use declared::{
            Affinities, Backends, ConfigMap, Conntrack, CtHalfOpen, DirectPeers, Fragments, Ports, Services,
            SlotRanges, Slots, SourceRanges,
        };
        if let Some(count) = declared::visit_keyed(map, &Count(self)) {
            return count.map(Some);
        }
        Ok(Some(match map {
            Affinities::NAME => affinities(pins)?.len(),
            DirectPeers::NAME => direct_peers(pins)?.len(),
            SourceRanges::NAME => self.source_ranges()?.len(),
            Backends::NAME => self.backends().filter(|(_, backend)| backend.state.0 != 0).count(),
            ConfigMap::NAME => usize::from(self.config().abi != 0),
            Conntrack::NAME | CtHalfOpen::NAME => {
                let mut halves = 0;
                ConntrackMaps::open(pins)?.each_entry(map == Conntrack::NAME, |_, _| halves += 1)?;
                halves
            }
            Fragments::NAME => ConntrackMaps::open(pins)?.fragments()?.len(),
            SlotRanges::NAME => self.slot_ranges().filter(|(_, range)| range.length() > 0).count(),
            Ports::NAME => self.port_words().count(),
            Services::NAME => self.services().count(),
            Slots::NAME => self.slots().count(),
            // Entries of counters follow those of other maps; socket storage and a ring buffer do not show their
            // entries.
            _ => return Ok(None),
        }))
    }
}

/// Counts the entries of a hash map.
struct Count<'a>(&'a Maps);

impl KeyedMapVisitor for Count<'_> {
    type Output = Result<usize, Error>;

    fn visit<D: KeyedMap>(&self) -> Self::Output {
        Ok(self.0.rows::<D>()?.len())
    }
}
