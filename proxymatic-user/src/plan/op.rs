//! One write to one map, as a value that can be compared, ordered, displayed and carried out.
//!
//! Each operation is declared once, in the table of this file. The order of the table is the order of execution within a
//! plan: make what hooks cannot see yet, switch, then break what they no longer see.

use std::{fmt, net::IpAddr};

use proxymatic_common::{
    Address, Backend, Class, Frontend, Name, Port, Service, Slot, SlotRange, SourceCgroup, SourceRangeKey,
    maps::{
        Addresses, BackendNames, BackendStatsMap, Backends, Excluded, Frontends, KeyedMap, MapDef, Ports, ServiceNames,
        ServiceStatsMap, Services, SlotRanges, Slots, SourceCgroups, SourceRanges,
    },
};

use super::display::{DisplayBackend, DisplayFrontend, DisplayNetwork, DisplaySettings, protocol};

/// Carries out operations: the maps in the kernel.
pub trait EntryWriter {
    /// Why a write failed.
    type Error;

    /// Inserts or replaces an entry of a hash map.
    fn insert<D: KeyedMap>(&mut self, key: &D::Key, value: &D::Value) -> Result<(), Self::Error>;
    /// Removes an entry of a hash map. An entry that does not exist is no error.
    fn remove<D: KeyedMap>(&mut self, key: &D::Key) -> Result<(), Self::Error>;
    /// Inserts a network into `SOURCE_RANGES`, or removes it.
    fn set_source_range(&mut self, key: &SourceRangeKey, is_in: bool) -> Result<(), Self::Error>;
    /// Sets or clears the bit of a port in `PORTS`.
    fn set_port(&mut self, port: Port, protocol: u8, is_set: bool) -> Result<(), Self::Error>;
    /// Writes an entry of `BACKENDS`.
    fn set_backend(&mut self, id: u32, backend: &Backend) -> Result<(), Self::Error>;
    /// Writes an entry of `SERVICES`.
    fn set_service(&mut self, id: u32, service: &Service) -> Result<(), Self::Error>;
    /// Writes an entry of `SLOT_RANGES`, by one store.
    fn set_slot_range(&mut self, id: u32, range: SlotRange) -> Result<(), Self::Error>;
    /// Writes entries of `SLOTS` from an index on.
    fn set_slots(&mut self, base: u32, slots: impl Iterator<Item = Slot>) -> Result<(), Self::Error>;
    /// Resets an entry of `BACKEND_STATS`.
    fn reset_backend_stats(&mut self, id: u32) -> Result<(), Self::Error>;
    /// Resets an entry of `SERVICE_STATS`.
    fn reset_service_stats(&mut self, id: u32) -> Result<(), Self::Error>;
}

macro_rules! map_ops {
    ($(
        $(#[doc = $doc:literal])+
        $op:ident($($arg:ident: $type:ty),+) in $map:ident {
            text: ($($text:tt)+),
            write: |$maps:ident| $write:expr,
        }
    )+) => {
        /// One write to one map. The order of the variants is the order of execution within a plan: make what hooks
        /// cannot see yet, switch, then break what they no longer see.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum MapOp {
            $($(#[doc = $doc])+ $op($($type),+),)+
        }

        /// The variants without their values, so that each has a number.
        enum Position {
            $($op,)+
        }

        impl MapOp {
            /// Returns the name of the written map.
            pub const fn map(&self) -> &'static str {
                match self {
                    $(Self::$op { .. } => $map::NAME,)+
                }
            }

            /// Returns the position in a plan: the position of the variant.
            pub(super) const fn phase(&self) -> u8 {
                match self {
                    $(Self::$op { .. } => Position::$op as u8,)+
                }
            }

            /// Carries out the operation.
            ///
            /// # Errors
            /// The write failed.
            pub fn write_to<W: EntryWriter>(&self, maps: &mut W) -> Result<(), W::Error> {
                match self {
                    $(Self::$op($($arg),+) => {
                        let $maps = maps;
                        $write
                    })+
                }
            }
        }

        impl fmt::Display for MapOp {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$op($($arg),+) => {
                        // The text of some operations leaves values out.
                        let _ = ($($arg,)+);
                        write!(f, $($text)+)
                    })+
                }
            }
        }
    };
}

map_ops! {
    /// Make: hooks leave programs of a cgroup alone.
    PutExcluded(cgroup: u64) in Excluded {
        text: ("exclude cgroup {cgroup}"),
        write: |maps| maps.insert::<Excluded>(cgroup, &1),
    }
    /// Make: zeroes the counters of a backend id, for its new owner.
    ResetLoad(id: u32) in BackendStatsMap {
        text: ("reset counters of backend {id}"),
        write: |maps| maps.reset_backend_stats(*id),
    }
    /// Make: zeroes the counters of a service id, for its new owner.
    ResetServiceLoad(id: u32) in ServiceStatsMap {
        text: ("reset counters of service {id}"),
        write: |maps| maps.reset_service_stats(*id),
    }
    /// Make: names the owner of a backend id.
    PutBackendName(id: u32, name: String) in BackendNames {
        text: ("name backend {id} {name}"),
        write: |maps| maps.insert::<BackendNames>(id, &Name::new(name)),
    }
    /// Make: adds a backend, or changes one that may take the same traffic or more.
    PutBackend(id: u32, backend: Backend) in Backends {
        text: ("put backend {id} {}", DisplayBackend(backend)),
        write: |maps| maps.set_backend(*id, backend),
    }
    /// Make: a new range of slots.
    PutSlots(base: u32, slots: Vec<Slot>) in Slots {
        text: ("put slots {base}..{}", *base as usize + slots.len()),
        write: |maps| maps.set_slots(*base, slots.iter().copied()),
    }
    /// Make: clients of a network may connect. Before the settings, which say that there is an allow list.
    PutAllow(key: SourceRangeKey) in SourceRanges {
        text: ("allow {} to service {}", DisplayNetwork(key), key.network.service),
        write: |maps| maps.set_source_range(key, true),
    }
    /// Make: programs of a cgroup may connect.
    PutAllowCgroup(key: SourceCgroup) in SourceCgroups {
        text: ("allow cgroup {} to service {}", key.cgroup, key.service),
        write: |maps| maps.insert::<SourceCgroups>(key, &1),
    }
    /// Make: sets the settings of a service.
    PutService(id: u32, settings: Service) in Services {
        text: ("put service {id} {}", DisplaySettings(settings)),
        write: |maps| maps.set_service(*id, settings),
    }
    /// Make: names the owner of a service id.
    PutServiceName(id: u32, name: String) in ServiceNames {
        text: ("name service {id} {name}"),
        write: |maps| maps.insert::<ServiceNames>(id, &Name::new(name)),
    }
    /// Switch: replaces all backends of a service by one store.
    PutSlotRange(id: u32, head: SlotRange) in SlotRanges {
        text: ("switch service {id} to {} slots from {}", head.length(), head.base()),
        write: |maps| maps.set_slot_range(*id, *head),
    }
    /// Switch: marks a port as a service port. Before the first service of the port.
    SetPort(port: Port, number: u8) in Ports {
        text: ("set port {}/{}", port.get(), protocol(*number)),
        write: |maps| maps.set_port(*port, *number, true),
    }
    /// Switch: an address has no class any more. Before new addresses, which may need its entry.
    DelAddress(address: Address) in Addresses {
        text: ("delete address {}", IpAddr::from(*address)),
        write: |maps| maps.remove::<Addresses>(address),
    }
    /// Switch: an address gets a class. Before the services of that class: only this entry tells which class a virtual
    /// address has. If a plan stopped in between, the next plan would make the services again.
    PutAddress(address: Address, class: Class) in Addresses {
        text: ("put address {} class {}", IpAddr::from(*address), class.0),
        write: |maps| maps.insert::<Addresses>(address, class),
    }
    /// Switch: publishes a new service.
    PutFrontend(frontend: Frontend, id: u32) in Frontends {
        text: ("put frontend {} service {id}", DisplayFrontend(frontend)),
        write: |maps| maps.insert::<Frontends>(frontend, id),
    }
    /// Switch: withdraws a service.
    DelFrontend(frontend: Frontend) in Frontends {
        text: ("delete frontend {}", DisplayFrontend(frontend)),
        write: |maps| maps.remove::<Frontends>(frontend),
    }
    /// Break, at once: a port is no service port any more.
    ClearPort(port: Port, number: u8) in Ports {
        text: ("clear port {}/{}", port.get(), protocol(*number)),
        write: |maps| maps.set_port(*port, *number, false),
    }
    /// Break, at once: changes a backend that takes less traffic than before, once no slot draws it any more.
    DemoteBackend(id: u32, backend: Backend) in Backends {
        text: ("demote backend {id} {}", DisplayBackend(backend)),
        write: |maps| maps.set_backend(*id, backend),
    }
    /// Break: removes a network from an allow list. At once if the service stays, else after quarantine.
    DelAllow(key: SourceRangeKey) in SourceRanges {
        text: ("no longer allow {} to service {}", DisplayNetwork(key), key.network.service),
        write: |maps| maps.set_source_range(key, false),
    }
    /// Break: removes a cgroup from an allow list.
    DelAllowCgroup(key: SourceCgroup) in SourceCgroups {
        text: ("no longer allow cgroup {} to service {}", key.cgroup, key.service),
        write: |maps| maps.remove::<SourceCgroups>(key),
    }
    /// Break, at once: hooks no longer leave programs of a cgroup alone.
    DelExcluded(cgroup: u64) in Excluded {
        text: ("no longer exclude cgroup {cgroup}"),
        write: |maps| maps.remove::<Excluded>(cgroup),
    }
    /// Break, after quarantine: clears a range of slots that no service uses.
    ClearSlots(base: u32, length: u32) in Slots {
        text: ("clear slots {base}..{}", base + length),
        write: |maps| maps.set_slots(*base, (0..*length).map(|_| Slot::default())),
    }
    /// Break, after quarantine: clears the slot range of a withdrawn service, but keeps the count of its switches.
    ClearHead(id: u32, head: SlotRange) in SlotRanges {
        text: ("clear slot range of service {id}"),
        write: |maps| maps.set_slot_range(*id, *head),
    }
    /// Break, after quarantine: deletes the name of a service id. Before the settings, which say that the service
    /// exists: an agent killed between the two would leave a name that no agent ever deletes.
    DelServiceName(id: u32) in ServiceNames {
        text: ("delete name of service {id}"),
        write: |maps| maps.remove::<ServiceNames>(id),
    }
    /// Break, after quarantine: clears the settings of a withdrawn service.
    ClearService(id: u32) in Services {
        text: ("clear service {id}"),
        write: |maps| maps.set_service(*id, &Service::FREE),
    }
    /// Break, after quarantine: deletes the name of a backend id.
    DelBackendName(id: u32) in BackendNames {
        text: ("delete name of backend {id}"),
        write: |maps| maps.remove::<BackendNames>(id),
    }
    /// Break, after quarantine: frees a backend id that no socket uses, but keeps the count of its owners.
    FreeBackend(id: u32, backend: Backend) in Backends {
        text: ("free backend {id}"),
        write: |maps| maps.set_backend(*id, backend),
    }
}

#[cfg(test)]
mod tests {
    use proxymatic_common::{BackendState, Policy, SourceCode};

    use super::*;

    /// One operation of each kind, with the number of its position and its map.
    fn all() -> [(MapOp, u8, &'static str); 27] {
        let backend = Backend { state: BackendState::ACTIVE, ..Backend::free(1) };
        let service = Service::new(Policy::RANDOM, SourceCode::FILE);
        let (range, port) = (SlotRange::default(), Port::new(80));
        let frontend = Frontend::new(Class::HOST, port, 6);
        let address = Address::from(IpAddr::from([192, 0, 2, 1]));
        let network = SourceRangeKey::new(3, address, 32);
        let cgroup = SourceCgroup { cgroup: 7, service: 3, _pad: 0 };
        [
            (MapOp::PutExcluded(7), 0, "EXCLUDED"),
            (MapOp::ResetLoad(1), 1, "BACKEND_STATS"),
            (MapOp::ResetServiceLoad(3), 2, "SERVICE_STATS"),
            (MapOp::PutBackendName(1, "web.1".into()), 3, "BACKEND_NAMES"),
            (MapOp::PutBackend(1, backend), 4, "BACKENDS"),
            (MapOp::PutSlots(5, vec![Slot::default(); 2]), 5, "SLOTS"),
            (MapOp::PutAllow(network), 6, "SOURCE_RANGES"),
            (MapOp::PutAllowCgroup(cgroup), 7, "SOURCE_CGROUPS"),
            (MapOp::PutService(3, service), 8, "SERVICES"),
            (MapOp::PutServiceName(3, "/web".into()), 9, "SERVICE_NAMES"),
            (MapOp::PutSlotRange(3, range), 10, "SLOT_RANGES"),
            (MapOp::SetPort(port, 6), 11, "PORTS"),
            (MapOp::DelAddress(address), 12, "ADDRESSES"),
            (MapOp::PutAddress(address, Class::HOST), 13, "ADDRESSES"),
            (MapOp::PutFrontend(frontend, 3), 14, "FRONTENDS"),
            (MapOp::DelFrontend(frontend), 15, "FRONTENDS"),
            (MapOp::ClearPort(port, 17), 16, "PORTS"),
            (MapOp::DemoteBackend(1, backend), 17, "BACKENDS"),
            (MapOp::DelAllow(network), 18, "SOURCE_RANGES"),
            (MapOp::DelAllowCgroup(cgroup), 19, "SOURCE_CGROUPS"),
            (MapOp::DelExcluded(7), 20, "EXCLUDED"),
            (MapOp::ClearSlots(5, 2), 21, "SLOTS"),
            (MapOp::ClearHead(3, range), 22, "SLOT_RANGES"),
            (MapOp::DelServiceName(3), 23, "SERVICE_NAMES"),
            (MapOp::ClearService(3), 24, "SERVICES"),
            (MapOp::DelBackendName(1), 25, "BACKEND_NAMES"),
            (MapOp::FreeBackend(1, backend), 26, "BACKENDS"),
        ]
    }

    #[test]
    fn op_has_its_position_and_its_map() {
        for (op, phase, map) in all() {
            assert_eq!((op.phase(), op.map()), (phase, map), "{op}");
        }
    }

    #[test]
    fn op_is_displayed_as_a_sentence() {
        let lines: Vec<_> = all().iter().map(|(op, ..)| op.to_string()).collect();
        expect_test::expect![[r#"
            exclude cgroup 7
            reset counters of backend 1
            reset counters of service 3
            name backend 1 web.1
            put backend 1 0.0.0.0:0 active weight 0
            put slots 5..7
            allow 192.0.2.1/32 to service 3
            allow cgroup 7 to service 3
            put service 3 random
            name service 3 /web
            switch service 3 to 0 slots from 0
            set port 80/tcp
            delete address 192.0.2.1
            put address 192.0.2.1 class 1
            put frontend 80/tcp class 1 service 3
            delete frontend 80/tcp class 1
            clear port 80/udp
            demote backend 1 0.0.0.0:0 active weight 0
            no longer allow 192.0.2.1/32 to service 3
            no longer allow cgroup 7 to service 3
            no longer exclude cgroup 7
            clear slots 5..7
            clear slot range of service 3
            delete name of service 3
            clear service 3
            delete name of backend 1
            free backend 1"#]]
        .assert_eq(&lines.join("\n"));
    }
}
