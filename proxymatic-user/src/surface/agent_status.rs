//! What only the running agent knows, handed out on a local socket.
//!
//! The protocol is the shortest there is: whoever connects gets one JSON document and the end of the stream.

use std::{io, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::watch,
    time::timeout,
};

use crate::model::Complaint;

/// What only the running agent knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// INITIALIZING, OK or TERMINATING.
    pub state: String,
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Each source, and how fresh it is.
    pub sources: Vec<SourceStatus>,
    /// What was asked for and is not done, and why.
    pub complaints: Vec<Complaint>,
    /// Why the kernel refused the last write; absent where it did not.
    pub refused: Option<String>,
    /// What came of the self-test.
    pub self_test: SelfTestStatus,
}

/// What came of the self-test.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SelfTestStatus {
    /// How often it is made, in seconds; 0 where it is not.
    pub every_s: u64,
    /// Seconds since the last one that succeeded; absent before the first.
    pub succeeded_s: Option<f64>,
    /// Why the last one failed; absent where it did not.
    pub error: Option<String>,
    /// Why it cannot be made at all; absent where it can.
    pub impossible: Option<String>,
}

/// How fresh a source is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Its name.
    pub source: String,
    /// Seconds since the request whose answer is in use; absent before the first.
    pub answered_s: Option<f64>,
    /// What is wrong with it now.
    pub trouble: Option<Trouble>,
    /// Where its services come from while it has not answered; absent where from itself, or from the maps.
    #[serde(default)]
    pub restored: Option<RestoredFrom>,
}

/// The file that the services of a source come from which has not answered since the agent started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestoredFrom {
    /// Where it is.
    pub path: String,
    /// Seconds since the source said so; absent where the clock of this host is behind that.
    pub age_s: Option<f64>,
}

impl RestoredFrom {
    /// How old it is, in words.
    pub fn age(&self) -> String {
        match self.age_s {
            Some(age) => format!("of {} ago", span(age)),
            None => "of a time that is yet to come by the clock of this host".into(),
        }
    }
}

/// A time in the unit that a person would use.
fn span(seconds: f64) -> String {
    let units = [(172_800.0, 86_400.0, "days"), (7_200.0, 3_600.0, "hours"), (120.0, 60.0, "min")];
    let unit = units.into_iter().find(|(least, ..)| seconds >= *least);
    let (size, name) = unit.map_or((1.0, "s"), |(_, size, name)| (size, name));
    format!("{:.0} {name}", (seconds / size).floor())
}

/// What is wrong with a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// What was asked, without credentials.
    pub url: String,
    /// One sentence.
    pub reason: String,
    /// How many attempts in a row have failed.
    pub attempts: u32,
}

/// A command must not hang on an agent that is stuck, nor the agent on a command.
const PATIENCE: Duration = Duration::from_secs(3);

/// Answers on a socket that only root can open, for as long as this process runs.
///
/// # Errors
/// The socket cannot be made.
pub async fn serve(path: &Path, status: watch::Receiver<AgentStatus>) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Left by an agent that was killed. Nobody else can be listening: the lock on the pins is ours.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                // One at a time: an answer takes microseconds, and one that is not read is given up.
                Ok((stream, _)) => {
                    let now = status.borrow().clone();
                    let _ = timeout(PATIENCE, answer(stream, &now)).await;
                }
                // Out of descriptors, most likely: it passes.
                Err(error) => {
                    tracing::warn!("cannot answer on the agent's socket: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    });
    Ok(())
}

async fn answer(mut stream: UnixStream, status: &AgentStatus) -> io::Result<()> {
    stream.write_all(&serde_json::to_vec(status)?).await?;
    stream.shutdown().await
}

/// Asks the running agent. `None` where there is none, or it does not answer.
pub async fn ask(path: &Path) -> Option<AgentStatus> {
    let answer = async {
        let mut stream = UnixStream::connect(path).await.ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.ok()?;
        serde_json::from_slice(&bytes).ok()
    };
    timeout(PATIENCE, answer).await.ok()?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_the_unit_that_a_person_would_use() {
        let age = |age_s| RestoredFrom { path: String::new(), age_s }.age();
        for (seconds, said) in [
            (0.4, "of 0 s ago"),
            (119.9, "of 119 s ago"),
            (180.0, "of 3 min ago"),
            (7_200.0, "of 2 hours ago"),
            (200_000.0, "of 2 days ago"),
        ] {
            assert_eq!(age(Some(seconds)), said);
        }
        assert_eq!(age(None), "of a time that is yet to come by the clock of this host");
    }
}
