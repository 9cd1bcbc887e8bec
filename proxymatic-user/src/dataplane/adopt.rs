//! Adoption: builds the map state from the rows of pinned maps, also if the agent that wrote them was killed.

use std::collections::BTreeMap;

use proxymatic_common::{
    Backend, BackendState, Name, PROTOCOL_TCP, PROTOCOL_UDP, Port, PortBit, Service, Slot, SlotRange, SourceCode,
    SourceRangeKey,
    maps::{Addresses, BackendNames, Excluded, Frontends, KeyedMap, MapDef, ServiceNames, SourceCgroups},
};

use super::Error;
use crate::plan::{Capacity, MapOp, MapState};

/// The keys and values of a map.
pub type MapRows<D> = Vec<(<D as MapDef>::Key, <D as MapDef>::Value)>;

/// Reads maps row by row. A method for an array takes an index and returns `None` beyond the last entry; a method for a
/// hash map or a trie returns all rows.
pub trait MapReader {
    /// The number of entries that the maps can hold.
    fn capacity(&self) -> Capacity;
    /// A word of `PORTS`.
    fn port_bits(&self, word: u32) -> Option<u64>;
    /// `BACKENDS`.
    fn backend(&self, id: u32) -> Option<Backend>;
    /// `SERVICES`.
    fn service(&self, id: u32) -> Option<Service>;
    /// `SLOT_RANGES`.
    fn slot_range(&self, service: u32) -> Option<SlotRange>;
    /// `SLOTS`.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// The keys of `SOURCE_RANGES`.
    fn source_ranges(&self) -> Result<Vec<SourceRangeKey>, Error>;
    /// The entries of a hash map that the agent writes.
    fn rows<D: KeyedMap>(&self) -> Result<MapRows<D>, Error>;
}

/// Returns the map state that the maps hold.
///
/// Applies the writes of plans, so an adopted state equals the state of the agent that planned it. Leaves out rows that
/// contradict others, such as a slot range beyond the slots or a name without an owner; their ids become free.
///
/// # Errors
/// A map cannot be read.
pub fn adopt(contents: &impl MapReader) -> Result<MapState, Error> {
    let mut tables = MapState::new(contents.capacity());
    adopt_backends(contents, &mut tables)?;
    adopt_allow_lists(contents, &mut tables)?;
    adopt_services(contents, &mut tables)?;
    for (frontend, id) in contents.rows::<Frontends>()? {
        if id < tables.capacity.services {
            tables.apply(&MapOp::PutFrontend(frontend, id));
        }
    }
    for (address, class) in contents.rows::<Addresses>()? {
        tables.apply(&MapOp::PutAddress(address, class));
    }
    for (cgroup, _) in contents.rows::<Excluded>()? {
        tables.apply(&MapOp::PutExcluded(cgroup));
    }
    adopt_ports(contents, &mut tables);
    Ok(tables)
}

fn adopt_ports(contents: &impl MapReader, tables: &mut MapState) {
    for protocol in [PROTOCOL_TCP, PROTOCOL_UDP] {
        for port in (0..=u16::MAX).map(Port::new) {
            let Some(bit) = PortBit::of(port, protocol) else { continue };
            if contents.port_bits(bit.word).is_some_and(|word| word & bit.mask != 0) {
                tables.apply(&MapOp::SetPort(port, protocol));
            }
        }
    }
}

/// Runs before [`adopt_services`]: if a list has no service, that function frees the id together with the list.
fn adopt_allow_lists(contents: &impl MapReader, tables: &mut MapState) -> Result<(), Error> {
    for key in contents.source_ranges()? {
        if key.network.service < tables.capacity.services {
            tables.apply(&MapOp::PutAllow(key));
        }
    }
    for (key, _) in contents.rows::<SourceCgroups>()? {
        if key.service < tables.capacity.services {
            tables.apply(&MapOp::PutAllowCgroup(key));
        }
    }
    Ok(())
}

fn adopt_backends(contents: &impl MapReader, tables: &mut MapState) -> Result<(), Error> {
    let names = by_id(contents.rows::<BackendNames>()?);
    for id in 0..tables.capacity.backends {
        let Some(backend) = contents.backend(id) else { continue };
        if backend.state == BackendState::FREE {
            if backend.generation != 0 {
                tables.apply(&MapOp::FreeBackend(id, backend));
            }
        } else if backend.service < tables.capacity.services {
            tables.apply(&MapOp::PutBackend(id, backend));
            if let Some(name) = names.get(&id) {
                tables.apply(&MapOp::PutBackendName(id, name.clone()));
            }
        }
    }
    Ok(())
}

fn adopt_services(contents: &impl MapReader, tables: &mut MapState) -> Result<(), Error> {
    let names = by_id(contents.rows::<ServiceNames>()?);
    // The base and the end of each adopted slot range. Two ranges must not overlap.
    let mut taken = BTreeMap::new();
    for id in 0..tables.capacity.services {
        let Some(settings) = contents.service(id) else { continue };
        let range = contents.slot_range(id).unwrap_or_default();
        if settings.source == SourceCode::NONE && range.length() == 0 && !tables.services().contains_key(&id) {
            // The id is free, and its slot range only counts switches.
            if range.word() != 0 {
                tables.apply(&MapOp::PutSlotRange(id, range));
                tables.apply(&MapOp::ClearService(id));
            }
            continue;
        }
        tables.apply(&MapOp::PutService(id, settings));
        if let Some(name) = names.get(&id) {
            tables.apply(&MapOp::PutServiceName(id, name.clone()));
        }
        let end = u64::from(range.base()) + u64::from(range.length());
        let before = taken.range(..end).next_back();
        let free = before.is_none_or(|(_, end)| *end <= u64::from(range.base()));
        match slots_of(contents, tables.capacity, range).filter(|_| free) {
            Some(slots) => {
                taken.insert(u64::from(range.base()), end);
                tables.apply(&MapOp::PutSlots(range.base(), slots));
                tables.apply(&MapOp::PutSlotRange(id, range));
            }
            None => {
                let empty = SlotRange::new(range.generation(), 0, 0).unwrap_or_default();
                tables.apply(&MapOp::PutSlotRange(id, empty));
            }
        }
    }
    Ok(())
}

fn slots_of(contents: &impl MapReader, capacity: Capacity, range: SlotRange) -> Option<Vec<Slot>> {
    let end = range.base().checked_add(range.length())?;
    if range.length() == 0 || end > capacity.slots {
        return None;
    }
    (range.base()..end).map(|index| contents.slot(index)).collect()
}

fn by_id(names: Vec<(u32, Name)>) -> BTreeMap<u32, String> {
    names.into_iter().map(|(id, name)| (id, name.to_text())).collect()
}
