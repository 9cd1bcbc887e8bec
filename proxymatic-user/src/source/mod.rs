//! Where services come from: each source sends whole snapshots, or says what keeps it from having one.
//!
//! A source never sends half of what it knows. While it is in trouble it sends no snapshot at all, so that the last one
//! stays good: what a source cannot see is not gone.

mod backoff;
mod credentials;
pub mod file;
mod identity;
mod loss_guard;
pub mod marathon;
pub mod registrator;
mod resolve;
mod tls;

use std::{
    fmt,
    time::{Duration, Instant},
};

use proxymatic_common::SourceCode;
use tokio::sync::mpsc;

use crate::model::Snapshot;

/// Which source something came from. Its printed form is the `source` of a service in what the commands show.
///
/// In order: where two sources name one service, the greater one's is used whole. What was written down for this very
/// host comes first; Marathon before registrator is the order of `meltwater/proxymatic`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SourceId {
    /// The etcd of `--registrator`.
    Registrator,
    /// The Marathon of `--marathon`.
    Marathon,
    /// The file of `--file`.
    File,
}

impl SourceId {
    /// All there are.
    pub const ALL: [Self; 3] = [Self::Registrator, Self::Marathon, Self::File];

    /// What the maps call it.
    pub const fn code(self) -> SourceCode {
        match self {
            Self::Registrator => SourceCode::REGISTRATOR,
            Self::Marathon => SourceCode::MARATHON,
            Self::File => SourceCode::FILE,
        }
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code().name())
    }
}

/// What the sources have to know, each that there is.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// `--marathon`.
    pub marathon: Option<marathon::Config>,
    /// `--registrator`.
    pub registrator: Option<registrator::Config>,
    /// `--file`.
    pub file: Option<file::Config>,
}

impl Config {
    /// The sources that there are.
    pub fn ids(&self) -> Vec<SourceId> {
        let there = [
            (self.registrator.is_some(), SourceId::Registrator),
            (self.marathon.is_some(), SourceId::Marathon),
            (self.file.is_some(), SourceId::File),
        ];
        there.into_iter().filter_map(|(there, id)| there.then_some(id)).collect()
    }

    /// Starts all of them on this runtime. Each ends when nobody takes reports any more.
    pub fn start(self, reports: &mpsc::Sender<Report>) {
        if let Some(config) = self.marathon {
            tokio::spawn(marathon::run(config, reports.clone()));
        }
        if let Some(config) = self.registrator {
            tokio::spawn(registrator::run(config, reports.clone()));
        }
        if let Some(config) = self.file {
            tokio::spawn(file::run(config, reports.clone()));
        }
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let marathon = self.marathon.iter().flat_map(|config| config.endpoints.iter().map(ToString::to_string));
        let registrator = self.registrator.iter().map(ToString::to_string);
        let file = self.file.iter().map(ToString::to_string);
        f.write_str(&marathon.chain(registrator).chain(file).collect::<Vec<_>>().join(", "))
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
    Failed {
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
