//! Carries out plans: one operation is one map write. This room decides nothing.

mod adopt;
pub mod kernel;
mod memory;

pub use adopt::{MapReader, MapRows, adopt};
pub use memory::{Faults, Memory};

use std::{collections::BTreeMap, time::Duration};

use proxymatic_common::{ListenerEntry, ListenerKey};

use crate::plan::{MapOp, MapState};

/// A data plane: the maps, the counters in them, and the hooks that use them.
pub trait Dataplane: MapWriter + Counters + Takeover {}

impl<D: MapWriter + Counters + Takeover> Dataplane for D {}

/// The maps, which are read once and then written.
pub trait MapWriter {
    /// Returns what the maps hold: the state that an agent starts from.
    ///
    /// # Errors
    /// The maps cannot be read.
    fn tables(&self) -> Result<MapState, Error>;

    /// Returns whether a complete answer of the sources was ever applied. Maps that this start made hold nothing, and those
    /// of an agent that died in its first plan hold a part of it.
    fn is_complete(&self) -> bool;

    /// Carries out one write.
    ///
    /// # Errors
    /// The kernel refused the write; nothing was written.
    fn apply(&mut self, op: &MapOp) -> Result<(), Error>;

    /// Returns the id of a cgroup by its path from the root of the host's tree; `None` if it does not exist.
    fn cgroup(&self, path: &str) -> Option<u64>;

    /// Returns the backends that the operator drains: id and generation.
    fn drained(&self) -> BTreeMap<u32, u32>;

    /// Writes that the operator drains a backend.
    fn drain(&mut self, backend: u32, generation: u32);

    /// Removes the drain of a backend that is gone.
    fn forget_drained(&mut self, backend: u32);
}

/// The counters that hooks and agent both write.
pub trait Counters {
    /// Returns how many connections to a backend are open.
    fn active(&self, backend: u32) -> u64;

    /// Returns the counters of a backend.
    fn counts(&self, backend: u32) -> Counts;

    /// Returns the counters of a service. It is never ejected.
    fn service_counts(&self, service: u32) -> Counts;

    /// Keeps new connections away from a backend, for this time from now.
    fn eject(&mut self, backend: u32, time: Duration);

    /// Ends the ejection of a backend and forgets its failures.
    fn readmit(&mut self, backend: u32);

    /// Adds to the open connections that are counted for a backend; below zero, subtracts.
    fn correct(&mut self, backend: u32, by: i64);

    /// Adds to the open connections that are counted for a service; below zero, subtracts.
    fn correct_service(&mut self, service: u32, by: i64);

    /// Returns in which network namespaces the hooks look for listeners; `None` for in none.
    fn listener_scope(&self) -> Option<ListenerScope>;

    /// Returns what is known of listeners on the port of a service; `None` if the id does not exist.
    fn listener_seq(&self, service: u32) -> Option<ListenerSeq>;

    /// Sets [`ListenerSeq::no_listener_seq`]: the hooks look for a listener only while it differs from
    /// [`ListenerSeq::bind_seq`].
    fn set_no_listener(&mut self, service: u32, bind_seq: u64);

    /// Returns the listeners of the host that are published for the hooks.
    fn published_listeners(&self) -> BTreeMap<ListenerKey, ListenerEntry>;

    /// Publishes a listener of the host for the hooks; `None` removes it.
    fn publish_listener(&mut self, key: ListenerKey, entry: Option<ListenerEntry>);
}

/// The takeover from another map ABI version, and the agent's report to the hooks.
pub trait Takeover {
    /// Returns whether the hooks use these maps. They do not while another map ABI version is to be replaced.
    fn is_serving(&self) -> bool {
        true
    }

    /// Has the hooks use these maps from now on. Called when the maps hold the answers of all sources.
    ///
    /// # Errors
    /// The kernel refused a link; the other version goes on serving.
    fn take_over(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Writes the agent's state and heartbeat, for the hooks and the commands.
    fn publish_status(&mut self, report: AgentReport);
}

/// The counters of a backend or a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections opened since the id got its owner.
    pub opened: u64,
    /// Connections closed; the difference is how many are open.
    pub closed: u64,
    /// How long from now the backend stays ejected; zero if it is not.
    pub ejected: Duration,
}

/// The network namespaces in which the hooks look for listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerScope {
    /// The agent's own.
    Host,
    /// All.
    All,
}

/// What is known of listeners on a service port: there is none while both numbers are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerSeq {
    /// How often a process has bound the port or begun to listen.
    pub bind_seq: u64,
    /// The value of `bind_seq` at which there was no listener.
    pub no_listener_seq: u64,
}

/// The agent's report, written after each event that changes it and at each tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentReport {
    /// The agent's state.
    pub agent: proxymatic_common::AgentState,
    /// Whether a complete answer of the sources has just been applied.
    pub synced: bool,
}

/// Why the data plane could not be used: one sentence for the operator, with a remedy if there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host lacks something.
    #[error("{what}; {remedy}")]
    Host {
        /// What is missing, and where.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// Another agent holds the lock on the pins.
    #[error("another agent holds {path}: {holder}; stop it first, or use another --bpffs")]
    Locked {
        /// The folder of the pins.
        path: String,
        /// The process that holds it, as far as is known.
        holder: String,
    },
    /// Nothing is pinned.
    #[error("nothing is pinned under {path}; start the agent there (proxymatic run), or name its folder with --bpffs")]
    NoPins {
        /// The folder without pins.
        path: String,
    },
    /// The kernel refused a program, a map, a link or a pin.
    #[error("cannot {action}: {reason}")]
    Kernel {
        /// The action, and its object.
        action: String,
        /// The kernel's error.
        reason: String,
    },
}

impl Error {
    pub(crate) fn host(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Host { what: what.into(), remedy: remedy.into() }
    }

    pub(crate) fn kernel(action: impl Into<String>, reason: &dyn std::error::Error) -> Self {
        let mut text = reason.to_string();
        let mut cause = reason.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        Self::Kernel { action: action.into(), reason: text }
    }
}
