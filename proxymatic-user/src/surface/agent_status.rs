//! The agent's local socket.
//!
//! A client sends one line: `status` for the status as one JSON document, or `events` for one JSON document per event, each
//! on its own line. A client that sends nothing gets the status.

use std::{io, os::unix::fs::PermissionsExt as _, path::Path, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        UnixListener, UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, broadcast, watch},
    time::timeout,
};

use crate::agent::{AgentStatus, WatchEvent};

/// How long a command waits for an agent that is stuck, and the agent for a command.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the agent waits for the client's line.
const REQUEST_TIME: Duration = Duration::from_millis(500);
/// How many clients may be connected at once, because each needs a descriptor. Further ones wait.
const CLIENTS: usize = 64;
/// The line of a client that wants events.
const EVENTS: &str = "events\n";

/// Serves a socket that only root can open, until this process ends.
///
/// # Errors
/// The socket cannot be made.
pub async fn serve(
    path: &Path,
    status: watch::Receiver<AgentStatus>,
    events: broadcast::Sender<WatchEvent>,
) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // An agent that was killed left its socket. No other agent listens there: this one holds the lock on the pins.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        let room = Arc::new(Semaphore::new(CLIENTS));
        // The semaphore is never closed.
        while let Ok(seat) = Arc::clone(&room).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (status, events) = (status.clone(), events.clone());
                    tokio::spawn(async move {
                        // Fails if the client leaves early.
                        let _ = answer(stream, &status, &events).await;
                        drop(seat);
                    });
                }
                // Most likely the process is out of descriptors for a moment.
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
    events: &broadcast::Sender<WatchEvent>,
) -> io::Result<()> {
    let (request, mut out) = stream.into_split();
    let mut line = String::new();
    let mut request = BufReader::new(request.take(EVENTS.len() as u64));
    let _ = timeout(REQUEST_TIME, request.read_line(&mut line)).await;
    if line == EVENTS {
        return send_events(request.into_inner().into_inner(), out, events.subscribe()).await;
    }
    let now = serde_json::to_vec(&*status.borrow())?;
    timeout(PATIENCE, async {
        out.write_all(&now).await?;
        out.shutdown().await
    })
    .await?
}

/// Sends events until the client leaves. A client that is too slow loses the oldest, and gets their number.
async fn send_events(
    mut client: OwnedReadHalf,
    mut out: OwnedWriteHalf,
    mut events: broadcast::Receiver<WatchEvent>,
) -> io::Result<()> {
    let mut nothing = [0; 1];
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            // The client sends nothing more, so a read returns when it closes.
            _ = client.read(&mut nothing) => return Ok(()),
        };
        let event = match event {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(lost)) => {
                WatchEvent { lost: Some(lost), ..WatchEvent::now("lost") }
            }
            Err(broadcast::error::RecvError::Closed) => return Ok(()),
        };
        let mut line = serde_json::to_vec(&event)?;
        line.push(b'\n');
        out.write_all(&line).await?;
    }
}

/// A client of the running agent that gets events.
#[derive(Debug)]
pub struct Watch(BufReader<UnixStream>);

/// Subscribes to the events of the running agent. Returns `None` if no agent runs.
pub async fn watch_agent(path: &Path) -> Option<Watch> {
    let mut stream = UnixStream::connect(path).await.ok()?;
    stream.write_all(EVENTS.as_bytes()).await.ok()?;
    Some(Watch(BufReader::new(stream)))
}

impl Watch {
    /// Returns the next event; `None` if the agent has stopped.
    ///
    /// # Errors
    /// The line is no event of this version.
    pub async fn next(&mut self) -> io::Result<Option<WatchEvent>> {
        let mut line = String::new();
        if self.0.read_line(&mut line).await.unwrap_or(0) == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&line)?))
    }
}

/// Returns the status of the running agent; `None` if no agent runs, or it does not answer.
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
