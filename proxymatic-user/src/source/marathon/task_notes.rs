//! What a listing says about tasks besides their services: which have no known place, and which are unreachable.

use std::collections::BTreeSet;

/// Tasks, by id, that are listed and have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TaskNotes {
    /// Tasks of which at least one address or port is not known. The last known places of such a task stay, draining.
    pub(super) unplaced: BTreeSet<String>,
    /// Tasks that the Mesos master cannot reach.
    pub(super) unreachable: BTreeSet<String>,
}
