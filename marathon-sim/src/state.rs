//! The state that all requests share: the cluster, its listeners, the current fault and the log, under one lock.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;
use tokio::sync::Notify;

use super::auth::Auth;
use super::cluster::Cluster;
use super::event_bus::EventBus;
use super::fault::{Fault, FaultKind};
use super::timestamp::Timestamp;

/// The number of requests in the log.
const LOG: usize = 1000;

/// A received request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logged {
    /// `GET`
    pub method: String,
    /// `/v2/apps`
    pub path: String,
    /// The query, unchanged.
    pub query: Option<String>,
    /// The `Accept` header.
    pub accept: Option<String>,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The address of the node that received it.
    pub node: String,
}

/// The changing state.
#[derive(Debug)]
pub(super) struct Inner {
    /// The cluster.
    pub(super) cluster: Cluster,
    /// Its listeners.
    pub(super) hub: EventBus,
    /// The current fault.
    pub(super) fault: Fault,
    /// Access, and the leader.
    pub(super) gate: Auth,
    /// The latest requests, oldest first.
    pub(super) log: VecDeque<Logged>,
    /// Ends the listener of each node.
    pub(super) stops: BTreeMap<SocketAddr, Arc<Notify>>,
    /// Whether the simulator is ending and accepts no more listeners.
    pub(super) closing: bool,
}

/// [`Inner`] behind its lock, and constants.
#[derive(Debug)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// The interval of heartbeats.
    pub(super) heartbeat: Duration,
    /// Wakes if the only node has abdicated.
    pub(super) exit: Notify,
}

impl Shared {
    /// A cluster without apps.
    pub(super) fn new(leader: &str, heartbeat: Duration) -> Self {
        let (cluster, fault) = (Cluster::new(leader), Fault::new(FaultKind::None));
        let (hub, gate) = (EventBus::default(), Auth::default());
        let (log, stops) = (VecDeque::new(), BTreeMap::new());
        let inner = Inner { cluster, hub, fault, gate, log, stops, closing: false };
        Self { inner: Mutex::new(inner), heartbeat, exit: Notify::new() }
    }

    /// Reads the state.
    pub(super) fn look<T>(&self, look: impl FnOnce(&Inner) -> T) -> T {
        look(&self.lock())
    }

    /// Changes the state at the current time. Its events reach the listeners in this order, and a listing after an
    /// event shows the change.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        let mut inner = self.lock();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        inner.cluster.tick(Timestamp::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)));
        let answer = change(&mut inner);
        let events = inner.cluster.take_events();
        if inner.fault.kind != FaultKind::SilentEvents {
            let dialect = inner.cluster.dialect();
            inner.hub.publish(&events, dialect);
        }
        answer
    }

    /// Adds a request to the log.
    pub(super) fn log(&self, request: Logged) {
        let mut inner = self.lock();
        if inner.log.len() == LOG {
            inner.log.pop_front();
        }
        inner.log.push_back(request);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in one request is reported by that request; the others go on.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
