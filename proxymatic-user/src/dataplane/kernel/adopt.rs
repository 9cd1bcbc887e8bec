//! Reads the pinned maps for adoption.

use std::os::fd::AsFd as _;

use aya::maps::{HashMap, IterableMap as _, MapData, MapError};
use proxymatic_common::{
    Address, Backend, Class, Frontend, Name, Service, Slot, SlotRange, SourceCgroup, SourceRangeKey,
};

use super::{Maps, bpf};
use crate::{
    dataplane::{Error, MapReader, adopt},
    plan::{Capacity, MapState},
};

impl Maps {
    /// Reads the map state.
    ///
    /// # Errors
    /// Fails if a map cannot be read.
    pub fn tables(&self) -> Result<MapState, Error> {
        adopt(self)
    }
}

impl MapReader for Maps {
    fn capacity(&self) -> Capacity {
        self.capacity()
    }

    fn port_bits(&self, word: u32) -> Option<u64> {
        self.ports.cell(word).map(|cell| cell.get())
    }

    fn backend(&self, id: u32) -> Option<Backend> {
        self.backends.read(id)
    }

    fn service(&self, id: u32) -> Option<Service> {
        self.services.read(id)
    }

    fn slot_range(&self, service: u32) -> Option<SlotRange> {
        self.slot_range(service)
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.slots.read(index)
    }

    fn frontends(&self) -> Result<Vec<(Frontend, u32)>, Error> {
        all_entries("FRONTENDS", &self.frontends)
    }

    fn addresses(&self) -> Result<Vec<(Address, Class)>, Error> {
        all_entries("ADDRESSES", &self.addresses)
    }

    fn excluded(&self) -> Result<Vec<u64>, Error> {
        Ok(all_entries("EXCLUDED", &self.excluded)?.into_iter().map(|(cgroup, _)| cgroup).collect())
    }

    fn source_ranges(&self) -> Result<Vec<SourceRangeKey>, Error> {
        let keys = self
            .allow
            .keys()
            .map(|key| key.map(|key| SourceRangeKey { prefix_len: key.prefix_len(), network: key.data() }));
        keys.collect::<Result<_, MapError>>().map_err(|error| Error::kernel("read SOURCE_RANGES", &error))
    }

    fn source_cgroups(&self) -> Result<Vec<SourceCgroup>, Error> {
        Ok(all_entries("SOURCE_CGROUPS", &self.allow_cgroups)?.into_iter().map(|(key, _)| key).collect())
    }

    fn service_names(&self) -> Result<Vec<(u32, Name)>, Error> {
        all_entries("SERVICE_NAMES", &self.service_names)
    }

    fn backend_names(&self) -> Result<Vec<(u32, Name)>, Error> {
        all_entries("BACKEND_NAMES", &self.backend_names)
    }
}

pub(super) fn all_entries<K: aya::Pod, V: aya::Pod>(
    name: &str,
    map: &HashMap<MapData, K, V>,
) -> Result<Vec<(K, V)>, Error> {
    if let Ok(found) = bpf::entries(map.map().fd().as_fd()) {
        return Ok(found);
    }
    let entries: Result<_, MapError> = map.iter().collect();
    entries.map_err(|error| Error::kernel(format!("read {name}"), &error))
}
