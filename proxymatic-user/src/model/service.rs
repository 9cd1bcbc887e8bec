//! A service: a port to which programs connect, and its backends.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use super::{Backend, Settings};

/// The longest time after its start for which a task can count as new.
pub const MAX_NEW: Duration = Duration::from_secs(60);

/// The protocol of a service port. One port may have two services, one for each protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// The key of a service: it identifies the service across snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceKey {
    /// A virtual address; `None` for every address of the host.
    pub address: Option<IpAddr>,
    /// The service port, 1 to 65,535.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

impl ServiceKey {
    /// Makes the key of a service on every address of the host.
    pub const fn host(port: u16, protocol: Protocol) -> Self {
        Self { address: None, port, protocol }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            None => write!(f, "{}/{}", self.port, self.protocol),
            Some(address) => write!(f, "{}/{}", SocketAddr::new(address, self.port), self.protocol),
        }
    }
}

/// A service, as one source describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// The id of the Marathon app that owns the service; of a named virtual address, its name and port.
    pub name: String,
    /// The Marathon app or pod that owns the service, if that is certain: then it stays the owner. `None` for other sources.
    pub owner: Option<String>,
    /// The backends, sorted by task, then address and port; no two are equal.
    pub backends: Vec<Backend>,
    /// The settings.
    pub settings: Settings,
    /// The tasks that may be new and that no check of the source covers, by id. Tasks that are older than
    /// [`MAX_NEW`] need not be listed.
    pub unchecked: BTreeMap<String, Start>,
}

/// When a task that no check covers started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The source does not say.
    Unknown,
    /// At this moment by the clock of this host.
    At(Instant),
}
