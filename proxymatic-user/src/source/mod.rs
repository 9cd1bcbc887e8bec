//! Where services come from: each source sends whole snapshots, or says what keeps it from having one.
//!
//! A source never sends half of what it knows. While it is in trouble it sends no snapshot at all, so that the last one
//! stays good: what a source cannot see is not gone.

pub mod marathon;

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::model::Snapshot;

/// Which source something came from. Its printed form is the `source` of a service in what the commands show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceId {
    /// The Marathon of `--marathon`.
    Marathon,
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Marathon => "marathon",
        })
    }
}

/// What a source tells the agent.
#[derive(Clone, Debug)]
pub enum Report {
    /// Everything the source knows. It takes the place of the source's last snapshot, and ends its trouble.
    Snapshot {
        /// Who says so.
        source: SourceId,
        /// All of it.
        snapshot: Snapshot,
        /// When it was asked for: it knows of everything before this moment.
        at: Instant,
    },
    /// Something failed and is tried again. The last snapshot stays good.
    ///
    /// Sent for the first attempt that fails, for each attempt that fails in another way, and else ever more rarely.
    Trouble {
        /// Who says so.
        source: SourceId,
        /// What was asked, without credentials.
        url: String,
        /// One sentence that names the URL, what went wrong and what may help.
        reason: String,
        /// How many attempts in a row have failed, from 1.
        attempt: u32,
        /// How long until the next one.
        again_in: Duration,
    },
}
