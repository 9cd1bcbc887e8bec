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
