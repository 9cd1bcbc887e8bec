//! The state of one conversion: the lookups, what was merged so far, and the warnings.

use std::collections::BTreeSet;

use crate::{
    model::{MAX_NEW, Snapshot, Start, TaskState, Warning},
    source::marathon::{
        api::Listing,
        claim_check::ClaimCheck,
        lookups::{Lookups, Options},
        merge::{Merge, Merged},
        ownership::Ownership,
        task_notes::TaskNotes,
        timestamp::millis,
    },
};

/// The state of one conversion.
pub(super) struct Reading<'a> {
    pub(super) lookups: &'a Lookups,
    pub(super) options: &'a Options,
    pub(super) claims: ClaimCheck<'a>,
    pub(super) merge: Merge<'a>,
    pub(super) notes: TaskNotes,
    warnings: BTreeSet<Warning>,
}

impl<'a> Reading<'a> {
    /// Begins the conversion of a listing, or of a part of it.
    pub(super) fn new(listing: &'a Listing, lookups: &'a Lookups, options: &'a Options) -> Self {
        let claims = ClaimCheck::new(&options.claims, lookups, listing);
        let (merge, notes) = (Merge::new(options.expose_host), TaskNotes::default());
        Self { lookups, options, claims, merge, notes, warnings: BTreeSet::new() }
    }

    /// Returns the snapshot and the notes about tasks, after everything was added.
    pub(super) fn finish(mut self) -> (Snapshot, TaskNotes) {
        let ownership = Ownership { rules: &self.options.claims, lookups: self.lookups };
        let Merged { services, mut warnings, undecided, left_out } = self.merge.services(&ownership);
        warnings.append(&mut self.warnings);
        (self.notes.undecided, self.notes.left_out) = (undecided, left_out);
        (Snapshot { services, warnings: warnings.into_iter().collect() }, self.notes)
    }

    /// Notes that a place of a task of an app or pod is not known.
    pub(super) fn unplaced(&mut self, app: &str, task: &str) {
        self.notes.unplaced.insert(task.to_owned(), app.to_owned());
    }

    /// Returns the start of a task that no check covers; `None` if the task is not new any more.
    pub(super) fn new_start(&self, started: &str) -> Option<Start> {
        let started = millis(started).and_then(|started| Some((started, self.lookups.clock?)));
        started.map_or(Some(Start::Unknown), |(started, clock)| clock.start_within(MAX_NEW, started).map(Start::At))
    }

    pub(super) fn warn(&mut self, app: &str, reason: String) {
        self.warnings.insert(Warning { app: app.to_owned(), reason });
    }

    /// Returns the state of a task. A state that this version does not know drains the task: its open connections stay,
    /// and it gets no new ones.
    pub(super) fn known_state(&mut self, id: &str, word: &str, state: Option<TaskState>) -> TaskState {
        state.unwrap_or_else(|| {
            self.warn(id, format!("its state {word:?} is unknown; it gets no new connections"));
            TaskState::Killing
        })
    }
}
