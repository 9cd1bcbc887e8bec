//! A cache of what was read from the maps, for all requests within a second: the maps are read once for any number of
//! requests.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::body::Bytes;
use tokio::{
    sync::{Mutex, watch},
    task::spawn_blocking,
};

use crate::surface::{
    AgentStatus, Format, Overview,
    metrics::{self, Rejected},
    render,
};

/// Reads the maps; `Err` is the reason as one sentence.
pub(super) type ReadMaps = Box<dyn Fn(AgentStatus) -> Result<Overview, String> + Send + Sync>;

/// The largest age of an answer.
const FRESH: Duration = Duration::from_secs(1);
/// The time without a loop iteration after which the agent counts as stuck. One whole plan may take seconds.
const STUCK: Duration = Duration::from_secs(30);

/// The cache that answers requests.
#[derive(Clone)]
pub(super) struct Latest(Arc<Inner>);

struct Inner {
    agent: watch::Receiver<AgentStatus>,
    read: ReadMaps,
    rejected: Rejected,
    last: Mutex<Option<(Instant, Arc<Reading>)>>,
}

/// A reading of the maps, with its serialized forms once they are requested.
pub(super) struct Reading {
    pub(super) overview: Arc<Overview>,
    services: OnceLock<Bytes>,
    status: OnceLock<Bytes>,
    metrics: OnceLock<Bytes>,
}

/// A serialized form of a reading.
#[derive(Clone, Copy)]
pub(super) enum View {
    /// What `proxymatic -j service show` prints.
    Services,
    /// What `proxymatic -j status` prints.
    Status,
    /// For Prometheus.
    Metrics,
}

impl Latest {
    pub(super) fn new(agent: watch::Receiver<AgentStatus>, read: ReadMaps, rejected: Rejected) -> Self {
        Self(Arc::new(Inner { agent, read, rejected, last: Mutex::default() }))
    }

    /// Returns the agent's last status, without reading any map.
    pub(super) fn agent(&self) -> AgentStatus {
        self.0.agent.borrow().clone()
    }

    /// Returns a reading that is at most a second old.
    ///
    /// # Errors
    /// The reason why the maps cannot be read.
    pub(super) async fn reading(&self) -> Result<Arc<Reading>, String> {
        let inner = Arc::clone(&self.0);
        // A task of its own, so that reading goes on if the client disconnects.
        tokio::spawn(inner.read_again()).await.map_err(|error| error.to_string())?
    }

    /// Returns a serialized form of a reading.
    ///
    /// # Errors
    /// The reason why the maps cannot be read.
    pub(super) async fn rendered(&self, view: View) -> Result<Bytes, String> {
        let reading = self.reading().await?;
        let rejected = Arc::clone(&self.0.rejected);
        spawn_blocking(move || reading.rendered(view, &rejected)).await.map_err(|error| error.to_string())
    }

    /// Returns why the agent counts as stuck; `None` if it does not.
    pub(super) fn stuck_reason(&self) -> Option<String> {
        let age = self.0.agent.borrow().at.map_or(Duration::ZERO, |at| at.elapsed());
        (age >= STUCK).then(|| format!("the agent's loop has made no iteration for {} s", age.as_secs()))
    }
}

impl Inner {
    async fn read_again(self: Arc<Self>) -> Result<Arc<Reading>, String> {
        // The lock is held while reading: requests that arrive meanwhile get the same result.
        let mut last = self.last.lock().await;
        if let Some((at, reading)) = &*last
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(reading));
        }
        // The old reading is dropped first, because two readings need twice the memory.
        *last = None;
        let inner = Arc::clone(&self);
        let read = move || {
            let agent = inner.agent.borrow().clone();
            (inner.read)(agent)
        };
        let now = spawn_blocking(read).await.map_err(|error| error.to_string())??;
        let reading = Arc::new(Reading {
            overview: Arc::new(now),
            services: OnceLock::new(),
            status: OnceLock::new(),
            metrics: OnceLock::new(),
        });
        *last = Some((Instant::now(), Arc::clone(&reading)));
        Ok(reading)
    }
}

impl Reading {
    fn rendered(&self, view: View, rejected: &Rejected) -> Bytes {
        // Numbers and strings only, so that serialization cannot fail.
        let json = |text: std::io::Result<String>| Bytes::from(text.unwrap_or_default() + "\n");
        let written = match view {
            View::Services => self.services.get_or_init(|| json(render::text(&self.overview.services, Format::Json))),
            View::Status => self.status.get_or_init(|| json(render::text(&self.overview.status, Format::Json))),
            View::Metrics => self.metrics.get_or_init(|| Bytes::from(metrics::text(&self.overview, rejected))),
        };
        written.clone()
    }
}
