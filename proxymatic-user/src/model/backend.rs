//! A backend: one replica of a service.

use std::net::IpAddr;

/// The highest weight of a backend, as in the labels of `meltwater/proxymatic`.
pub const MAX_WEIGHT: u16 = 1000;

/// A backend's share of new connections, relative to the other backends of its service: 0 to [`MAX_WEIGHT`].
///
/// A backend with weight 0 gets no new connections and keeps its open ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u16);

impl Weight {
    /// Makes a weight; `None` above [`MAX_WEIGHT`].
    pub const fn new(weight: u16) -> Option<Self> {
        if weight <= MAX_WEIGHT { Some(Self(weight)) } else { None }
    }

    /// Returns the number, 0 to [`MAX_WEIGHT`].
    pub const fn get(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    /// 500, the default of the labels of `meltwater/proxymatic`.
    fn default() -> Self {
        Self(500)
    }
}

/// Whether a backend may take new connections, according to its source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Runs, but its health or readiness is not known yet: takes no traffic.
    Warming,
    /// Takes new connections.
    Active,
    /// Takes no new connections; the open ones stay.
    Draining,
}

/// A backend: its address, and how much traffic it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The Mesos task id. It identifies the backend, because other tasks reuse a host and port within seconds.
    pub task: String,
    /// The address on which the backend listens.
    pub address: IpAddr,
    /// The port on which the backend listens, 1 to 65,535.
    pub port: u16,
    /// The share of new connections.
    pub weight: Weight,
    /// The limit of open connections from this host; 0 for none.
    pub maxconn: u32,
    /// The state according to the source.
    pub state: State,
}
