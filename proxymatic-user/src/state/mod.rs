//! What the sources said last and what the operator drains, kept on disk: after a reboot the maps are empty, and Marathon
//! may be away for longer than services can be.
//!
//! The file is a help, never a condition: one that is missing, damaged or another cluster's is said, and the agent goes on
//! without it. [`encode`] and [`decode`] are pure.

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

/// What the sources said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Each source that has answered.
    pub sources: BTreeMap<SourceId, Saved>,
    /// What the operator drains. Pinned maps know it too, but not those of another version of the layouts.
    pub drained: BTreeSet<Drained>,
}

/// A backend that the operator drains, in one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Drained {
    /// The service.
    pub service: ServiceKey,
    /// The task: whoever has its place after it is not drained.
    pub task: String,
    /// Where it listens.
    pub address: IpAddr,
    /// The port it listens on.
    pub port: u16,
}

/// What one source said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Where the source was: URLs without credentials, or a path. One in common, and it is the same source.
    pub of: BTreeSet<String>,
    /// When it was asked, in seconds of the wall clock since 1970.
    pub answered: u64,
    /// All that it said.
    pub snapshot: Snapshot,
}
