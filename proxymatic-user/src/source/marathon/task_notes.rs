//! What a listing says besides services: which tasks have no known place, which are unreachable, and which apps claim one
//! service alike.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::ServiceKey;

/// Tasks, by id, that are listed and have not ended; and apps by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TaskNotes {
    /// Tasks of which at least one address or port is not known, each with its app or pod. The last known places of such a
    /// task stay, draining.
    pub(super) unplaced: BTreeMap<String, String>,
    /// Tasks that the Mesos master cannot reach, each with its app or pod.
    pub(super) unreachable: BTreeMap<String, String>,
    /// Services with an app or pod that claims them and may not join them: none of its tasks stays.
    pub(super) left_out: BTreeSet<(ServiceKey, String)>,
    /// The apps and pods whose first versions must be requested, because their claims to one service are equal.
    pub(super) undecided: BTreeSet<String>,
}

impl TaskNotes {
    /// Returns whether a task belongs to an app that may not join a service.
    pub(super) fn is_left_out(&self, key: ServiceKey, task: &str) -> bool {
        let app = self.unplaced.get(task).or_else(|| self.unreachable.get(task));
        app.is_some_and(|app| self.left_out.contains(&(key, app.clone())))
    }
}
