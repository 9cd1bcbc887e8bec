//! When the state file is written: soon after a change, but not too often. Pure.

use std::time::{Duration, Instant};

use crate::model::Warning;

/// The shortest time between two writes.
const PACE: Duration = Duration::from_secs(5);
/// The time between two writes if nothing changes. The age of an answer in the file is too high by at most this.
const REFRESH: Duration = Duration::from_secs(300);
/// The time until the next attempt after a write that failed.
const RETRY: Duration = Duration::from_secs(30);

/// A write that takes longer than this is a warning.
const HANGS: Duration = Duration::from_secs(30);

/// The write under way, the time of the next one, and the last failure.
#[derive(Debug, Default)]
pub(super) struct StatePersister {
    busy: bool,
    changed: bool,
    last: Option<Instant>,
    not_before: Option<Instant>,
    trouble: Option<String>,
}

impl StatePersister {
    /// Starts with what was wrong with the file when it was read.
    pub(super) fn new(trouble: Option<String>) -> Self {
        Self { trouble, ..Self::default() }
    }

    /// Notes that the content of the file has changed.
    pub(super) const fn changed(&mut self) {
        self.changed = true;
    }

    /// Returns whether the file is to be written now.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        let rested = self.not_before.is_none_or(|at| at <= now);
        let old = self.last.is_none_or(|last| now.saturating_duration_since(last) >= REFRESH);
        !self.busy && rested && (self.changed || old)
    }

    /// Notes that the worker has taken the content.
    pub(super) fn begin(&mut self, now: Instant) {
        self.busy = true;
        self.changed = false;
        self.last = Some(now);
        self.not_before = Some(now + PACE);
    }

    /// Takes the result of a write.
    pub(super) fn end(&mut self, result: Result<(), String>, now: Instant) {
        self.busy = false;
        match result {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    tracing::info!("the state file is written again");
                }
            }
            Err(reason) => {
                if self.trouble.as_ref() != Some(&reason) {
                    tracing::warn!("{reason}; services are served nevertheless");
                }
                self.trouble = Some(reason);
                self.changed = true;
                self.not_before = Some(now + RETRY);
            }
        }
    }

    pub(super) fn warning(&self, now: Instant) -> Option<Warning> {
        let hangs = self.busy && self.last.is_some_and(|last| now.saturating_duration_since(last) >= HANGS);
        let hangs = hangs.then(|| {
            let most = HANGS.as_secs();
            format!("a write to --state-file has taken more than {most} s and is not done; look at its disk")
        });
        let reason = hangs.or_else(|| self.trouble.clone())?;
        Some(Warning { app: "state file".into(), reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn change_is_written_soon_but_not_within_the_pace() {
        let (mut persister, now) = (StatePersister::default(), Instant::now());
        assert!(persister.is_due(now));
        persister.begin(now);
        persister.changed();
        assert!(!persister.is_due(now + REFRESH), "a write is under way");
        persister.end(Ok(()), now);
        assert!(!persister.is_due(now + PACE / 2) && persister.is_due(now + PACE));
        persister.begin(now + PACE);
        persister.end(Ok(()), now + PACE);
        assert!(!persister.is_due(now + REFRESH) && persister.is_due(now + PACE + REFRESH));
    }

    #[test]
    fn failed_write_is_retried_and_a_warning_until_it_succeeds() {
        let (mut persister, now) = (StatePersister::default(), Instant::now());
        persister.begin(now);
        assert_eq!(persister.warning(now), None);
        assert!(persister.warning(now + HANGS).is_some_and(|it| it.reason.contains("is not done")));
        persister.end(Err("no space".into()), now);
        assert_eq!(persister.warning(now).map(|it| it.reason).as_deref(), Some("no space"));
        assert!(!persister.is_due(now + RETRY / 2) && persister.is_due(now + RETRY));
        persister.begin(now + RETRY);
        persister.end(Ok(()), now + RETRY);
        assert_eq!(persister.warning(now + RETRY), None);
    }
}
