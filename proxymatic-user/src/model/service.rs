//! A service: a port that programs dial, and the replicas behind it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use super::{Backend, Settings};

/// The protocol of a service port. One port may be two services, one for each.
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

/// What makes a service the same service from one answer to the next: what programs dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceKey {
    /// A virtual address; `None` for every address of the host.
    pub address: Option<IpAddr>,
    /// The service port, 1 to 65,535.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl ServiceKey {
    /// A service on every address of the host.
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
    /// The Marathon app id. Where several apps share the port, the first in order of id.
    pub name: String,
    /// The replicas, sorted by task, then address and port; no two the same.
    pub backends: Vec<Backend>,
    /// How it is served.
    pub settings: Settings,
}
