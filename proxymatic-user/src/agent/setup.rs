//! What the agent starts with, besides the maps.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::{broadcast, mpsc};

use super::{
    adopted_snapshot::adopted,
    event_bus::Subscribers,
    event_loop::Agent,
    first_answers::FirstAnswers,
    global_settings::GlobalSettings,
    self_tests::{SelfTest, SelfTests},
    sources::Restored,
    state_persistence::StatePersister,
    watch_event::WatchEvent,
    workers::WorkerHandles,
};
use crate::{
    dataplane::Dataplane,
    model::Snapshot,
    plan::MapState,
    source::SourceId,
    state::{Drained, Job},
};

impl<D: Dataplane> Agent<D> {
    /// Sets the workers. That of the state file is kept: [`Self::with_state_file`] sets it.
    #[must_use]
    pub fn with_workers(self, workers: WorkerHandles) -> Self {
        Self { workers: WorkerHandles { saves: self.workers.saves, ..workers }, ..self }
    }

    /// Sets the settings for all services.
    #[must_use]
    pub fn with_settings(self, settings: GlobalSettings) -> Self {
        // Only the jitter depends on the seed.
        let first_answers = FirstAnswers::new(settings.first_answer, fastrand::u64(..));
        Self { settings, first_answers, ..self }
    }

    /// Sets whether and how the self-test runs.
    #[must_use]
    pub fn with_self_test(self, mode: SelfTest) -> Self {
        Self { self_tests: SelfTests::new(mode), ..self }
    }

    /// Sets the channel of `event watch`.
    #[must_use]
    pub fn with_subscribers(self, sender: broadcast::Sender<WatchEvent>) -> Self {
        Self { subscribers: Subscribers::new(sender), ..self }
    }

    /// Sets the worker that writes the state file, and what was wrong with the file when it was read.
    #[must_use]
    pub fn with_state_file(mut self, jobs: mpsc::Sender<Job>, trouble: Option<String>) -> Self {
        self.workers.saves = Some(jobs);
        self.persister = StatePersister::new(trouble);
        self
    }

    /// Sets the snapshots from before a reboot, which are used for sources that are silent. They are not used if a complete
    /// answer was ever applied to the maps, because then the maps are at least as new.
    #[must_use]
    pub fn with_restored(mut self, restored: BTreeMap<SourceId, Restored>) -> Self {
        if !self.plane.is_complete() {
            self.sources.restore(restored);
        }
        self
    }

    /// Sets the backends that the operator drained, as the state file lists them. They are used if the maps do not know:
    /// the maps are new, or another map ABI version has served since.
    #[must_use]
    pub fn with_drained(mut self, saved: BTreeSet<Drained>) -> Self {
        if !self.plane.is_serving() {
            // These drains are as old as the last time that this version served.
            for id in self.plane.drained().into_keys() {
                self.plane.forget_drained(id);
            }
        } else if self.plane.is_complete() {
            return self;
        }
        self.drains.restore(saved);
        self
    }

    /// Returns what is known of a source from before this agent started. The loss guard compares the source's first answer
    /// with it.
    pub fn adopted(&self, source: SourceId) -> Snapshot {
        match self.sources.restored(source) {
            Some(restored) => restored.clone(),
            None if self.plane.is_serving() => adopted(&self.map_state, source),
            // Another version serves: these maps are as old as the last time that this version served.
            None => Snapshot::default(),
        }
    }

    /// Returns what the maps hold.
    pub const fn tables(&self) -> &MapState {
        &self.map_state
    }

    /// Returns the data plane.
    pub const fn plane(&self) -> &D {
        &self.plane
    }

    /// Returns the data plane, for tests that change what only a kernel changes.
    pub const fn plane_mut(&mut self) -> &mut D {
        &mut self.plane
    }
}
