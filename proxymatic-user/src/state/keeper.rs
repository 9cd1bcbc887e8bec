//! The thread that writes the file: a disk that is slow holds up nobody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, thread,
    time::{Duration, SystemTime},
};

use tokio::sync::{mpsc, oneshot};

use super::{Drained, Saved, State, StateFile};
use crate::{
    model::Snapshot,
    privileges::{self, EnabledFeatures, Thread},
    source::SourceId,
};

/// What a source has said since the agent started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How long ago it was asked.
    pub age: Duration,
    /// All that it said.
    pub snapshot: Snapshot,
}

/// What the sources have said since the agent started. Of others the file keeps what it has.
pub type Answers = BTreeMap<SourceId, Answer>;

/// What is to be written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// What the sources have said.
    pub answers: Answers,
    /// All that the operator drains.
    pub drained: BTreeSet<Drained>,
}

impl StateFile {
    /// Writes each job on top of what was loaded, until nobody gives jobs any more; then what is returned
    /// is closed. Each job is reported: `Err` is one sentence.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        self,
        mut state: State,
        mut jobs: mpsc::Receiver<Job>,
        report: impl Fn(Result<(), String>) + Send + 'static,
    ) -> io::Result<oneshot::Receiver<()>> {
        let (ends, ended) = oneshot::channel();
        let work = move || {
            // Nobody waits for it. Where even that is refused it is only less polite.
            let _ = rustix::process::nice(5);
            if let Err(error) = privileges::drop_to(Thread::State, EnabledFeatures::default()) {
                tracing::warn!("the thread that writes the state file cannot give up its capabilities: {error}");
            }
            while let Some(job) = jobs.blocking_recv() {
                self.take(&mut state, job, SystemTime::now());
                report(self.write(&state));
            }
            drop(ends);
        };
        thread::Builder::new().name("state".into()).spawn(work)?;
        Ok(ended)
    }

    fn take(&self, state: &mut State, Job { answers, drained }: Job, now: SystemTime) {
        state.drained = drained;
        for (source, Answer { age, snapshot }) in answers {
            let of = self.identity(source);
            let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let answered = since_1970.saturating_sub(age).as_secs();
            state.sources.insert(source, Saved { of, answered, snapshot });
        }
    }
}
