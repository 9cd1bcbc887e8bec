//! An app: its versions and its tasks.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::value::RawValue;

use super::task::Task;
use super::timestamp::Timestamp;
use super::version::Version;

/// The number of old versions of an app that are kept, besides those that a task still runs.
const VERSIONS_KEPT: usize = 50;

/// An app: its versions in the order in which they became current, never empty, and its tasks in the order of their start.
#[derive(Debug)]
pub struct App {
    versions: Vec<Arc<Version>>,
    root: Root,
    tasks: BTreeMap<String, Task>,
    listed: [OnceCell<Box<RawValue>>; 4],
}

/// The app in the root, which a deployment switches a little after its start.
#[derive(Debug)]
enum Root {
    /// The current version.
    Current,
    /// An older version.
    Behind(Arc<Version>),
    /// Nothing: the app is new.
    Without,
}

impl App {
    /// Makes a new app. If the root is held, the root does not have it yet.
    pub(super) fn new(version: Arc<Version>, held: bool) -> Self {
        let root = if held { Root::Without } else { Root::Current };
        Self { versions: vec![version], root, tasks: BTreeMap::new(), listed: Default::default() }
    }

    /// The version that new tasks are started from.
    pub fn current(&self) -> &Arc<Version> {
        &self.versions[self.versions.len() - 1]
    }

    /// The version that listings show.
    pub fn shown(&self) -> &Arc<Version> {
        match &self.root {
            Root::Behind(version) => version,
            Root::Current | Root::Without => self.current(),
        }
    }

    /// Whether listings show it at all.
    pub fn is_shown(&self) -> bool {
        !matches!(self.root, Root::Without)
    }

    /// Switches the root to the current version.
    pub(super) fn switch_root(&mut self) {
        self.listed = Default::default();
        self.root = Root::Current;
    }

    /// Returns all kept versions in the order in which they became current.
    pub fn versions(&self) -> &[Arc<Version>] {
        &self.versions
    }

    /// Returns its tasks that have not ended.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &Task> {
        self.tasks.values()
    }

    /// Returns one of its tasks.
    pub fn task(&self, id: &str) -> Option<&Task> {
        self.tasks.get(id)
    }

    /// Returns its tasks, to change them.
    pub(super) fn tasks_mut(&mut self) -> &mut BTreeMap<String, Task> {
        self.listed = Default::default();
        &mut self.tasks
    }

    /// Its entry in a listing, cached for each of four forms until it changes: in a listing of 20 000 tasks most apps
    /// do not change.
    pub(super) fn listed(&self, way: usize, write: impl FnOnce() -> Box<RawValue>) -> &RawValue {
        self.listed[way].get_or_init(write)
    }

    /// Makes the version before the current one the current one again. The withdrawn version stays among the kept ones.
    /// Returns the restored version; `None` if there is no version before.
    pub(super) fn withdraw(&mut self) -> Option<Timestamp> {
        let before = self.versions.len().checked_sub(2)?;
        self.listed = Default::default();
        self.versions[before..].reverse();
        Some(self.current().stamp)
    }

    /// Makes `version` the current one and drops the oldest ones. If the root is held, listings stay unchanged.
    pub(super) fn switch_to(&mut self, version: Arc<Version>, held: bool) {
        self.listed = Default::default();
        if matches!(self.root, Root::Current) && held {
            self.root = Root::Behind(Arc::clone(self.current()));
        }
        self.versions.push(version);
        let last = self.versions.len() - 1;
        let mut surplus = last.saturating_sub(VERSIONS_KEPT);
        let used: BTreeSet<Timestamp> = self.tasks.values().map(|task| task.version.stamp).collect();
        let current = self.versions[last].stamp;
        self.versions.retain(|version| {
            let goes = surplus > 0 && version.stamp != current && !used.contains(&version.stamp);
            surplus -= usize::from(goes);
            !goes
        });
    }
}
