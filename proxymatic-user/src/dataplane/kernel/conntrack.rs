//! Connections of clients on other machines, as the hooks of interfaces keep them: two halves each, which this puts
//! together; and those that are over, which this removes.

use std::{io, os::fd::AsFd as _};

use aya::maps::{Array, HashMap, IterableMap as _, Map, MapData, MapError};
use proxymatic_common::{
    Address, CtEntry, CtFlags, CtProgress, FiveTuple, FragmentKey, FragmentPorts, Interface, PROTOCOL_TCP,
    PROTOCOL_UDP, Port, ReplyPorts, ct_timeouts,
    maps::{Conntrack, CtHalfOpen, Fragments, Interfaces, MapDef as _, ReplyPortsMap},
};

use super::{
    Maps, Pins,
    adopt::all,
    bpf,
    maps::{entries, hash},
};
use crate::dataplane::Error;

/// The maps of clients on other machines.
#[derive(Debug)]
pub struct ConntrackMaps {
    open: HashMap<MapData, FiveTuple, CtEntry>,
    handshakes: HashMap<MapData, FiveTuple, CtEntry>,
    fragments: HashMap<MapData, FragmentKey, FragmentPorts>,
    interfaces: HashMap<MapData, u32, Interface>,
    pins: Pins,
    maps: Maps,
}

/// A connection of a client on another machine: what both halves say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CtConnection {
    /// As the client's packets come.
    pub client: FiveTuple,
    /// The client's half.
    pub half: CtEntry,
    /// When a packet of either half last came: nanoseconds of the monotonic clock.
    pub seen: u64,
    /// How far the client has come.
    pub own: CtProgress,
    /// How far the backend has.
    pub other: CtProgress,
    /// Whether it is open: the client has answered the backend, or of UDP the backend the client.
    pub open: bool,
}

impl CtConnection {
    /// From the client's half, and the backend's where that was found.
    fn of(client: FiveTuple, half: CtEntry, reply: Option<&CtEntry>, open: bool) -> Self {
        let other = reply.map_or(CtProgress::default(), CtEntry::progress);
        let seen = reply.map_or(half.last_seen, |reply| reply.last_seen.max(half.last_seen));
        Self { client, half, seen, own: half.progress(), other, open }
    }

    /// Whether it is among those that count as open.
    pub const fn counts(&self) -> bool {
        self.open && !self.own.with(self.other).has(CtProgress::CLOSED)
    }

    /// Whether nothing has come for longer than it is kept.
    pub const fn is_over(&self, now: u64) -> bool {
        let kept = ct_timeouts::timeout(self.client.protocol, self.open, self.own, self.other);
        now.saturating_sub(self.seen) > kept
    }

    /// For how long nothing has come, in nanoseconds.
    pub const fn idle(&self, now: u64) -> u64 {
        now.saturating_sub(self.seen)
    }
}

/// Whether what is found where the other half belongs is the other half: the key may have been used again.
fn belongs(key: &FiveTuple, other: &CtEntry) -> bool {
    other.translated.reversed() == *key
}

impl ConntrackMaps {
    /// Opens what is pinned.
    ///
    /// # Errors
    /// Nothing is pinned there, or what is pinned has another layout.
    pub fn open(pins: &Pins) -> Result<Self, Error> {
        Ok(Self {
            open: hash::<Conntrack, _, _>(pins)?,
            handshakes: hash::<CtHalfOpen, _, _>(pins)?,
            fragments: hash::<Fragments, _, _>(pins)?,
            interfaces: hash::<Interfaces, _, _>(pins)?,
            pins: pins.clone(),
            maps: Maps::open(pins)?,
        })
    }

    const fn table(&self, open: bool) -> (&'static str, &HashMap<MapData, FiveTuple, CtEntry>) {
        if open { (Conntrack::NAME, &self.open) } else { (CtHalfOpen::NAME, &self.handshakes) }
    }

    /// Shows each half of the connections that are open, or of the others.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn halves(&self, open: bool, mut each: impl FnMut(&FiveTuple, &CtEntry)) -> Result<(), Error> {
        let (name, table) = self.table(open);
        let read = bpf::each_entry(table.map().fd().as_fd(), |key, half| each(&key, &half));
        read.map_err(|error: io::Error| Error::kernel(format!("read {name}"), &error))
    }

    /// Shows each connection that is open, or each of the others. Halves that have lost the other one long ago are removed:
    /// with the client's half goes what is known of it, and hooks make the other one anew.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn each(&self, open: bool, now: u64, mut each: impl FnMut(CtConnection)) -> Result<(), Error> {
        let (name, table) = self.table(open);
        let find = |half: &CtEntry| table.get(&half.translated.reversed(), 0).ok();
        let mut lost = Vec::new();
        self.halves(open, |key, half| {
            if !half.flags.has(CtFlags::REPLY) {
                let reply = find(half).filter(|reply| belongs(key, reply));
                return each(CtConnection::of(*key, *half, reply.as_ref(), open));
            }
            let kept = ct_timeouts::timeout(key.protocol, open, half.progress(), CtProgress::default());
            if now.saturating_sub(half.last_seen) > kept && find(half).is_none_or(|client| !belongs(key, &client)) {
                lost.push(*key);
            }
        })?;
        lost.iter().try_for_each(|key| remove(name, table, key).map(drop))
    }

    /// Forgets a connection. One that counted as open counts as closed.
    ///
    /// # Errors
    /// The kernel does not remove it.
    pub fn forget(&self, connection: &CtConnection) -> Result<(), Error> {
        let (name, table) = self.table(connection.open);
        let reply = connection.half.translated.reversed();
        let there = remove(name, table, &connection.client)?;
        // Where another connection has that key by now, it loses a half that hooks make anew.
        if table.get(&reply, 0).is_ok_and(|half| belongs(&connection.client, &half)) {
            remove(name, table, &reply)?;
        }
        // What is not there any more was evicted: correcting of counts makes up for that.
        if there && connection.counts() {
            let half = &connection.half;
            if let Some(load) = self.maps.service_load(half.service) {
                load.closed.add(1);
            }
            let is = self.maps.backends.read(half.backend).is_some_and(|it| it.generation == half.generation);
            if let Some(load) = self.maps.load(half.backend).filter(|_| is) {
                load.closed.add(1);
            }
        }
        Ok(())
    }

    /// For how many connections there is room, of two halves each: 0 where no interface is served.
    pub fn room(&self) -> u32 {
        self.open.map().info().map_or(0, |info| info.max_entries() / 2)
    }

    /// `FRAGMENTS`.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn fragments(&self) -> Result<Vec<(FragmentKey, FragmentPorts)>, Error> {
        all(Fragments::NAME, &self.fragments)
    }

    /// `INTERFACES`.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn interfaces(&self) -> Result<Vec<(u32, Interface)>, Error> {
        all(Interfaces::NAME, &self.interfaces)
    }

    /// `REPLY_PORTS`: ports, and the IPPROTO number of each.
    ///
    /// # Errors
    /// The map cannot be read.
    pub fn answer_ports(&self) -> Result<Vec<(u16, u8)>, Error> {
        /// Rows of one protocol.
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

/// False where it was not there.
fn remove(name: &str, table: &HashMap<MapData, FiveTuple, CtEntry>, key: &FiveTuple) -> Result<bool, Error> {
    match bpf::delete(table.map().fd().as_fd(), key) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::kernel(format!("remove a connection from {name}"), &error)),
    }
}

/// Where a connection leads: address and port of the backend.
impl CtConnection {
    /// Who the client is.
    pub const fn who(&self) -> (Address, Port) {
        (self.client.source, self.client.source_port)
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

    /// A client at 10.0.0.9 that dialled 10.0.0.1:80 and was taken from 10.0.0.1:61000 to 10.0.0.2:8001: both halves.
    fn halves(protocol: u8, seen: (u64, u64), state: (CtProgress, CtProgress)) -> [(FiveTuple, CtEntry); 2] {
        let client = FiveTuple::new(at(9, 40_000), at(1, 80), protocol);
        let forward = FiveTuple::new(at(1, 61_000), at(2, 8001), protocol);
        let half = |becomes, seen, state: CtProgress, half| CtEntry {
            translated: becomes,
            start: 0,
            last_seen: seen,
            state: state.0.into(),
            service: 1,
            backend: 2,
            generation: 3,
            flags: half,
        };
        [
            (client, half(forward, seen.0, state.0, CtFlags::default())),
            (forward.reversed(), half(client.reversed(), seen.1, state.1, CtFlags::REPLY)),
        ]
    }

    fn connection(protocol: u8, seen: (u64, u64), state: (CtProgress, CtProgress), open: bool) -> CtConnection {
        let [(key, half), (_, reply)] = halves(protocol, seen, state);
        CtConnection::of(key, half, Some(&reply), open)
    }

    #[test]
    fn each_half_is_found_from_the_other_and_a_stranger_in_its_place_is_not_taken_for_it() {
        let [(key, half), (reply_key, reply)] = halves(PROTOCOL_TCP, (0, 0), Default::default());
        assert_eq!(half.translated.reversed(), reply_key);
        assert_eq!(reply.translated.reversed(), key);
        assert!(belongs(&key, &reply) && belongs(&reply_key, &half));
        let stranger = CtEntry { translated: FiveTuple::new(at(1, 80), at(8, 40_000), PROTOCOL_TCP), ..reply };
        assert!(!belongs(&key, &stranger));
    }

    #[test]
    fn a_connection_is_over_when_neither_half_has_seen_anything_for_long_enough() {
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
            assert!(!connection.is_over(over * SECOND), "{protocol} {seen:?} {state:?} {over}");
            assert!(connection.is_over(over * SECOND + 1), "{protocol} {seen:?} {state:?} {over}");
        }
    }

    #[test]
    fn what_is_open_counts_until_either_half_says_that_it_was_counted_out() {
        let none = CtProgress::default();
        let closed = CtProgress::CLOSED;
        let counts = |state, open| connection(PROTOCOL_TCP, (0, 0), state, open).counts();
        assert!(counts((none, none), true) && counts((CtProgress::RESET, none), true));
        assert!(!counts((closed, none), true) && !counts((none, closed), true) && !counts((none, none), false));
    }
}
