//! Connections of remote clients: joins the two conntrack entries of each, and removes expired ones.

use std::{io, os::fd::AsFd as _};

use aya::maps::{Array, HashMap, IterableMap as _, Map, MapData, MapError};
use proxymatic_common::{
    Address, CtEntry, CtFlags, CtProgress, FiveTuple, FragmentKey, FragmentPorts, Interface, PROTOCOL_TCP,
    PROTOCOL_UDP, Port, ReplyPorts, ct_timeouts,
    maps::{Conntrack, CtHalfOpen, Fragments, Interfaces, MapDef as _, ReplyPortsMap},
};

use super::{
    Maps, Pins,
    adopt::all_entries,
    bpf,
    maps::{entries, hash},
};
use crate::dataplane::Error;

/// The conntrack maps.
#[derive(Debug)]
pub struct ConntrackMaps {
    open: HashMap<MapData, FiveTuple, CtEntry>,
    half_open: HashMap<MapData, FiveTuple, CtEntry>,
    fragments: HashMap<MapData, FragmentKey, FragmentPorts>,
    interfaces: HashMap<MapData, u32, Interface>,
    pins: Pins,
    maps: Maps,
}

/// A connection of a remote client, from both of its conntrack entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtConnection {
    /// The five-tuple of the client's packets.
    pub client: FiveTuple,
    /// The entry for the client's packets.
    pub entry: CtEntry,
    /// When a packet of either direction last came, in nanoseconds of the monotonic clock.
    pub last_seen: u64,
    /// The progress of the client's direction.
    pub client_progress: CtProgress,
    /// The progress of the backend's direction.
    pub backend_progress: CtProgress,
    /// Whether the connection is open rather than half-open; for UDP, whether the backend has answered.
    pub open: bool,
}

impl CtConnection {
    /// Combines the client's entry with the backend's entry, which may be missing.
    fn new(client: FiveTuple, entry: CtEntry, reply: Option<&CtEntry>, open: bool) -> Self {
        let backend_progress = reply.map_or(CtProgress::default(), CtEntry::progress);
        let last_seen = reply.map_or(entry.last_seen, |reply| reply.last_seen.max(entry.last_seen));
        Self { client, entry, last_seen, client_progress: entry.progress(), backend_progress, open }
    }

    /// Returns true if the counters count this connection as open.
    pub const fn counts_as_open(&self) -> bool {
        self.open && !self.client_progress.with(self.backend_progress).has(CtProgress::CLOSED)
    }

    /// Returns true if the connection was idle for longer than its timeout.
    pub const fn is_expired(&self, now: u64) -> bool {
        let kept = ct_timeouts::timeout(self.client.protocol, self.open, self.client_progress, self.backend_progress);
        now.saturating_sub(self.last_seen) > kept
    }

    /// Returns the address and port of the client.
    pub const fn client_address(&self) -> (Address, Port) {
        (self.client.source, self.client.source_port)
    }

    /// Returns the idle time in nanoseconds.
    pub const fn idle(&self, now: u64) -> u64 {
        now.saturating_sub(self.last_seen)
    }
}

/// Returns true if `other` is the entry of the opposite direction. Its key may have been reused by another
/// connection.
fn is_reverse_of(key: &FiveTuple, other: &CtEntry) -> bool {
    other.translated.reversed() == *key
}

impl ConntrackMaps {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// Fails if a map is not pinned, or has another layout.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        Ok(Self {
            open: hash::<Conntrack, _, _>(pins)?,
            half_open: hash::<CtHalfOpen, _, _>(pins)?,
            fragments: hash::<Fragments, _, _>(pins)?,
            interfaces: hash::<Interfaces, _, _>(pins)?,
            pins: pins.clone(),
            maps: Maps::open(pins)?,
        })
    }

    const fn table(&self, open: bool) -> (&'static str, &HashMap<MapData, FiveTuple, CtEntry>) {
        if open { (Conntrack::NAME, &self.open) } else { (CtHalfOpen::NAME, &self.half_open) }
    }

    /// Calls `each` for every entry of open connections, or of half-open ones.
    ///
    /// # Errors
    /// Fails if the map cannot be read.
    pub fn each_entry(&self, open: bool, mut each: impl FnMut(&FiveTuple, &CtEntry)) -> Result<(), Error> {
        let (name, table) = self.table(open);
        let read = bpf::each_entry(table.map().fd().as_fd(), |key, entry| each(&key, &entry));
        read.map_err(|error: io::Error| Error::kernel(format!("read {name}"), &error))
    }

    /// Calls `each` for every open connection, or every half-open one.
    ///
    /// Also removes expired reply entries whose client's entry is gone. A client's entry without a reply entry stays,
    /// because the hooks create the reply entry again.
    ///
    /// # Errors
    /// Fails if the map cannot be read or written.
    pub fn each(&self, open: bool, now: u64, mut each: impl FnMut(CtConnection)) -> Result<(), Error> {
        let (name, table) = self.table(open);
        let find = |entry: &CtEntry| table.get(&entry.translated.reversed(), 0).ok();
        let mut lost = Vec::new();
        self.each_entry(open, |key, entry| {
            if !entry.flags.has(CtFlags::REPLY) {
                let reply = find(entry).filter(|reply| is_reverse_of(key, reply));
                return each(CtConnection::new(*key, *entry, reply.as_ref(), open));
            }
            let kept = ct_timeouts::timeout(key.protocol, open, entry.progress(), CtProgress::default());
            if now.saturating_sub(entry.last_seen) > kept
                && find(entry).is_none_or(|client| !is_reverse_of(key, &client))
            {
                lost.push(*key);
            }
        })?;
        lost.iter().try_for_each(|key| remove(name, table, key).map(drop))
    }

    /// Removes a connection, and counts it as closed if it counted as open.
    ///
    /// # Errors
    /// Fails if the kernel does not remove an entry.
    pub fn remove(&self, connection: &CtConnection) -> Result<(), Error> {
        let (name, table) = self.table(connection.open);
        let reply = connection.entry.translated.reversed();
        let existed = remove(name, table, &connection.client)?;
        // If another connection has reused the key since, it loses an entry that the hooks create again.
        if table.get(&reply, 0).is_ok_and(|entry| is_reverse_of(&connection.client, &entry)) {
            remove(name, table, &reply)?;
        }
        // If the entry is gone, the kernel has evicted it, and the correction of the counts accounts for that.
        if existed && connection.counts_as_open() {
            let entry = &connection.entry;
            if let Some(load) = self.maps.service_load(entry.service) {
                load.closed.add(1);
            }
            let is = self.maps.backends.read(entry.backend).is_some_and(|it| it.generation == entry.generation);
            if let Some(load) = self.maps.load(entry.backend).filter(|_| is) {
                load.closed.add(1);
            }
        }
        Ok(())
    }

    /// Returns how many connections fit, at two entries each; 0 if no interface is served.
    pub fn capacity(&self) -> u32 {
        self.open.map().info().map_or(0, |info| info.max_entries() / 2)
    }

    /// Returns the entries of `FRAGMENTS`.
    ///
    /// # Errors
    /// Fails if the map cannot be read.
    pub fn fragments(&self) -> Result<Vec<(FragmentKey, FragmentPorts)>, Error> {
        all_entries(Fragments::NAME, &self.fragments)
    }

    /// Returns the entries of `INTERFACES`.
    ///
    /// # Errors
    /// Fails if the map cannot be read.
    pub fn interfaces(&self) -> Result<Vec<(u32, Interface)>, Error> {
        all_entries(Interfaces::NAME, &self.interfaces)
    }

    /// Returns the set bits of `REPLY_PORTS`: a port and the IPPROTO number.
    ///
    /// # Errors
    /// Fails if the map cannot be read.
    pub fn reply_ports(&self) -> Result<Vec<(u16, u8)>, Error> {
        /// How many rows each protocol has.
        const ROWS: u32 = ReplyPortsMap::MAX / 2;
        let failed = |error: MapError| Error::kernel(format!("read {}", ReplyPortsMap::NAME), &error);
        let map = Map::Array(entries::<ReplyPortsMap>(&self.pins)?.0);
        let map: Array<_, ReplyPorts> = Array::try_from(map).map_err(failed)?;
        let mut found = Vec::new();
        for row in 0..ReplyPortsMap::MAX {
            let ports = map.get(&row, 0).map_err(failed)?;
            let protocol = if row < ROWS { PROTOCOL_TCP } else { PROTOCOL_UDP };
            let set = ports.iter().zip(0..).filter(|(set, _)| **set != 0);
            found.extend(set.map(|(_, nth): (_, u32)| (((row % ROWS) * 64 + nth) as u16, protocol)));
        }
        Ok(found)
    }
}

/// Removes an entry; returns false if there was none.
fn remove(name: &str, table: &HashMap<MapData, FiveTuple, CtEntry>, key: &FiveTuple) -> Result<bool, Error> {
    match bpf::delete(table.map().fd().as_fd(), key) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::kernel(format!("remove a connection from {name}"), &error)),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(last: u8, port: u16) -> (Address, Port) {
        (IpAddr::from([10, 0, 0, last]).into(), Port::new(port))
    }

    /// Both entries of a connection from 10.0.0.9 to 10.0.0.1:80, forwarded from 10.0.0.1:61000 to 10.0.0.2:8001.
    fn both_entries(protocol: u8, seen: (u64, u64), state: (CtProgress, CtProgress)) -> [(FiveTuple, CtEntry); 2] {
        let client = FiveTuple::new(at(9, 40_000), at(1, 80), protocol);
        let forward = FiveTuple::new(at(1, 61_000), at(2, 8001), protocol);
        let entry = |translated, last_seen, state: CtProgress, flags| CtEntry {
            translated,
            start: 0,
            last_seen,
            state: state.0.into(),
            service: 1,
            backend: 2,
            generation: 3,
            flags,
        };
        [
            (client, entry(forward, seen.0, state.0, CtFlags::default())),
            (forward.reversed(), entry(client.reversed(), seen.1, state.1, CtFlags::REPLY)),
        ]
    }

    fn connection(protocol: u8, seen: (u64, u64), state: (CtProgress, CtProgress), open: bool) -> CtConnection {
        let [(key, entry), (_, reply)] = both_entries(protocol, seen, state);
        CtConnection::new(key, entry, Some(&reply), open)
    }

    #[test]
    fn entries_find_each_other_and_no_entry_of_another() {
        let [(key, entry), (reply_key, reply)] = both_entries(PROTOCOL_TCP, (0, 0), Default::default());
        assert_eq!(entry.translated.reversed(), reply_key);
        assert_eq!(reply.translated.reversed(), key);
        assert!(is_reverse_of(&key, &reply) && is_reverse_of(&reply_key, &entry));
        let stranger = CtEntry { translated: FiveTuple::new(at(1, 80), at(8, 40_000), PROTOCOL_TCP), ..reply };
        assert!(!is_reverse_of(&key, &stranger));
    }

    #[test]
    fn connection_expires_when_both_directions_are_idle() {
        let none = CtProgress::default();
        let fin = CtProgress::FINISHED;
        for (protocol, seen, state, open, over) in [
            (PROTOCOL_TCP, (0, 0), (none, none), true, 24 * 3600),
            (PROTOCOL_TCP, (0, 100), (none, none), true, 100 + 24 * 3600),
            (PROTOCOL_TCP, (0, 0), (fin, fin), true, 60),
            (PROTOCOL_TCP, (5, 7), (fin, CtProgress::RESET), true, 17),
            (PROTOCOL_TCP, (0, 0), (none, none), false, 5),
            (PROTOCOL_UDP, (30, 0), (none, none), true, 210),
        ] {
            let connection = connection(protocol, (seen.0 * SECOND, seen.1 * SECOND), state, open);
            assert!(!connection.is_expired(over * SECOND), "{protocol} {seen:?} {state:?} {over}");
            assert!(connection.is_expired(over * SECOND + 1), "{protocol} {seen:?} {state:?} {over}");
        }
    }

    #[test]
    fn open_connection_counts_until_either_entry_is_closed() {
        let none = CtProgress::default();
        let closed = CtProgress::CLOSED;
        let counts = |state, open| connection(PROTOCOL_TCP, (0, 0), state, open).counts_as_open();
        assert!(counts((none, none), true) && counts((CtProgress::RESET, none), true));
        assert!(!counts((closed, none), true) && !counts((none, closed), true) && !counts((none, none), false));
    }
}
