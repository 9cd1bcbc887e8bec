//! The output of `proxymatic -j service show`, parsed without the types that print it, so that tests check the format.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

/// One service.
#[derive(Debug, Clone, Deserialize)]
pub struct Service {
    /// The Marathon app's id.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// A virtual address, or `None` for every address of the host.
    pub address: Option<IpAddr>,
    /// The port that clients connect to.
    pub port: u16,
    /// The source of the service.
    pub source: String,
    /// The policy.
    pub policy: String,
    /// The backends.
    pub backends: Vec<Backend>,
}

/// One backend of a service.
#[derive(Debug, Clone, Deserialize)]
pub struct Backend {
    /// The replica's address.
    pub address: IpAddr,
    /// The replica's port.
    pub port: u16,
    /// Its share of new connections.
    pub weight: u32,
    /// Its maxconn; 0 or `None` for no limit.
    pub maxconn: Option<u32>,
    /// `warming`, `active`, `draining`, `ejected` or `full`.
    pub state: String,
    /// Connections that are open now.
    pub active: u64,
    /// Connections ever opened.
    pub total: u64,
    /// Failed connects to it.
    pub failed: u64,
    /// The Mesos task behind it.
    pub task: Option<String>,
}

impl Service {
    /// The backends that get new connections.
    pub fn active(&self) -> impl Iterator<Item = &Backend> {
        self.backends.iter().filter(|backend| backend.state == "active")
    }

    /// Whether this replica gets new connections.
    #[must_use]
    pub fn is_active(&self, replica: SocketAddr) -> bool {
        self.active().any(|backend| SocketAddr::from((backend.address, backend.port)) == replica)
    }
}
