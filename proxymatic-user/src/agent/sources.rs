//! What each source has answered, what of it is in use, and when enough is known to publish. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{
    change_log,
    desired_state::SourceInput,
    effect::{Effect, Trigger},
    first_answers::Before,
    status::{RestoredFrom, SourceFailure, SourceStatus},
};
use crate::{
    model::{Settings, Snapshot},
    plan::MapState,
    source::{Report, SourceId},
    state::{Answer, Answers},
};

/// How long the agent waits for the first answer of every source before it publishes without those that are silent.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long the agent waits for a silent source before it uses the restored snapshot. A source that reports a failure is
/// not waited for.
pub const SILENCE: Duration = Duration::from_secs(3);

/// A snapshot of a source from before this agent started.
#[derive(Clone, Debug)]
pub struct Restored {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The file that it was read from.
    pub path: String,
    /// Its age when this agent started; `None` if this host's clock is behind the time of the answer.
    pub age: Option<Duration>,
}

/// A restored snapshot, and whether it is in use.
#[derive(Debug)]
struct RestoredSource {
    restored: Restored,
    used: bool,
}

/// What is known of one source.
#[derive(Debug, Default)]
struct SourceState {
    snapshot: Option<Snapshot>,
    /// When the request for `snapshot` was sent.
    at: Option<Instant>,
    trouble: Option<SourceFailure>,
    restored: Option<RestoredSource>,
    /// How many attempts have failed.
    failures: u64,
}

impl SourceState {
    fn input(&self) -> SourceInput<'_> {
        match (&self.snapshot, &self.restored) {
            (Some(snapshot), _) => SourceInput::Answered(snapshot),
            (None, Some(RestoredSource { restored, used: true })) => SourceInput::Restored(&restored.snapshot),
            (None, _) => SourceInput::Unanswered,
        }
    }

    /// The restored snapshot, if it is in use.
    fn restored_in_use(&self) -> Option<&Restored> {
        let restored = self.restored.as_ref().filter(|restored| restored.used && self.snapshot.is_none());
        restored.map(|restored| &restored.restored)
    }
}

/// The configured sources.
#[derive(Debug)]
pub(super) struct Sources {
    states: BTreeMap<SourceId, SourceState>,
    /// When the first event came.
    started: Option<Instant>,
}

impl Sources {
    pub(super) fn new(sources: &[SourceId]) -> Self {
        let states = sources.iter().map(|source| (*source, SourceState::default())).collect();
        Self { states, started: None }
    }

    /// Starts the clock of [`PATIENCE`] and [`SILENCE`] with the first event.
    pub(super) fn start(&mut self, now: Instant) {
        self.started.get_or_insert(now);
    }

    /// Keeps snapshots from before this agent started, for sources that turn out to be silent.
    pub(super) fn restore(&mut self, restored: BTreeMap<SourceId, Restored>) {
        for (source, restored) in restored {
            if let Some(state) = self.states.get_mut(&source) {
                state.restored = Some(RestoredSource { restored, used: false });
            }
        }
    }

    /// Returns the restored snapshot of a source, in use or not.
    pub(super) fn restored(&self, source: SourceId) -> Option<&Snapshot> {
        self.states.get(&source)?.restored.as_ref().map(|restored| &restored.restored.snapshot)
    }

    /// Returns what is known of a source from before its next answer. `maps` are the maps if the hooks use them.
    pub(super) fn before<'a>(&'a self, source: SourceId, maps: Option<&'a MapState>) -> Before<'a> {
        let state = self.states.get(&source);
        let adopted = || maps.map_or(Before::OtherVersion, |maps| Before::Adopted(maps, self.restored(source)));
        state.and_then(|state| state.snapshot.as_ref()).map_or_else(adopted, Before::Answer)
    }

    /// Takes an answer or a failure of a source.
    pub(super) fn report(&mut self, report: Report, now: Instant) -> Vec<Effect> {
        match report {
            Report::Snapshot { source, snapshot, at } => self.answered(source, snapshot, at),
            Report::Failed { source, url, reason, attempt, again_in } => {
                change_log::trouble(source, &reason, attempt, again_in);
                if let Some(state) = self.states.get_mut(&source) {
                    // Sources do not report every attempt.
                    let known = state.trouble.as_ref().map_or(0, |trouble| trouble.attempts);
                    state.failures += u64::from(if attempt > known { attempt - known } else { attempt });
                    state.trouble = Some(SourceFailure { url, reason, attempts: attempt });
                }
                match self.use_restored(now) {
                    true => vec![Effect::Publish(Trigger::Other)],
                    false => Vec::new(),
                }
            }
        }
    }

    fn answered(&mut self, source: SourceId, snapshot: Snapshot, at: Instant) -> Vec<Effect> {
        let Some(state) = self.states.get_mut(&source) else { return Vec::new() };
        if state.trouble.take().is_some() {
            tracing::info!("{source}: answers again");
        }
        change_log::log(source, state.input().snapshot(), &snapshot);
        let changed = state.snapshot.as_ref() != Some(&snapshot);
        state.snapshot = Some(snapshot);
        state.restored = None;
        state.at = Some(at);
        changed.then_some(Effect::SaveSoon).into_iter().chain([Effect::Publish(Trigger::Answer)]).collect()
    }

    /// Puts the restored snapshot into use for each source that has been silent for long enough. Returns whether it did so
    /// for any.
    pub(super) fn use_restored(&mut self, now: Instant) -> bool {
        let waited = self.has_waited(SILENCE, now);
        let mut any = false;
        for (source, state) in &mut self.states {
            let silent = state.snapshot.is_none() && (waited || state.trouble.is_some());
            let Some(restored) = state.restored.as_mut().filter(|restored| silent && !restored.used) else { continue };
            restored.used = true;
            any = true;
            let Restored { snapshot, path, age } = &restored.restored;
            tracing::warn!(
                "{source} does not answer, and no complete answer was ever applied to the maps: using its {} services \
                 from {path}, {}",
                snapshot.services.len(),
                RestoredFrom { path: path.clone(), age_s: age.map(|age| age.as_secs_f64()) }.age()
            );
        }
        any
    }

    /// Returns whether any restored snapshot is in use.
    pub(super) fn uses_restored(&self) -> bool {
        self.states.values().any(|state| state.restored_in_use().is_some())
    }

    /// Returns whether every source has answered.
    pub(super) fn all_answered(&self) -> bool {
        self.states.values().all(|state| state.snapshot.is_some())
    }

    /// Returns whether every source has answered, or one has and [`PATIENCE`] is over.
    pub(super) fn enough_answered(&self, now: Instant) -> bool {
        let any = || self.states.values().any(|state| state.snapshot.is_some());
        self.all_answered() || (self.has_waited(PATIENCE, now) && any())
    }

    fn has_waited(&self, time: Duration, now: Instant) -> bool {
        self.started.is_some_and(|started| now.saturating_duration_since(started) >= time)
    }

    /// Returns the inputs of the desired state.
    pub(super) fn inputs(&self) -> BTreeMap<SourceId, SourceInput<'_>> {
        self.states.iter().map(|(source, state)| (*source, state.input())).collect()
    }

    /// Returns the snapshots in use.
    pub(super) fn snapshots(&self) -> impl Iterator<Item = &Snapshot> {
        self.states.values().filter_map(|state| state.input().snapshot())
    }

    /// Returns the settings of all services in use.
    pub(super) fn settings(&self) -> impl Iterator<Item = &Settings> {
        self.snapshots().flat_map(|snapshot| snapshot.services.values()).map(|service| &service.settings)
    }

    /// Returns the answers for the state file.
    pub(super) fn answers(&self, now: Instant) -> Answers {
        let answer = |state: &SourceState| {
            let (snapshot, at) = (state.snapshot.clone()?, state.at?);
            Some(Answer { age: now.saturating_duration_since(at), snapshot })
        };
        self.states.iter().filter_map(|(source, state)| Some((*source, answer(state)?))).collect()
    }

    pub(super) fn status(&self, now: Instant) -> Vec<SourceStatus> {
        let runs = self.started.map_or(Duration::ZERO, |started| now.saturating_duration_since(started));
        let restored_from = |restored: &Restored| {
            let age_s = restored.age.map(|age| (age + runs).as_secs_f64());
            RestoredFrom { path: restored.path.clone(), age_s }
        };
        let status = |(source, state): (&SourceId, &SourceState)| SourceStatus {
            source: source.to_string(),
            answered_s: state.at.map(|at| now.saturating_duration_since(at).as_secs_f64()),
            trouble: state.trouble.clone(),
            restored: state.restored_in_use().map(restored_from),
            failures: state.failures,
        };
        self.states.iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: [SourceId; 2] = [SourceId::File, SourceId::Marathon];

    fn started() -> (Sources, Instant) {
        let (mut sources, now) = (Sources::new(&TWO), Instant::now());
        sources.start(now);
        (sources, now)
    }

    fn answer(source: SourceId, at: Instant) -> Report {
        Report::Snapshot { source, snapshot: Snapshot::default(), at }
    }

    fn failure(attempt: u32) -> Report {
        let (url, reason) = ("http://marathon.example".to_owned(), "connection refused".to_owned());
        Report::Failed { source: SourceId::Marathon, url, reason, attempt, again_in: Duration::from_secs(1) }
    }

    fn restored() -> BTreeMap<SourceId, Restored> {
        let restored = Restored { snapshot: Snapshot::default(), path: "/f".into(), age: Some(SILENCE) };
        [(SourceId::Marathon, restored)].into()
    }

    fn marathon(sources: &Sources, now: Instant) -> SourceStatus {
        sources.status(now).into_iter().find(|it| it.source == "marathon").unwrap()
    }

    #[test]
    fn publishing_waits_for_all_sources_or_for_patience() {
        let (mut sources, now) = started();
        assert!(!sources.enough_answered(now + PATIENCE), "no source has answered");
        sources.report(answer(SourceId::File, now), now);
        assert!(!sources.enough_answered(now + PATIENCE - SILENCE) && sources.enough_answered(now + PATIENCE));
        sources.report(answer(SourceId::Marathon, now), now);
        assert!(sources.enough_answered(now) && sources.all_answered());
    }

    #[test]
    fn answer_is_saved_only_if_it_differs() {
        let (mut sources, now) = started();
        let publish = Effect::Publish(Trigger::Answer);
        assert_eq!(sources.report(answer(SourceId::File, now), now), [Effect::SaveSoon, publish]);
        assert_eq!(sources.report(answer(SourceId::File, now), now), [Effect::Publish(Trigger::Answer)]);
        let unknown = answer(SourceId::Registrator, now);
        assert_eq!(sources.report(unknown, now), [], "a source that is not configured");
    }

    #[test]
    fn restored_snapshot_is_used_at_a_failure_or_after_silence() {
        let (mut sources, now) = started();
        sources.restore(restored());
        assert!(!sources.use_restored(now) && !sources.uses_restored());
        assert!(sources.use_restored(now + SILENCE) && sources.uses_restored());
        assert!(!sources.use_restored(now + SILENCE), "once");
        let (mut sources, now) = started();
        sources.restore(restored());
        assert_eq!(sources.report(failure(1), now), [Effect::Publish(Trigger::Other)]);
        assert_eq!(sources.report(failure(2), now), []);
        assert_eq!(marathon(&sources, now).restored.and_then(|it| it.age_s), Some(SILENCE.as_secs_f64()));
        sources.report(answer(SourceId::Marathon, now), now);
        assert!(!sources.uses_restored());
    }

    #[test]
    fn failures_count_attempts_that_were_not_reported() {
        let (mut sources, now) = started();
        for attempt in [1, 2, 5, 1] {
            sources.report(failure(attempt), now);
        }
        assert_eq!(marathon(&sources, now).failures, 6);
    }
}
