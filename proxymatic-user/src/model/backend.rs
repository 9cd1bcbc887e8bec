//! One replica of a service.

use std::net::IpAddr;

/// The highest weight a backend can have, as in the labels of `meltwater/proxymatic`.
pub const MAX_WEIGHT: u16 = 1000;

/// The share of new connections a backend gets, relative to the others of its service: 0 to [`MAX_WEIGHT`].
///
/// 0 gives a backend no new connections and keeps its open ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u16);

impl Weight {
    /// A weight, or `None` above [`MAX_WEIGHT`].
    pub const fn new(weight: u16) -> Option<Self> {
        if weight <= MAX_WEIGHT { Some(Self(weight)) } else { None }
    }

    /// The number, 0 to [`MAX_WEIGHT`].
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

/// Whether a backend may be given new connections, by what Marathon says of its task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Runs, but its health or readiness is not known yet: no traffic.
    Warming,
    /// Takes new connections.
    Active,
    /// Takes no new connections; the open ones stay.
    Draining,
}

/// One replica of a service: where it listens, and how much it may be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// The Mesos task. It is the identity: hosts and ports are re-used by other tasks within seconds.
    pub task: String,
    /// Where it listens.
    pub address: IpAddr,
    /// The port it listens on, 1 to 65,535.
    pub port: u16,
    /// Its share of new connections.
    pub weight: Weight,
    /// The most connections it may have open from this host; 0 for no bound.
    pub maxconn: u32,
    /// What Marathon says of it.
    pub state: State,
}
