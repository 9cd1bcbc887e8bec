//! Reads the pinned maps for adoption.

use std::{borrow::Borrow, os::fd::AsFd as _};

use aya::maps::{HashMap, IterableMap as _, MapData, MapError};
use proxymatic_common::{Backend, Service, Slot, SlotRange, SourceRangeKey, maps::KeyedMap};

use super::{Maps, bpf};
use crate::{
    dataplane::{Error, MapReader, MapRows, adopt},
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

    fn source_ranges(&self) -> Result<Vec<SourceRangeKey>, Error> {
        let keys = self
            .source_ranges
            .keys()
            .map(|key| key.map(|key| SourceRangeKey { prefix_len: key.prefix_len(), network: key.data() }));
        keys.collect::<Result<_, MapError>>().map_err(|error| Error::kernel("read SOURCE_RANGES", &error))
    }

    fn rows<D: KeyedMap>(&self) -> Result<MapRows<D>, Error> {
        all_entries(D::NAME, &self.keyed::<D>()?)
    }
}

pub(super) fn all_entries<T: Borrow<MapData>, K: aya::Pod, V: aya::Pod>(
    name: &str,
    map: &HashMap<T, K, V>,
) -> Result<Vec<(K, V)>, Error> {
    if let Ok(found) = bpf::entries(map.map().fd().as_fd()) {
        return Ok(found);
    }
    let entries: Result<_, MapError> = map.iter().collect();
    entries.map_err(|error| Error::kernel(format!("read {name}"), &error))
}
