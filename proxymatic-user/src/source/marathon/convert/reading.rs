//! The state of one conversion: the lookups, what was merged so far, and the warnings.

use std::collections::BTreeSet;

use crate::{
    model::{Snapshot, TaskState, Warning},
    source::marathon::{
        api::Listing,
        claim_rules::ClaimCheck,
        lookups::{Lookups, Options},
        merge::Merge,
    },
};

/// The state of one conversion.
pub(super) struct Reading<'a> {
    pub(super) lookups: &'a Lookups,
    pub(super) options: &'a Options,
    pub(super) claims: ClaimCheck<'a>,
    pub(super) merge: Merge<'a>,
    warnings: BTreeSet<Warning>,
}

impl<'a> Reading<'a> {
    /// Begins the conversion of a listing, or of a part of it.
    pub(super) fn new(listing: &'a Listing, lookups: &'a Lookups, options: &'a Options) -> Self {
        let claims = ClaimCheck::new(&options.claims, lookups, listing);
        Self { lookups, options, claims, merge: Merge::new(options.expose_host), warnings: BTreeSet::new() }
    }

    /// Returns the snapshot, after everything was added.
    pub(super) fn finish(mut self) -> Snapshot {
        let services = self.merge.services(&mut self.warnings);
        Snapshot { services, warnings: self.warnings.into_iter().collect() }
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
