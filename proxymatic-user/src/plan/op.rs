//! One write to one map, as a value that can be compared, ordered and printed.

use std::{fmt, net::IpAddr};

use proxymatic_common::{
    Address, Backend, Class, Frontend, Port, Service, Slot, SlotRange, SourceCgroup, SourceRangeKey,
};

use super::display;

/// One write to one map. The order of the variants is the order of execution within a plan: make what nobody sees yet,
/// switch, then take away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    /// Make: programs of a cgroup are left alone.
    PutExcluded(u64),
    /// Make: zero the counts of a backend id, for its new owner.
    ResetLoad(u32),
    /// Make: zero the counts of a service id, for its new owner.
    ResetServiceLoad(u32),
    /// Make: say whose a backend id is.
    PutBackendName(u32, String),
    /// Make: a new backend, or one that may now be given more than before.
    PutBackend(u32, Backend),
    /// Make: a fresh range of slots.
    PutSlots(u32, Vec<Slot>),
    /// Make: clients of a network may connect. Before the settings that say that there is a list.
    PutAllow(SourceRangeKey),
    /// Make: programs of a cgroup may connect.
    PutAllowCgroup(SourceCgroup),
    /// Make: the settings of a service.
    PutService(u32, Service),
    /// Make: say whose a service id is.
    PutServiceName(u32, String),
    /// Switch: one store that replaces all backends of a service.
    PutSlotRange(u32, SlotRange),
    /// Switch: a port may be that of a service, so that it is worth a look. Before the first service of the port.
    SetPort(Port, u8),
    /// Switch: an address means nothing to us any more. Before those that come, which may need its place.
    DelAddress(Address),
    /// Switch: an address means a class. Before the services of that class: the class of a virtual address is known only by
    /// this entry, so that a plan that stops in between would leave services that the next plan makes once more.
    PutAddress(Address, Class),
    /// Switch: a new service can be found.
    PutFrontend(Frontend, u32),
    /// Switch: a service is not found any more.
    DelFrontend(Frontend),
    /// Break, at once: no service has a port any more.
    ClearPort(Port, u8),
    /// Break, at once: a backend that is given less than before, since nobody is sent to it any more.
    DemoteBackend(u32, Backend),
    /// Break: clients of a network are not named any more. At once where the service stays, else after quarantine.
    DelAllow(SourceRangeKey),
    /// Break: programs of a cgroup are not named any more.
    DelAllowCgroup(SourceCgroup),
    /// Break, at once: programs of a cgroup are not left alone any more.
    DelExcluded(u64),
    /// Break, after quarantine: a range of slots that no head names.
    ClearSlots(u32, u32),
    /// Break, after quarantine: the head of a service that cannot be found, keeping count of its switches.
    ClearHead(u32, SlotRange),
    /// Break, after quarantine: whose a service id was. Before the settings, which say that there is one: an agent that is
    /// killed between the two would leave a name that nobody looks for.
    DelServiceName(u32),
    /// Break, after quarantine: the settings of a service that cannot be found.
    ClearService(u32),
    /// Break, after quarantine: whose a backend id was.
    DelBackendName(u32),
    /// Break, after quarantine: a backend id that no socket uses, keeping count of its owners.
    FreeBackend(u32, Backend),
}

impl MapOp {
    /// The name of the map that is written.
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

    /// Where in a plan it belongs: the position of its variant.
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
            Self::ResetServiceLoad(id) => write!(f, "reset load of service {id}"),
            Self::PutAllow(key) => write!(f, "allow {} to service {}", display::Network(key), key.network.service),
            Self::PutAllowCgroup(key) => write!(f, "allow cgroup {} to service {}", key.cgroup, key.service),
            Self::SetPort(port, protocol) => write!(f, "set port {}/{}", port.get(), display::protocol(*protocol)),
            Self::ClearPort(port, protocol) => write!(f, "clear port {}/{}", port.get(), display::protocol(*protocol)),
            Self::DelAllow(key) => {
                write!(f, "no longer allow {} to service {}", display::Network(key), key.network.service)
            }
            Self::DelAllowCgroup(key) => write!(f, "no longer allow cgroup {} to service {}", key.cgroup, key.service),
            Self::DelExcluded(cgroup) => write!(f, "no longer exclude cgroup {cgroup}"),
            Self::ResetLoad(id) => write!(f, "reset load of backend {id}"),
            Self::PutBackendName(id, name) => write!(f, "name backend {id} {name}"),
            Self::PutBackend(id, backend) => write!(f, "put backend {id} {}", display::Replica(backend)),
            Self::PutSlots(base, slots) => write!(f, "put slots {base}..{}", *base as usize + slots.len()),
            Self::PutService(id, settings) => write!(f, "put service {id} {}", display::Settings(settings)),
            Self::PutServiceName(id, name) => write!(f, "name service {id} {name}"),
            Self::PutSlotRange(id, head) => {
                write!(f, "switch service {id} to {} slots from {}", head.length(), head.base())
            }
            Self::PutFrontend(frontend, id) => write!(f, "put frontend {} service {id}", display::Dialled(frontend)),
            Self::PutAddress(address, class) => write!(f, "put address {} class {}", IpAddr::from(*address), class.0),
            Self::DelAddress(address) => write!(f, "delete address {}", IpAddr::from(*address)),
            Self::DelFrontend(frontend) => write!(f, "delete frontend {}", display::Dialled(frontend)),
            Self::DemoteBackend(id, backend) => write!(f, "lower backend {id} {}", display::Replica(backend)),
            Self::ClearSlots(base, length) => write!(f, "clear slots {base}..{}", base + length),
            Self::ClearHead(id, _) => write!(f, "clear head of service {id}"),
            Self::ClearService(id) => write!(f, "clear service {id}"),
            Self::DelServiceName(id) => write!(f, "delete name of service {id}"),
            Self::DelBackendName(id) => write!(f, "delete name of backend {id}"),
            Self::FreeBackend(id, _) => write!(f, "free backend {id}"),
        }
    }
}
