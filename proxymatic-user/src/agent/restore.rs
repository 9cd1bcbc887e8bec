//! What is published of a source that is silent, where the maps have nothing: what it said before the reboot.
//!
//! Maps that a complete answer was once applied to are at least as new as the file, and so they win.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{Agent, SourceInput, SourceState};
use crate::{dataplane::Dataplane, model::Snapshot, source::SourceId, surface::RestoredFrom};

/// How long a source that says nothing at all is waited for. One that says what is wrong with it is not.
pub const SILENCE: Duration = Duration::from_secs(3);

/// What a source said before this agent started.
#[derive(Clone, Debug)]
pub struct Restored {
    /// All that it said.
    pub snapshot: Snapshot,
    /// Where that was kept.
    pub path: String,
    /// How long before the start of this agent it was asked; `None` where this host's clock is behind that.
    pub age: Option<Duration>,
}

/// The same, and whether it is used.
#[derive(Debug)]
pub(super) struct RestoredSource {
    restored: Restored,
    used: bool,
}

impl SourceState {
    /// What is known of the source: what it said, or what it said before this agent started where that has to do.
    pub(super) fn known(&self) -> Option<&Snapshot> {
        let restored = self.restored.as_ref().filter(|kept| kept.used);
        self.snapshot.as_ref().or(restored.map(|kept| &kept.restored.snapshot))
    }

    /// The same, for the desired state.
    pub(super) fn input(&self) -> SourceInput<'_> {
        match (&self.snapshot, self.known()) {
            (Some(snapshot), _) => SourceInput::Answered(snapshot),
            (None, Some(snapshot)) => SourceInput::Restored(snapshot),
            (None, None) => SourceInput::Unanswered,
        }
    }

    /// Whether what the source said before this agent started is used.
    pub(super) fn is_restored(&self) -> bool {
        self.snapshot.is_none() && self.restored.as_ref().is_some_and(|kept| kept.used)
    }

    /// For the status; `began` is when this agent started.
    pub(super) fn restored_from(&self, began: Option<Instant>, now: Instant) -> Option<RestoredFrom> {
        let restored = &self.restored.as_ref().filter(|_| self.is_restored())?.restored;
        let runs = began.map_or(Duration::ZERO, |began| now.saturating_duration_since(began));
        Some(RestoredFrom { path: restored.path.clone(), age_s: restored.age.map(|age| (age + runs).as_secs_f64()) })
    }
}

impl<D: Dataplane> Agent<D> {
    /// With what the sources said before a reboot. It is used of those that are silent, unless the maps know better.
    #[must_use]
    pub fn restoring(mut self, restored: BTreeMap<SourceId, Restored>) -> Self {
        if self.plane.is_complete() {
            return self;
        }
        for (source, restored) in restored {
            if let Some(heard) = self.sources.get_mut(&source) {
                heard.restored = Some(RestoredSource { restored, used: false });
            }
        }
        self
    }

    /// What is known of a source from before this agent started, as if it had said so: its first answer is measured by
    /// that.
    pub fn adopted(&self, source: SourceId) -> Snapshot {
        let restored = self.sources.get(&source).and_then(|heard| heard.restored.as_ref());
        match restored {
            Some(kept) => kept.restored.snapshot.clone(),
            None if self.plane.is_serving() => super::adopted_snapshot::adopted(&self.tables, source),
            // No connection goes by these maps yet: they are as old as the last time that this version served.
            None => Snapshot::default(),
        }
    }

    /// Falls back on what was restored, for each source that has been silent for long enough. Whether for any.
    pub(super) fn fall_back(&mut self, now: Instant) -> bool {
        let waited = self.began.is_some_and(|began| now.saturating_duration_since(began) >= SILENCE);
        let mut any = false;
        for (source, heard) in &mut self.sources {
            let silent = heard.snapshot.is_none() && (waited || heard.trouble.is_some());
            let Some(kept) = heard.restored.as_mut().filter(|kept| silent && !kept.used) else { continue };
            kept.used = true;
            any = true;
            let Restored { snapshot, path, age } = &kept.restored;
            tracing::warn!(
                "{source} does not answer, and no complete answer was applied to the maps yet: its {} services are those \
                 of {path}, {}",
                snapshot.services.len(),
                RestoredFrom { path: path.clone(), age_s: age.map(|age| age.as_secs_f64()) }.age()
            );
        }
        any
    }

    /// Whether there is a source of which what was restored is used.
    pub(super) fn restores(&self) -> bool {
        self.sources.values().any(SourceState::is_restored)
    }
}
