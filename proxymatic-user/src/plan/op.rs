//! One write to one map, as a value that can be compared, ordered and displayed.

use std::{fmt, net::IpAddr};

use proxymatic_common::{
    Address, Backend, Class, Frontend, Port, Service, Slot, SlotRange, SourceCgroup, SourceRangeKey,
};

use super::display;

/// One write to one map. The order of the variants is the order of execution within a plan: make what hooks cannot see
/// yet, switch, then break what they no longer see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    /// Make: hooks leave programs of a cgroup alone.
    PutExcluded(u64),
    /// Make: zeroes the counters of a backend id, for its new owner.
    ResetLoad(u32),
    /// Make: zeroes the counters of a service id, for its new owner.
    ResetServiceLoad(u32),
    /// Make: names the owner of a backend id.
    PutBackendName(u32, String),
    /// Make: adds a backend, or changes one that may take the same traffic or more.
    PutBackend(u32, Backend),
    /// Make: a new range of slots.
    PutSlots(u32, Vec<Slot>),
    /// Make: clients of a network may connect. Before the settings, which say that there is an allow list.
    PutAllow(SourceRangeKey),
    /// Make: programs of a cgroup may connect.
    PutAllowCgroup(SourceCgroup),
    /// Make: sets the settings of a service.
    PutService(u32, Service),
    /// Make: names the owner of a service id.
    PutServiceName(u32, String),
    /// Switch: replaces all backends of a service by one store.
    PutSlotRange(u32, SlotRange),
    /// Switch: marks a port as a service port. Before the first service of the port.
    SetPort(Port, u8),
    /// Switch: an address has no class any more. Before new addresses, which may need its entry.
    DelAddress(Address),
    /// Switch: an address gets a class. Before the services of that class: only this entry tells which class a virtual
    /// address has. If a plan stopped in between, the next plan would make the services again.
    PutAddress(Address, Class),
    /// Switch: publishes a new service.
    PutFrontend(Frontend, u32),
    /// Switch: withdraws a service.
    DelFrontend(Frontend),
    /// Break, at once: a port is no service port any more.
    ClearPort(Port, u8),
    /// Break, at once: changes a backend that takes less traffic than before, once no slot draws it any more.
    DemoteBackend(u32, Backend),
    /// Break: removes a network from an allow list. At once if the service stays, else after quarantine.
    DelAllow(SourceRangeKey),
    /// Break: removes a cgroup from an allow list.
    DelAllowCgroup(SourceCgroup),
    /// Break, at once: hooks no longer leave programs of a cgroup alone.
    DelExcluded(u64),
    /// Break, after quarantine: clears a range of slots that no service uses.
    ClearSlots(u32, u32),
    /// Break, after quarantine: clears the slot range of a withdrawn service, but keeps the count of its switches.
    ClearHead(u32, SlotRange),
    /// Break, after quarantine: deletes the name of a service id. Before the settings, which say that the service
    /// exists: an agent killed between the two would leave a name that no agent ever deletes.
    DelServiceName(u32),
    /// Break, after quarantine: clears the settings of a withdrawn service.
    ClearService(u32),
    /// Break, after quarantine: deletes the name of a backend id.
    DelBackendName(u32),
    /// Break, after quarantine: frees a backend id that no socket uses, but keeps the count of its owners.
    FreeBackend(u32, Backend),
}

impl MapOp {
    /// Returns the name of the written map.
    pub const fn map(&self) -> &'static str {
        match self {
            Self::PutExcluded(..) | Self::DelExcluded(..) => "EXCLUDED",
            Self::ResetLoad(..) => "BACKEND_STATS",
            Self::ResetServiceLoad(..) => "SERVICE_STATS",
            Self::PutAllow(..) | Self::DelAllow(..) => "SOURCE_RANGES",
            Self::PutAllowCgroup(..) | Self::DelAllowCgroup(..) => "SOURCE_CGROUPS",
            Self::SetPort(..) | Self::ClearPort(..) => "PORTS",
            Self::PutBackendName(..) | Self::DelBackendName(..) => "BACKEND_NAMES",
            Self::PutBackend(..) | Self::DemoteBackend(..) | Self::FreeBackend(..) => "BACKENDS",
            Self::PutSlots(..) | Self::ClearSlots(..) => "SLOTS",
            Self::PutService(..) | Self::ClearService(..) => "SERVICES",
            Self::PutServiceName(..) | Self::DelServiceName(..) => "SERVICE_NAMES",
            Self::PutSlotRange(..) | Self::ClearHead(..) => "SLOT_RANGES",
            Self::PutFrontend(..) | Self::DelFrontend(..) => "FRONTENDS",
            Self::PutAddress(..) | Self::DelAddress(..) => "ADDRESSES",
        }
    }

    /// Returns the position in a plan: the position of the variant.
    pub(super) const fn phase(&self) -> u8 {
        match self {
            Self::PutExcluded(..) => 0,
            Self::ResetLoad(..) => 1,
            Self::ResetServiceLoad(..) => 2,
            Self::PutBackendName(..) => 3,
            Self::PutBackend(..) => 4,
            Self::PutSlots(..) => 5,
            Self::PutAllow(..) => 6,
            Self::PutAllowCgroup(..) => 7,
            Self::PutService(..) => 8,
            Self::PutServiceName(..) => 9,
            Self::PutSlotRange(..) => 10,
            Self::SetPort(..) => 11,
            Self::DelAddress(..) => 12,
            Self::PutAddress(..) => 13,
            Self::PutFrontend(..) => 14,
            Self::DelFrontend(..) => 15,
            Self::ClearPort(..) => 16,
            Self::DemoteBackend(..) => 17,
            Self::DelAllow(..) => 18,
            Self::DelAllowCgroup(..) => 19,
            Self::DelExcluded(..) => 20,
            Self::ClearSlots(..) => 21,
            Self::ClearHead(..) => 22,
            Self::DelServiceName(..) => 23,
            Self::ClearService(..) => 24,
            Self::DelBackendName(..) => 25,
            Self::FreeBackend(..) => 26,
        }
    }
}

impl fmt::Display for MapOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PutExcluded(cgroup) => write!(f, "exclude cgroup {cgroup}"),
            Self::ResetServiceLoad(id) => write!(f, "reset counters of service {id}"),
            Self::PutAllow(key) => {
                write!(f, "allow {} to service {}", display::DisplayNetwork(key), key.network.service)
            }
            Self::PutAllowCgroup(key) => write!(f, "allow cgroup {} to service {}", key.cgroup, key.service),
            Self::SetPort(port, protocol) => write!(f, "set port {}/{}", port.get(), display::protocol(*protocol)),
            Self::ClearPort(port, protocol) => write!(f, "clear port {}/{}", port.get(), display::protocol(*protocol)),
            Self::DelAllow(key) => {
                write!(f, "no longer allow {} to service {}", display::DisplayNetwork(key), key.network.service)
            }
            Self::DelAllowCgroup(key) => write!(f, "no longer allow cgroup {} to service {}", key.cgroup, key.service),
            Self::DelExcluded(cgroup) => write!(f, "no longer exclude cgroup {cgroup}"),
            Self::ResetLoad(id) => write!(f, "reset counters of backend {id}"),
            Self::PutBackendName(id, name) => write!(f, "name backend {id} {name}"),
            Self::PutBackend(id, backend) => write!(f, "put backend {id} {}", display::DisplayBackend(backend)),
            Self::PutSlots(base, slots) => write!(f, "put slots {base}..{}", *base as usize + slots.len()),
            Self::PutService(id, settings) => write!(f, "put service {id} {}", display::DisplaySettings(settings)),
            Self::PutServiceName(id, name) => write!(f, "name service {id} {name}"),
            Self::PutSlotRange(id, head) => {
                write!(f, "switch service {id} to {} slots from {}", head.length(), head.base())
            }
            Self::PutFrontend(frontend, id) => {
                write!(f, "put frontend {} service {id}", display::DisplayFrontend(frontend))
            }
            Self::PutAddress(address, class) => write!(f, "put address {} class {}", IpAddr::from(*address), class.0),
            Self::DelAddress(address) => write!(f, "delete address {}", IpAddr::from(*address)),
            Self::DelFrontend(frontend) => write!(f, "delete frontend {}", display::DisplayFrontend(frontend)),
            Self::DemoteBackend(id, backend) => write!(f, "demote backend {id} {}", display::DisplayBackend(backend)),
            Self::ClearSlots(base, length) => write!(f, "clear slots {base}..{}", base + length),
            Self::ClearHead(id, _) => write!(f, "clear slot range of service {id}"),
            Self::ClearService(id) => write!(f, "clear service {id}"),
            Self::DelServiceName(id) => write!(f, "delete name of service {id}"),
            Self::DelBackendName(id) => write!(f, "delete name of backend {id}"),
            Self::FreeBackend(id, _) => write!(f, "free backend {id}"),
        }
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
        let cgroup = SourceCgroup { cgroup: 7, service: 3, zero: 0 };
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
