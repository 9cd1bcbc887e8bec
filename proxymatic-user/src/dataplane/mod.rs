//! Where plans are carried out: one operation, one map write. No decisions, and the only room that can fail at it.

mod adopt;
pub mod kernel;
mod memory;

pub use adopt::{MapReader, adopt};
pub use memory::{Faults, Memory};

use std::{collections::BTreeMap, time::Duration};

use crate::plan::{MapOp, MapState};

/// Tables that can be read once and then written.
pub trait Dataplane {
    /// What the maps hold: what an agent starts from, whoever wrote it.
    ///
    /// # Errors
    /// The maps cannot be read.
    fn tables(&self) -> Result<MapState, Error>;

    /// Whether a complete answer of the sources has ever been applied. Maps that were made by this start hold nothing, and
    /// those of an agent that died in its first plan hold part of something.
    fn is_complete(&self) -> bool;

    /// Carries out one write.
    ///
    /// # Errors
    /// The kernel said no; nothing was written.
    fn apply(&mut self, op: &MapOp) -> Result<(), Error>;

    /// The id of a cgroup by its path from the root of the host's tree; `None` where there is none.
    fn cgroup(&self, path: &str) -> Option<u64>;

    /// How many connections to a backend are open.
    fn active(&self, backend: u32) -> u64;

    /// What the hooks count of a backend.
    fn counts(&self, backend: u32) -> Counts;

    /// What the hooks count of a service. It is never ejected.
    fn service_counts(&self, service: u32) -> Counts;

    /// Keeps new connections away from a backend, for so long from now.
    fn eject(&mut self, backend: u32, time: Duration);

    /// Lets connections to a backend again, as if it had never failed.
    fn readmit(&mut self, backend: u32);

    /// Counts so many more connections to a backend as open, or fewer where below zero.
    fn correct(&mut self, backend: u32, by: i64);

    /// The same of a service.
    fn correct_service(&mut self, service: u32, by: i64);

    /// Where the hooks ask for listeners; `None` for nowhere.
    fn listener_scope(&self) -> Option<ListenerScope>;

    /// What is known of who listens on the port of a service; `None` where there is no such id.
    fn listener_seq(&self, service: u32) -> Option<ListenerSeq>;

    /// Has the hooks look for a listener on the port of a service only when [`ListenerSeq::bound`] is not this number.
    fn set_no_listener(&mut self, service: u32, bound: u64);

    /// The backends that the operator drains: id, and which of its owners in turn is meant.
    fn drained(&self) -> BTreeMap<u32, u32>;

    /// Notes that a backend is to be drained, as the operator would.
    fn drain(&mut self, backend: u32, generation: u32);

    /// Forgets that a backend is to be drained: it is not there any more.
    fn forget_drained(&mut self, backend: u32);

    /// Tells the hooks, and those who look at the pins, of the agent.
    fn publish_status(&mut self, said: AgentReport);

    /// Whether connections go by these tables. Not yet, where another version of the layouts is to be replaced.
    fn is_serving(&self) -> bool {
        true
    }

    /// The tables say all that every source says: from now on connections go by them.
    ///
    /// # Errors
    /// The kernel said no; whoever served goes on.
    fn take_over(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// What the hooks count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections opened, ever.
    pub opened: u64,
    /// Connections closed, ever; those open are the difference.
    pub closed: u64,
    /// For how long from now it is ejected; zero for not at all.
    pub ejected: Duration,
}

/// In which network namespaces the hooks ask for listeners.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListenerScope {
    /// In the agent's own.
    Host,
    /// In all.
    All,
}

/// What is known of who listens on a service port. While both numbers are the same, nobody does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerSeq {
    /// How often somebody has bound the port or begun to listen.
    pub bound: u64,
    /// What that was when nobody listened.
    pub unheard: u64,
}

/// What the agent says of itself, each time round its loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentReport {
    /// What it is at.
    pub agent: proxymatic_common::AgentState,
    /// Whether a complete answer of the sources has just been applied.
    pub synced: bool,
}

/// Why the data plane could not be used. Each is one sentence for an operator, remedy included where there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host lacks something.
    #[error("{what}; {remedy}")]
    Host {
        /// What is missing, and where it was looked for.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// Another agent has the pins.
    #[error("another agent holds {path}: {holder}; stop it first, or use another --bpffs")]
    Locked {
        /// The folder of the pins.
        path: String,
        /// Who has it, as far as can be told.
        holder: String,
    },
    /// Nothing is pinned.
    #[error("nothing is pinned under {path}; start the agent there (proxymatic run), or name its folder with --bpffs")]
    NoPins {
        /// Where it was looked for.
        path: String,
    },
    /// The kernel refused a program, a map, a link or a pin.
    #[error("cannot {action}: {reason}")]
    Kernel {
        /// What was tried, and on what.
        action: String,
        /// What the kernel said.
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
