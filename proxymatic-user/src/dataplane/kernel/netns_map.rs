//! The map of the addresses of network namespaces. Only the thread that reads them writes it.

use std::collections::BTreeMap;

use aya::maps::{HashMap, MapData};
use proxymatic_common::{
    NetnsAddresses,
    maps::{MapDef as _, NetnsAddressesMap},
};

use super::{Pins, adopt::all_entries, maps::hash};
use crate::dataplane::Error;

/// The addresses of network namespaces by cookie.
#[derive(Debug)]
pub struct NetnsMap(HashMap<MapData, u64, NetnsAddresses>);

impl NetnsMap {
    /// Opens the pinned map.
    ///
    /// # Errors
    /// Fails if the map is not pinned, or has another layout.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        hash::<NetnsAddressesMap, _, _>(pins).map(Self)
    }

    /// Returns all entries.
    ///
    /// # Errors
    /// Fails if the map cannot be read.
    pub fn rows(&self) -> Result<BTreeMap<u64, NetnsAddresses>, Error> {
        all_entries(NetnsAddressesMap::NAME, &self.0).map(|rows| rows.into_iter().collect())
    }

    /// Inserts or replaces an entry.
    ///
    /// # Errors
    /// Fails if the map is full.
    pub fn insert(&mut self, cookie: u64, addresses: NetnsAddresses) -> Result<(), Error> {
        let written = self.0.insert(cookie, addresses, 0);
        written.map_err(|error| Error::kernel(format!("write to {}", NetnsAddressesMap::NAME), &error))
    }

    /// Removes an entry. An entry that does not exist is no error.
    pub fn remove(&mut self, cookie: u64) {
        let _ = self.0.remove(&cookie);
    }
}
