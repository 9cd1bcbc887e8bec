//! When the agent has written down what the sources say: soon after it changes, and never too often.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Agent;
use crate::{
    dataplane::Dataplane,
    model::Warning,
    state::{Answer, Answers, Job},
};

/// How often it is written at the most.
const PACE: Duration = Duration::from_secs(5);
/// How often while nothing changes: by so much the file may take an answer for older than it is.
const REFRESH: Duration = Duration::from_secs(300);
/// How long after a write that failed. A full disk has better things to do.
const RETRY: Duration = Duration::from_secs(30);

/// A write that takes so long is warned of.
const HANGS: Duration = Duration::from_secs(30);

/// Who writes, and when.
#[derive(Debug, Default)]
pub(super) struct StatePersister {
    /// To who writes: one job at a time.
    jobs: Option<mpsc::Sender<Job>>,
    busy: bool,
    changed: bool,
    last: Option<Instant>,
    not_before: Option<Instant>,
    trouble: Option<String>,
}

impl StatePersister {
    /// A source has said something else than before, or the operator drains something else.
    pub(super) const fn changed(&mut self) {
        self.changed = true;
    }

    /// What is wrong with the file, for the operator.
    pub(super) fn warning(&self, now: Instant) -> Option<Warning> {
        let hangs = self.busy && self.last.is_some_and(|last| now.saturating_duration_since(last) >= HANGS);
        let hangs = hangs.then(|| {
            let most = HANGS.as_secs();
            format!("--state-file has been written to for more than {most} s and is not done; look at its disk")
        });
        let reason = hangs.or_else(|| self.trouble.clone())?;
        Some(Warning { app: "state file".into(), reason })
    }

    fn is_due(&self, now: Instant) -> bool {
        let rested = self.not_before.is_none_or(|moment| moment <= now);
        let old = self.last.is_none_or(|last| now.saturating_duration_since(last) >= REFRESH);
        !self.busy && rested && (self.changed || old)
    }
}

impl<D: Dataplane> Agent<D> {
    /// With who writes down what the sources say, and with what is wrong there already.
    #[must_use]
    pub fn keeping(mut self, jobs: mpsc::Sender<Job>, trouble: Option<String>) -> Self {
        self.keeping = StatePersister { jobs: Some(jobs), trouble, ..StatePersister::default() };
        self
    }

    /// Has it written down, if it is time for that.
    pub(super) fn keep(&mut self, now: Instant) {
        if self.keeping.is_due(now) {
            self.keep_now(now);
        }
    }

    /// Has it written down, whenever that was last done. What no source has said yet stays as it is written.
    pub(super) fn keep_now(&mut self, now: Instant) {
        let answer = |heard: &super::SourceState| {
            let (snapshot, at) = (heard.snapshot.clone()?, heard.at?);
            Some(Answer { age: now.saturating_duration_since(at), snapshot })
        };
        let answers: Answers =
            self.sources.iter().filter_map(|(source, heard)| Some((*source, answer(heard)?))).collect();
        let Some(jobs) = self.keeping.jobs.as_ref().filter(|_| !answers.is_empty()) else { return };
        // In vain only where the one before it has not even been begun: then this is as late as that.
        if jobs.try_send(Job { answers, drained: self.drained_by_name() }).is_ok() {
            self.keeping.busy = true;
            self.keeping.changed = false;
            self.keeping.last = Some(now);
            self.keeping.not_before = Some(now + PACE);
        }
    }

    /// Takes what came of it.
    pub(super) fn kept(&mut self, outcome: Result<(), String>, now: Instant) {
        self.keeping.busy = false;
        match outcome {
            Ok(()) => {
                if self.keeping.trouble.take().is_some() {
                    tracing::info!("the state file is as it should be again");
                }
            }
            Err(reason) => {
                if self.keeping.trouble.as_ref() != Some(&reason) {
                    tracing::warn!("{reason}; services are served all the same");
                }
                self.keeping.trouble = Some(reason);
                self.keeping.changed = true;
                self.keeping.not_before = Some(now + RETRY);
            }
        }
    }
}
