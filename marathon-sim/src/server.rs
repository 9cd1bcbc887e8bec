//! The server of a cluster, and its handle for tests.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

use super::api_version::Dialect;
use super::auth::Guard;
use super::delivery::Delivery;
use super::error::CommandError;
use super::fault::Fault;
use super::pod::PodPlace;
use super::short_form::ShortApp;
use super::state::{Inner, Logged, Shared};
use super::stream::Peer;
use super::task::{Place, TaskState};
use super::{abdication, api, command};

/// Options of the simulator; the default is a plain Marathon.
#[derive(Debug, Clone)]
pub struct Options {
    /// The leader's name, `host:port`; by default the listening address.
    pub leader: Option<String>,
    /// The interval of heartbeats.
    pub heartbeat: Duration,
    /// The Marathon version whose JSON is written.
    pub dialect: Dialect,
}

impl Default for Options {
    fn default() -> Self {
        Self { leader: None, heartbeat: Duration::from_secs(10), dialect: Dialect::default() }
    }
}

/// A running simulator. Dropping it ends every event stream and stops listening.
#[derive(Debug)]
pub struct Sim {
    /// The address that the simulator listens on.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
    _stop: oneshot::Sender<()>,
}

/// Serves an empty cluster on `listener` in a task of the current runtime.
pub fn serve(listener: TcpListener, options: Options) -> io::Result<Sim> {
    let addr = listener.local_addr()?;
    let leader = options.leader.unwrap_or_else(|| addr.to_string());
    let shared = Arc::new(Shared::new(&leader, options.heartbeat));
    shared.change(|inner| inner.cluster.speak(options.dialect));
    let stop = listen(listener, addr, &shared);
    Ok(Sim { addr, shared, _stop: stop })
}

/// Another node of the same cluster. It leads if the leader has its name; else it is a standby. Dropping it stops it.
#[derive(Debug)]
pub struct Node {
    /// The address that the simulator listens on.
    pub addr: SocketAddr,
    _stop: oneshot::Sender<()>,
}

impl Node {
    /// `http://address:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

fn listen(listener: TcpListener, addr: SocketAddr, shared: &Arc<Shared>) -> oneshot::Sender<()> {
    let (exit, (stop, stopped)) = (Arc::new(Notify::new()), oneshot::channel::<()>());
    shared.change(|inner| {
        inner.gate.nodes.push(addr);
        inner.stops.insert(addr, Arc::clone(&exit));
    });
    let service = api::router(Arc::clone(shared), addr).into_make_service_with_connect_info::<Peer>();
    tokio::spawn(async move {
        let until_dropped = async move {
            tokio::select! {
                _ = stopped => {} // an error says that the handle is gone, which is the signal
                () = exit.notified() => {}
            }
        };
        axum::serve(listener, service).with_graceful_shutdown(until_dropped).await
    });
    stop
}

impl Sim {
    /// Serves an empty cluster on a free port of 127.0.0.1.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(Options::default()).await
    }

    /// Serves an empty cluster with these options on a free port of 127.0.0.1.
    pub async fn start_with(options: Options) -> io::Result<Self> {
        serve(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?, options)
    }

    /// `http://address:port`
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Executes any control command, by its path below `/sim/` and its JSON.
    pub fn command(&self, name: &str, body: Value) -> Result<Value, CommandError> {
        self.change(|inner| command::run(inner, name, body))
    }

    /// Makes an app (or a new version of it) and its tasks; returns the ids of the new tasks.
    pub fn create(&self, app: ShortApp) -> Result<Vec<String>, CommandError> {
        let (definition, places) = app.expand();
        self.create_full(definition, &places)
    }

    /// Makes an app from Marathon's JSON, with tasks.
    pub fn create_full(&self, definition: Value, places: &[Place]) -> Result<Vec<String>, CommandError> {
        self.change(|inner| inner.cluster.create(definition, places))
    }

    /// Scales an app up by these tasks; returns their ids.
    pub fn launch(&self, app: &str, places: &[Place]) -> Result<Vec<String>, CommandError> {
        self.change(|inner| inner.cluster.launch(app, places))
    }

    /// Ends a task and starts it again under its instance; returns its id.
    pub fn restart(&self, task: &str, place: &Place) -> Result<String, CommandError> {
        self.change(|inner| inner.cluster.restart(task, place))
    }

    /// Decides to stop a task, before Mesos does anything.
    pub fn kill(&self, task: &str) -> Result<(), CommandError> {
        self.change(|inner| inner.cluster.kill(task))
    }

    /// Sets whether ends are announced from now on.
    pub fn announce(&self, announcements: bool) {
        self.change(|inner| inner.cluster.announce(announcements));
    }

    /// Withdraws the deployment of an app's current version; returns the name of the version that counts again.
    pub fn withdraw(&self, app: &str) -> Result<String, CommandError> {
        self.change(|inner| inner.cluster.withdraw(app)).map(|version| version.to_string())
    }

    /// Reports another state of a task; a terminal one removes it.
    pub fn set_state(&self, task: &str, state: TaskState) -> Result<(), CommandError> {
        self.change(|inner| inner.cluster.set_state(task, state))
    }

    /// Sets the result of all health checks of a task; `None` removes their results.
    pub fn set_health(&self, task: &str, alive: Option<bool>) -> Result<(), CommandError> {
        self.change(|inner| inner.cluster.set_health(task, None, alive))
    }

    /// Sets the result of one of several health checks.
    pub fn set_check(&self, task: &str, check: usize, alive: Option<bool>) -> Result<(), CommandError> {
        self.change(|inner| inner.cluster.set_health(task, Some(check), alive))
    }

    /// Sets the result of a task's readiness check; the last `None` ends the app's deployment.
    pub fn set_ready(&self, task: &str, ready: Option<bool>) -> Result<(), CommandError> {
        self.change(|inner| inner.cluster.set_ready(task, ready))
    }

    /// Replaces top-level fields of an app (`changes` has its `id` too); returns the name of the new version.
    pub fn update_app(&self, changes: Value) -> Result<String, CommandError> {
        self.change(|inner| inner.cluster.update(changes)).map(|version| version.to_string())
    }

    /// Replaces all tasks of an app in one step; returns the ids of the new ones.
    pub fn replace(&self, app: &str, places: &[Place]) -> Result<Vec<String>, CommandError> {
        self.change(|inner| inner.cluster.replace(app, places))
    }

    /// Deletes an app and its tasks.
    pub fn delete_app(&self, id: &str) -> Result<(), CommandError> {
        self.change(|inner| inner.cluster.delete(id))
    }

    /// Another node leads: event streams end, health results are lost. Returns its name, generated if not given.
    pub fn change_leader(&self, name: Option<&str>) -> String {
        self.change(|inner| command::change_leader(inner, name.map(Into::into)))
    }

    /// No node leads: event streams end, and every response has this status, until [`Sim::elect`].
    pub fn lose_leader(&self, code: StatusCode) {
        self.change(|inner| command::lose_leader(inner, code, None));
    }

    /// Ends a time without leader: another node leads, and health results are lost. Returns its name.
    pub fn elect(&self, name: Option<&str>) -> String {
        self.change(|inner| {
            inner.gate.leaderless = None;
            command::change_leader(inner, name.map(Into::into))
        })
    }

    /// The leader abdicates, so its process exits: its listener and its event streams end. The others have no leader
    /// during the election; then one of them leads, and health results are lost. Returns false if there is no other.
    pub fn abdicate(&self, election: Duration) -> bool {
        self.change(|inner| abdication::abdicate(inner, election))
    }

    /// Returns when the only node has abdicated: the real Marathon's process exits then.
    pub async fn exits(&self) {
        self.shared.exit.notified().await;
    }

    /// Starts another node, on a free port of 127.0.0.1.
    pub async fn node(&self) -> io::Result<Node> {
        self.node_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?)
    }

    /// Starts another node on `listener`.
    pub fn node_on(&self, listener: TcpListener) -> io::Result<Node> {
        let addr = listener.local_addr()?;
        Ok(Node { addr, _stop: listen(listener, addr, &self.shared) })
    }

    /// Writes the JSON of another Marathon from now on. Running tasks keep their ids.
    pub fn speak(&self, dialect: Dialect) {
        self.change(|inner| inner.cluster.speak(dialect));
    }

    /// Makes a pod from Marathon's JSON (or a new version of it) and instances; returns their ids.
    pub fn create_pod(&self, spec: Value, places: &[PodPlace]) -> Result<Vec<String>, CommandError> {
        self.change(|inner| inner.cluster.create_pod(spec, places))
    }

    /// Reports another state of a container, and its health result.
    pub fn set_container(
        &self,
        instance: &str,
        container: &str,
        state: TaskState,
        healthy: Option<bool>,
    ) -> Result<(), CommandError> {
        self.change(|inner| inner.cluster.set_container(instance, container, state, healthy))
    }

    /// Deletes a pod and its instances.
    pub fn delete_pod(&self, id: &str) -> Result<(), CommandError> {
        self.change(|inner| inner.cluster.delete_pod(id))
    }

    /// Holds the root: no listing shows a new app or the new version of a changed one, and no event announces the
    /// switch, until the root is released. Tasks and deletions are shown at once.
    pub fn hold_root(&self, held: bool) {
        self.change(|inner| inner.cluster.hold_root(held));
    }

    /// Sets the delivery of events from now on.
    pub fn deliver(&self, delivery: Delivery) {
        self.change(|inner| inner.hub.delivery = delivery);
    }

    /// Sets the required credentials from now on. Earlier tokens become invalid.
    pub fn guard(&self, guard: Guard) {
        self.change(|inner| {
            inner.gate.guard = guard;
            inner.gate.forget_tokens();
        });
    }

    /// Sets the fault from now on.
    pub fn fault(&self, fault: Fault) {
        self.change(|inner| command::set_fault(inner, fault));
    }

    /// Returns the latest thousand requests (without those to `/sim`), oldest first.
    pub fn log(&self) -> Vec<Logged> {
        self.shared.look(|inner| inner.log.iter().cloned().collect())
    }

    /// Clears the log of requests.
    pub fn clear_log(&self) {
        self.change(|inner| inner.log.clear());
    }

    /// Returns the number of open event streams.
    pub fn streams(&self) -> usize {
        self.shared.look(|inner| inner.hub.len())
    }

    /// Ends every event stream, as a restart of a load balancer in between does.
    pub fn close_streams(&self) {
        self.change(|inner| inner.hub.close());
    }

    /// Returns the answer of `GET /sim/state`.
    pub fn state(&self) -> Value {
        self.shared.look(command::summary)
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Inner) -> T) -> T {
        self.shared.change(change)
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.change(|inner| {
            inner.closing = true;
            inner.hub.close();
        });
    }
}
