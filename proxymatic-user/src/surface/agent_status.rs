//! What only the running agent knows, handed out on a local socket.
//!
//! Whoever connects says in one line what he wants: `status` for one JSON document, or `events` for one on each line as
//! things happen. Who says nothing gets the status.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, broadcast, watch},
    time::timeout,
};

use super::{Latencies, WatchEvent};
use crate::model::Warning;

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
    pub warnings: Vec<Warning>,
    /// Why the kernel refused the last write; absent where it did not.
    pub refused: Option<String>,
    /// The backends that are kept out until they answer.
    #[serde(default)]
    pub ejected: Vec<OutStatus>,
    /// What came of the self-test.
    pub self_test: SelfTestStatus,
    /// How many connections of clients on other machines are kept; absent where no interface is served, or before the first
    /// look.
    #[serde(default)]
    pub remote_connections: Option<u64>,
    /// When this was so; not in the JSON.
    #[serde(skip)]
    pub at: Option<Instant>,
    /// How long it took to publish; for metrics, not in the JSON.
    #[serde(skip)]
    pub published: Latencies,
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

/// A backend that does not answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutStatus {
    /// The name of its service.
    pub service: String,
    /// Where it listens.
    pub backend: SocketAddr,
    /// For how long it has been out, in seconds.
    pub out_s: f64,
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
    /// How many attempts have failed since the agent started; for metrics, not in the JSON.
    #[serde(skip)]
    pub failures: u64,
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
/// How long the agent waits to be told what is wanted.
const WORDLESS: Duration = Duration::from_millis(500);
/// How many may be connected at once: each costs a descriptor. Further ones wait.
const GUESTS: usize = 64;
/// What a watcher sends.
const EVENTS: &str = "events\n";

/// Answers on a socket that only root can open, for as long as this process runs.
///
/// # Errors
/// The socket cannot be made.
pub async fn serve(
    path: &Path,
    status: watch::Receiver<AgentStatus>,
    happenings: broadcast::Sender<WatchEvent>,
) -> io::Result<()> {
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
        let room = Arc::new(Semaphore::new(GUESTS));
        // Never closed.
        while let Ok(seat) = Arc::clone(&room).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (status, happenings) = (status.clone(), happenings.clone());
                    tokio::spawn(async move {
                        // Who leaves early is no concern of ours.
                        let _ = answer(stream, &status, &happenings).await;
                        drop(seat);
                    });
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

async fn answer(
    stream: UnixStream,
    status: &watch::Receiver<AgentStatus>,
    happenings: &broadcast::Sender<WatchEvent>,
) -> io::Result<()> {
    let (asked, mut out) = stream.into_split();
    let mut wanted = String::new();
    let mut asked = BufReader::new(asked.take(EVENTS.len() as u64));
    let _ = timeout(WORDLESS, asked.read_line(&mut wanted)).await;
    if wanted == EVENTS {
        return follow(asked.into_inner().into_inner(), out, happenings.subscribe()).await;
    }
    let now = serde_json::to_vec(&*status.borrow())?;
    timeout(PATIENCE, async {
        out.write_all(&now).await?;
        out.shutdown().await
    })
    .await?
}

/// Tells a watcher what happens until he leaves. One that is too slow loses the oldest, and is told how many.
async fn follow(
    mut watcher: OwnedReadHalf,
    mut out: OwnedWriteHalf,
    mut happenings: broadcast::Receiver<WatchEvent>,
) -> io::Result<()> {
    let mut nothing = [0; 1];
    loop {
        let happening = tokio::select! {
            happening = happenings.recv() => happening,
            // He sends no more: what is read is his end.
            _ = watcher.read(&mut nothing) => return Ok(()),
        };
        let happening = match happening {
            Ok(happening) => happening,
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                WatchEvent { lost: Some(lost), ..WatchEvent::now("lost") }
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        };
        let mut line = serde_json::to_vec(&happening)?;
        line.push(b'\n');
        out.write_all(&line).await?;
    }
}

/// What happens, as the running agent tells it.
#[derive(Debug)]
pub struct Watch(BufReader<UnixStream>);

/// Asks the running agent to tell what happens. `None` where there is none.
pub async fn watch_agent(path: &Path) -> Option<Watch> {
    let mut stream = UnixStream::connect(path).await.ok()?;
    stream.write_all(EVENTS.as_bytes()).await.ok()?;
    Some(Watch(BufReader::new(stream)))
}

impl Watch {
    /// The next thing that happens; `None` where the agent has left.
    ///
    /// # Errors
    /// What came is no event of this version.
    pub async fn next(&mut self) -> io::Result<Option<WatchEvent>> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await.unwrap_or(0) == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }
}

/// Asks the running agent. `None` where there is none, or it does not answer.
pub async fn ask(path: &Path) -> Option<AgentStatus> {
    let answer = async {
        let mut stream = UnixStream::connect(path).await.ok()?;
        stream.write_all(b"status\n").await.ok()?;
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
