//! Rows of maps with arbitrary content, as in damaged pins or in pins of another program.

use std::any::Any;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use proxymatic_common::{
    Address, Backend, BackendState, Class, Frontend, Name, Port, Service, Slot, SlotRange, SourceCgroup, SourceCode,
    SourceRange, SourceRangeKey,
    maps::{Addresses, BackendNames, Excluded, Frontends, KeyedMap, MapDef as _, ServiceNames, SourceCgroups},
};
use proxymatic_user::{
    dataplane::{Error, MapReader, MapRows, kernel::from_bytes},
    plan::Capacity,
};

/// Very small maps, so that ids collide.
const CAPACITY: Capacity =
    Capacity { services: 6, backends: 16, slots: 4000, addresses: 8, allows: 16, allowed_cgroups: 8, excluded: 4 };

/// The number of an id, the bytes of its row, and a state and a service that replace those in the bytes.
type BackendRow = (u8, [u8; 64], Option<(u8, u8)>);

/// The rows of all maps. Most bytes are arbitrary; ids and states are mostly valid.
#[derive(Arbitrary, Debug)]
pub struct Rows {
    ports: [u64; 4],
    backends: Vec<BackendRow>,
    services: Vec<(u8, [u8; 64], u8)>,
    slot_ranges: Vec<(u8, u16, u8, u8, Option<u64>)>,
    slots: Vec<(u16, u64)>,
    frontends: Vec<(u8, u8, u8, u8, u8, bool)>,
    addresses: Vec<([u8; 16], u8)>,
    excluded: Vec<u64>,
    allow: Vec<(u8, u8, [u8; 16])>,
    allow_cgroups: Vec<(u8, u64, u32)>,
    names: Vec<(bool, u8, u8, [u8; 16])>,
}

/// The limit of rows for each map, so that one input does not take long.
const MOST: usize = 24;

/// Returns an id: mostly within its map, sometimes beyond.
fn id(number: u8, entries: u32) -> u32 {
    if number < 250 { u32::from(number) % entries } else { u32::MAX - u32::from(number) }
}

impl Rows {
    fn frontends(&self) -> Vec<(Frontend, u32)> {
        let row = |(class, port, protocol, zero, of, odd): &(u8, u8, u8, u8, u8, bool)| {
            let known = if protocol % 2 == 0 { 6 } else { 17 };
            let protocol = if *odd { *protocol } else { known };
            let frontend = Frontend {
                class: Class((*class % 5).into()),
                port: Port::new(1000 + u16::from(*port % 4)),
                protocol,
                _pad: if *odd { *zero } else { 0 },
            };
            (frontend, id(*of, CAPACITY.services))
        };
        unique(self.frontends.iter().take(MOST).map(row))
    }

    fn addresses(&self) -> Vec<(Address, Class)> {
        let row = |(bytes, class): &([u8; 16], u8)| Some((from_bytes::<Address>(bytes)?, Class((*class % 6).into())));
        unique(self.addresses.iter().take(8).filter_map(row))
    }

    fn excluded(&self) -> Vec<(u64, u32)> {
        self.excluded.iter().take(4).map(|cgroup| (*cgroup, 1)).collect()
    }

    fn cgroups(&self) -> Vec<(SourceCgroup, u32)> {
        let row = |(of, cgroup, zero): &(u8, u64, u32)| SourceCgroup {
            cgroup: *cgroup,
            service: id(*of, CAPACITY.services),
            _pad: *zero,
        };
        self.allow_cgroups.iter().take(8).map(row).map(|key| (key, 1)).collect()
    }

    fn names(&self, of_backends: bool) -> Vec<(u32, Name)> {
        let name = |(_, of, length, text): &(bool, u8, u8, [u8; 16])| {
            let mut bytes = [0; 256];
            bytes[0] = *length;
            bytes[1..17].copy_from_slice(text);
            Some((u32::from(*of) % 20, from_bytes::<Name>(&bytes)?))
        };
        self.names.iter().filter(|(of, ..)| *of == of_backends).take(MOST).filter_map(name).collect()
    }
}

/// Keeps one row for each key, as a hash map does.
fn unique<K: Ord, V>(rows: impl Iterator<Item = (K, V)>) -> Vec<(K, V)> {
    rows.collect::<std::collections::BTreeMap<K, V>>().into_iter().collect()
}

impl MapReader for Rows {
    fn capacity(&self) -> Capacity {
        CAPACITY
    }

    fn port_bits(&self, word: u32) -> Option<u64> {
        // TCP and UDP from port 960 on.
        Some(match word {
            15 => self.ports[0],
            16 => self.ports[1],
            1039 => self.ports[2],
            1040 => self.ports[3],
            _ => 0,
        })
    }

    fn backend(&self, at: u32) -> Option<Backend> {
        let row = self.backends.iter().take(MOST).find(|(of, ..)| id(*of, CAPACITY.backends) == at);
        let Some((_, bytes, words)) = row else { return Some(Backend::free(0)) };
        let backend = from_bytes::<Backend>(bytes)?;
        Some(match words {
            Some((state, service)) => Backend {
                state: BackendState(u32::from(state % 6)),
                service: id(*service, CAPACITY.services),
                ..backend
            },
            None => backend,
        })
    }

    fn service(&self, at: u32) -> Option<Service> {
        let row = self.services.iter().take(MOST).find(|(of, ..)| id(*of, CAPACITY.services) == at);
        let Some((_, bytes, source)) = row else { return Some(Service::FREE) };
        let service = from_bytes::<Service>(bytes)?;
        Some(if *source < 250 { Service { source: SourceCode(u32::from(source % 5)), ..service } } else { service })
    }

    fn slot_range(&self, service: u32) -> Option<SlotRange> {
        let row = self.slot_ranges.iter().take(MOST).find(|(of, ..)| id(*of, CAPACITY.services) == service);
        let Some((_, generation, length, base, word)) = row else { return Some(SlotRange::default()) };
        match word {
            Some(word) => Some(SlotRange::from_word(*word)),
            None => SlotRange::new(*generation, (*length).into(), u32::from(*base) * 16),
        }
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        let row = self.slots.iter().find(|(of, _)| u32::from(*of) == index);
        Some(row.map_or(Slot::default(), |(_, word)| Slot::from_word(*word)))
    }

    fn source_ranges(&self) -> Result<Vec<SourceRangeKey>, Error> {
        let row = |(of, bits, bytes): &(u8, u8, [u8; 16])| {
            let network = SourceRange { service: id(*of, CAPACITY.services), address: from_bytes(bytes)? };
            Some(SourceRangeKey { prefix_len: (*bits).into(), network })
        };
        Ok(self.allow.iter().take(16).filter_map(row).collect())
    }

    fn rows<D: KeyedMap>(&self) -> Result<MapRows<D>, Error> {
        let rows: Box<dyn Any> = match D::NAME {
            Addresses::NAME => Box::new(self.addresses()),
            BackendNames::NAME => Box::new(self.names(true)),
            Excluded::NAME => Box::new(self.excluded()),
            Frontends::NAME => Box::new(self.frontends()),
            ServiceNames::NAME => Box::new(self.names(false)),
            SourceCgroups::NAME => Box::new(self.cgroups()),
            _ => Box::new(MapRows::<D>::new()),
        };
        Ok(rows.downcast::<MapRows<D>>().map(|rows| *rows).unwrap_or_default())
    }
}
