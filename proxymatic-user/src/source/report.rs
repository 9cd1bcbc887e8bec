//! The reports that a source sends to the agent.

use std::time::{Duration, Instant};

use super::{backoff::Retry, id::SourceId};
use crate::model::Snapshot;

/// A report of a source to the agent.
#[derive(Clone, Debug)]
pub enum Report {
    /// A snapshot of everything in the source. It replaces the last snapshot of the source and ends its failure.
    Snapshot {
        /// The source.
        source: SourceId,
        /// The snapshot.
        snapshot: Snapshot,
        /// When the request was sent: the snapshot includes everything that happened before this moment.
        at: Instant,
    },
    /// A request failed and will be sent again. The last snapshot stays valid.
    ///
    /// A source sends it for the first failure, for each failure with a new reason, and then ever more rarely.
    Failed {
        /// The source.
        source: SourceId,
        /// The URL of the request, without credentials.
        url: String,
        /// One sentence that names the URL, the failure and a possible remedy.
        reason: String,
        /// The number of failures in a row, from 1.
        attempt: u32,
        /// The time until the next attempt.
        again_in: Duration,
    },
}

impl Report {
    /// Returns the report of a failure. `reason` is a whole sentence.
    pub(super) fn failed(source: SourceId, url: String, reason: String, retry: &Retry) -> Self {
        let Retry { attempt, again_in, .. } = *retry;
        Self::Failed { source, url, reason, attempt, again_in }
    }
}
