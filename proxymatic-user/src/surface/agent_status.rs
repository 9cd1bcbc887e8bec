//! What only the running agent knows, handed out on a local socket.
//!
//! The protocol is the shortest there is: whoever connects gets one JSON document and the end of the stream.

use std::{
    io,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    sync::watch,
    time::timeout,
};

use super::Latencies;
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
    /// When this was so; not in the JSON.
    #[serde(skip)]
    pub at: Option<Instant>,
    /// How long it took to publish; for metrics, not in the JSON.
    #[serde(skip)]
    pub published: Latencies,
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
    /// How many attempts have failed since the agent started; for metrics, not in the JSON.
    #[serde(skip)]
    pub failures: u64,
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
