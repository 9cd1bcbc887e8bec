//! One write to one map, as a value that can be compared, ordered and printed.

use std::{fmt, net::IpAddr};

use proxymatic_common::{Address, Backend, Class, Frontend, Head, PROTOCOL_TCP, Service, Slot};

/// One write to one map. The order of the variants is the order of execution within a plan: make what nobody sees yet,
/// switch, then take away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    /// Make: zero the counts of a backend id, for its new owner.
    ResetLoad(u32),
    /// Make: say whose a backend id is.
    PutBackendName(u32, String),
    /// Make: a new backend, or one that may now be given more than before.
    PutBackend(u32, Backend),
    /// Make: a fresh range of slots.
    PutSlots(u32, Vec<Slot>),
    /// Make: the settings of a service.
    PutService(u32, Service),
    /// Make: say whose a service id is.
    PutServiceName(u32, String),
    /// Switch: one store that replaces all backends of a service.
    PutHead(u32, Head),
    /// Switch: a new service can be found.
    PutFrontend(Frontend, u32),
    /// Switch: an address means a class.
    PutAddress(Address, Class),
    /// Switch: an address means nothing to us any more.
    DelAddress(Address),
    /// Switch: a service is not found any more.
    DelFrontend(Frontend),
    /// Break, at once: a backend that is given less than before, since nobody is sent to it any more.
    LowerBackend(u32, Backend),
    /// Break, after quarantine: a range of slots that no head names.
    ClearSlots(u32, u32),
    /// Break, after quarantine: the head of a service that cannot be found, keeping count of its switches.
    ClearHead(u32, Head),
    /// Break, after quarantine: the settings of a service that cannot be found.
    ClearService(u32),
    /// Break, after quarantine: whose a service id was.
    DelServiceName(u32),
    /// Break, after quarantine: whose a backend id was.
    DelBackendName(u32),
    /// Break, after quarantine: a backend id that no socket uses, keeping count of its owners.
    FreeBackend(u32, Backend),
}

impl MapOp {
    /// The name of the map that is written.
    pub const fn map(&self) -> &'static str {
        match self {
            Self::ResetLoad(..) => "LOAD",
            Self::PutBackendName(..) | Self::DelBackendName(..) => "BACKEND_NAMES",
            Self::PutBackend(..) | Self::LowerBackend(..) | Self::FreeBackend(..) => "BACKENDS",
            Self::PutSlots(..) | Self::ClearSlots(..) => "SLOTS",
            Self::PutService(..) | Self::ClearService(..) => "SERVICES",
            Self::PutServiceName(..) | Self::DelServiceName(..) => "SERVICE_NAMES",
            Self::PutHead(..) | Self::ClearHead(..) => "HEADS",
            Self::PutFrontend(..) | Self::DelFrontend(..) => "FRONTENDS",
            Self::PutAddress(..) | Self::DelAddress(..) => "ADDRESSES",
        }
    }

    /// Where in a plan it belongs: the position of its variant.
    pub(super) const fn phase(&self) -> u8 {
        match self {
            Self::ResetLoad(..) => 0,
            Self::PutBackendName(..) => 1,
            Self::PutBackend(..) => 2,
            Self::PutSlots(..) => 3,
            Self::PutService(..) => 4,
            Self::PutServiceName(..) => 5,
            Self::PutHead(..) => 6,
            Self::PutFrontend(..) => 7,
            Self::PutAddress(..) => 8,
            Self::DelAddress(..) => 9,
            Self::DelFrontend(..) => 10,
            Self::LowerBackend(..) => 11,
            Self::ClearSlots(..) => 12,
            Self::ClearHead(..) => 13,
            Self::ClearService(..) => 14,
            Self::DelServiceName(..) => 15,
            Self::DelBackendName(..) => 16,
            Self::FreeBackend(..) => 17,
        }
    }
}

impl fmt::Display for MapOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ResetLoad(id) => write!(f, "reset load of backend {id}"),
            Self::PutBackendName(id, name) => write!(f, "name backend {id} {name}"),
            Self::PutBackend(id, backend) => write!(f, "put backend {id} {}", Shown(backend)),
            Self::PutSlots(base, slots) => write!(f, "put slots {base}..{}", *base as usize + slots.len()),
            Self::PutService(id, _) => write!(f, "put service {id}"),
            Self::PutServiceName(id, name) => write!(f, "name service {id} {name}"),
            Self::PutHead(id, head) => {
                write!(f, "switch service {id} to {} slots from {}", head.length(), head.base())
            }
            Self::PutFrontend(frontend, id) => write!(f, "put frontend {} service {id}", Dialled(frontend)),
            Self::PutAddress(address, class) => write!(f, "put address {} class {}", IpAddr::from(*address), class.0),
            Self::DelAddress(address) => write!(f, "delete address {}", IpAddr::from(*address)),
            Self::DelFrontend(frontend) => write!(f, "delete frontend {}", Dialled(frontend)),
            Self::LowerBackend(id, backend) => write!(f, "lower backend {id} {}", Shown(backend)),
            Self::ClearSlots(base, length) => write!(f, "clear slots {base}..{}", base + length),
            Self::ClearHead(id, _) => write!(f, "clear head of service {id}"),
            Self::ClearService(id) => write!(f, "clear service {id}"),
            Self::DelServiceName(id) => write!(f, "delete name of service {id}"),
            Self::DelBackendName(id) => write!(f, "delete name of backend {id}"),
            Self::FreeBackend(id, _) => write!(f, "free backend {id}"),
        }
    }
}

struct Shown<'a>(&'a Backend);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Backend { address, port, state, weight, maxconn, .. } = self.0;
        let socket = std::net::SocketAddr::new(IpAddr::from(*address), port.get());
        write!(f, "{socket} {} weight {weight}", state.name())?;
        if *maxconn != 0 { write!(f, " maxconn {maxconn}") } else { Ok(()) }
    }
}

struct Dialled<'a>(&'a Frontend);

impl fmt::Display for Dialled<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = if self.0.protocol == PROTOCOL_TCP { "tcp" } else { "udp" };
        write!(f, "{}/{protocol} class {}", self.0.port.get(), self.0.class.0)
    }
}
