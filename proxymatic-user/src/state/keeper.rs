//! The thread that writes the file, so that a slow disk does not block the agent.

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

/// The last answer of a source since the agent started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The time since the request.
    pub age: Duration,
    /// The complete answer.
    pub snapshot: Snapshot,
}

/// The answers since the agent started. For other sources the file keeps what it has.
pub type Answers = BTreeMap<SourceId, Answer>;

/// The content to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// The answers of the sources.
    pub answers: Answers,
    /// All backends that the operator drains.
    pub drained: BTreeSet<Drained>,
}

impl StateFile {
    /// Writes each job on top of the loaded state, until the sender of the jobs is dropped. Then the returned channel
    /// closes. Each job is reported; `Err` is one sentence.
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
            // Nothing waits for this thread, so it gets a low priority. Failure to lower it does no harm.
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
            let answered_ms = u64::try_from(since_1970.saturating_sub(age).as_millis()).unwrap_or(u64::MAX);
            state.sources.insert(source, Saved { of, answered_ms, snapshot });
        }
    }
}
