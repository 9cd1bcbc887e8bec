//! The state file: the sources' last answers and the operator's drains. After a reboot the maps are empty, and Marathon
//! may be away for longer than services can be.
//!
//! The agent also runs without the file: if it is missing, damaged or another cluster's, the agent reports that and
//! goes on. [`encode`] and [`decode`] are pure.

mod file;
mod format;
mod keeper;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

pub use self::{
    file::{Loaded, StateFile},
    format::{Damage, MOST, VERSION, decode, encode},
    keeper::{Answer, Answers, Job},
};
use crate::{
    model::{ServiceKey, Snapshot},
    source::SourceId,
};

/// The sources' last answers, and the operator's drains.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Each source that has answered.
    pub sources: BTreeMap<SourceId, Saved>,
    /// The operator's drains. Pinned maps hold them too, but not maps of another ABI version.
    pub drained: BTreeSet<Drained>,
}

/// A backend that the operator drains, in one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Drained {
    /// The service.
    pub service: ServiceKey,
    /// The task. A task that later gets the same address and port is not drained.
    pub task: String,
    /// The address on which the task listens.
    pub address: IpAddr,
    /// The port on which the task listens.
    pub port: u16,
}

/// The last answer of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// The location of the source: URLs without credentials, or a path. Two sets with a common element mean the same
    /// source.
    pub of: BTreeSet<String>,
    /// The time of the request, in milliseconds of the wall clock since 1970.
    pub answered_ms: u64,
    /// The complete answer.
    pub snapshot: Snapshot,
}
