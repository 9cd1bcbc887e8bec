//! `--state-file`: connects the file and the agent.

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

/// How long a stopping agent waits for its last write: a blocked disk must not delay it longer.
const GOODBYE: Duration = Duration::from_secs(3);

/// Checks `--state-file`; `None` if it is empty, which means no file.
pub(super) fn check(path: &OsStr, wrong: &mut Vec<String>) -> Option<PathBuf> {
    let path = PathBuf::from(path);
    if path.as_os_str().is_empty() {
        return None;
    }
    if path.file_name().is_none() {
        wrong.push(format!(
            "--state-file (or STATE_FILE) {}: must name a file, such as /var/lib/proxymatic/state.json; set it to the empty string to \
             write no file",
            path.display()
        ));
    }
    Some(path)
}

/// The last write of a stopping agent.
pub(super) struct LastWrite(Option<oneshot::Receiver<()>>);

impl LastWrite {
    /// Waits for the last write, after the agent has stopped.
    pub(super) async fn done(self) {
        if let Some(ended) = self.0
            && tokio::time::timeout(GOODBYE, ended).await.is_err()
        {
            tracing::warn!("the state file was not written within {} s and stays as it was", GOODBYE.as_secs());
        }
    }
}

/// Restores the agent from the file, and starts the thread that writes the file from now on.
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
            let answered = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(saved.answered_ms));
            // An age is unknown if the clock was wrong then or is wrong now; the services are valid all the same.
            let age = answered.and_then(|answered| now.duration_since(answered).ok());
            (*source, Restored { snapshot: saved.snapshot.clone(), path: path.clone(), age })
        })
        .collect();
    let agent = agent.with_restored(restored).with_drained(state.drained.clone());
    let (jobs, inbox) = mpsc::channel(1);
    let events = events.clone();
    // Fails only while this process exits.
    let report = move |outcome| drop(events.blocking_send(Event::StateSaved(outcome)));
    let ended = file.start(state, inbox, report).context("cannot start a thread")?;
    Ok((agent.with_state_file(jobs, trouble), LastWrite(Some(ended))))
}
