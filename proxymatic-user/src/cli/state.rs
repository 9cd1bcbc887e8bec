//! `--state-file`: from the file to the agent, and from the agent to the file.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use tokio::sync::{mpsc, oneshot};

use crate::{
    agent::{Agent, Event, Restored},
    dataplane::Dataplane,
    state::{Loaded, StateFile},
};

/// How long an agent that leaves waits for its last write: a disk that hangs must not hold it.
const GOODBYE: Duration = Duration::from_secs(3);

/// Checks `--state-file`; `None` where it is empty, and nothing is kept.
pub(super) fn check(path: &OsStr, wrong: &mut Vec<String>) -> Option<PathBuf> {
    let path = PathBuf::from(path);
    if path.as_os_str().is_empty() {
        return None;
    }
    if path.file_name().is_none() {
        wrong.push(format!(
            "--state-file (or STATE_FILE) {}: must name a file, such as /var/lib/proxymatic/state.json; leave it empty to \
             keep nothing",
            path.display()
        ));
    }
    Some(path)
}

/// The last write of an agent that leaves.
pub(super) struct LastWrite(Option<oneshot::Receiver<()>>);

impl LastWrite {
    /// Waits for it, after the agent is gone.
    pub(super) async fn done(self) {
        if let Some(ended) = self.0
            && tokio::time::timeout(GOODBYE, ended).await.is_err()
        {
            tracing::warn!("the state file is not written within {} s, and is left as it was", GOODBYE.as_secs());
        }
    }
}

/// Gives the agent what the file says, and has it written from now on.
pub(super) fn keep<D: Dataplane>(
    file: Option<StateFile>,
    agent: Agent<D>,
    events: &mpsc::Sender<Event>,
) -> anyhow::Result<(Agent<D>, LastWrite)> {
    let Some(file) = file else { return Ok((agent, LastWrite(None))) };
    let now = SystemTime::now();
    let Loaded { state, trouble } = file.load(now);
    if let Some(trouble) = &trouble {
        tracing::warn!("{trouble}");
    }
    let path = file.path().display().to_string();
    let restored: BTreeMap<_, _> = state
        .sources
        .iter()
        .map(|(source, saved)| {
            let answered = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(saved.answered));
            // A clock that was wrong then or is wrong now says nothing about the services.
            let age = answered.and_then(|answered| now.duration_since(answered).ok());
            (*source, Restored { snapshot: saved.snapshot.clone(), path: path.clone(), age })
        })
        .collect();
    let agent = agent.with_restored(restored).with_drained(state.drained.clone());
    let (jobs, inbox) = mpsc::channel(1);
    let events = events.clone();
    // Fails only while this process ends.
    let report = move |outcome| drop(events.blocking_send(Event::StateSaved(outcome)));
    let ended = file.start(state, inbox, report).context("cannot start a thread")?;
    Ok((agent.with_state_file(jobs, trouble), LastWrite(Some(ended))))
}
