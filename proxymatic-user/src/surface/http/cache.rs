//! What was seen last, for all who ask within a second: however many ask, the maps are read once.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use axum::body::Bytes;
use tokio::{
    sync::{Mutex, watch},
    task::spawn_blocking,
};

use super::{Look, Rejected};
use crate::surface::{AgentStatus, Format, Overview, metrics, render};

/// How old an answer may be.
const FRESH: Duration = Duration::from_secs(1);
/// After how long without a round of its loop the agent is taken to be stuck: a whole plan may take seconds.
const STUCK: Duration = Duration::from_secs(30);

/// Who gives the answers.
#[derive(Clone)]
pub(super) struct Latest(Arc<Inner>);

struct Inner {
    agent: watch::Receiver<AgentStatus>,
    look: Look,
    rejected: Rejected,
    seen: Mutex<Option<(Instant, Arc<Shown>)>>,
}

/// What was seen, and how it is written down once somebody wants it so.
pub(super) struct Shown {
    pub(super) seen: Arc<Overview>,
    services: OnceLock<Bytes>,
    status: OnceLock<Bytes>,
    metrics: OnceLock<Bytes>,
}

/// A way to write down what was seen.
#[derive(Clone, Copy)]
pub(super) enum As {
    /// What `proxymatic -j service show` prints.
    Services,
    /// What `proxymatic -j status` prints.
    Status,
    /// For Prometheus.
    Metrics,
}

impl Latest {
    pub(super) fn new(agent: watch::Receiver<AgentStatus>, look: Look, rejected: Rejected) -> Self {
        Self(Arc::new(Inner { agent, look, rejected, seen: Mutex::default() }))
    }

    /// What the agent said last, without a look at any map.
    pub(super) fn agent(&self) -> AgentStatus {
        self.0.agent.borrow().clone()
    }

    /// What is there, as it was at most a second ago.
    ///
    /// # Errors
    /// Why it cannot be seen.
    pub(super) async fn seen(&self) -> Result<Arc<Shown>, String> {
        let inner = Arc::clone(&self.0);
        // A task of its own: a client that does not wait for the answer must not have it begun anew.
        tokio::spawn(inner.look_again()).await.map_err(|error| error.to_string())?
    }

    /// The same, written down.
    ///
    /// # Errors
    /// Why it cannot be seen.
    pub(super) async fn written(&self, how: As) -> Result<Bytes, String> {
        let shown = self.seen().await?;
        let rejected = Arc::clone(&self.0.rejected);
        spawn_blocking(move || shown.written(how, &rejected)).await.map_err(|error| error.to_string())
    }

    /// Why the agent is taken to be stuck; `None` where it is not.
    pub(super) fn stuck(&self) -> Option<String> {
        let age = self.0.agent.borrow().at.map_or(Duration::ZERO, |at| at.elapsed());
        (age >= STUCK).then(|| format!("the agent's loop has stood still for {} s", age.as_secs()))
    }
}

impl Inner {
    async fn look_again(self: Arc<Self>) -> Result<Arc<Shown>, String> {
        // Held while looking: whoever asks meanwhile gets what comes of it.
        let mut seen = self.seen.lock().await;
        if let Some((at, shown)) = &*seen
            && at.elapsed() < FRESH
        {
            return Ok(Arc::clone(shown));
        }
        // The old one goes first: two of them are twice the memory.
        *seen = None;
        let inner = Arc::clone(&self);
        let look = move || {
            let agent = inner.agent.borrow().clone();
            (inner.look)(agent)
        };
        let now = spawn_blocking(look).await.map_err(|error| error.to_string())??;
        let shown = Arc::new(Shown {
            seen: Arc::new(now),
            services: OnceLock::new(),
            status: OnceLock::new(),
            metrics: OnceLock::new(),
        });
        *seen = Some((Instant::now(), Arc::clone(&shown)));
        Ok(shown)
    }
}

impl Shown {
    fn written(&self, how: As, rejected: &Rejected) -> Bytes {
        // Rows of numbers and strings: JSON has words for all of it.
        let json = |text: std::io::Result<String>| Bytes::from(text.unwrap_or_default() + "\n");
        let written = match how {
            As::Services => self.services.get_or_init(|| json(render::text(&self.seen.services, Format::Json))),
            As::Status => self.status.get_or_init(|| json(render::text(&self.seen.status, Format::Json))),
            As::Metrics => self.metrics.get_or_init(|| Bytes::from(metrics::text(&self.seen, rejected))),
        };
        written.clone()
    }
}
