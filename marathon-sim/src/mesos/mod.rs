//! A Mesos with one agent behind the simulated Marathon: tasks become containers of a Docker, with the names and
//! variables of Mesos' Docker containerizer.
//!
//! One loop compares the cluster's wanted tasks (`steps`) with the running ones, and acts until both agree. It differs
//! from the real Mesos: all resources are available, checks run each second whatever their interval, and a task with
//! failing checks is not killed.

mod checks;
mod docker;
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use self::docker::{Docker, Order};
use self::steps::Step;
use super::state::Shared;
use super::task::{Place, TaskState};

/// The interval of the loop.
const PERIOD: Duration = Duration::from_millis(200);
/// Pause of an app after a failed start of a task.
const BACKOFF: Duration = Duration::from_secs(2);
/// Grace period of a task, unless its app sets one (`taskKillGracePeriodSeconds`).
const GRACE: u64 = 3;

/// A running Mesos. [`Mesos::stop`] ends its tasks; dropping it leaves them.
#[derive(Debug)]
pub struct Mesos {
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

impl Mesos {
    /// Starts one that runs the tasks of `state` on the Docker behind a socket; `host` is their reported host.
    pub(super) fn start(shared: Arc<Shared>, socket: &Path, host: String) -> Result<Self> {
        let docker = Docker::at(socket)?;
        let (stop, stopped) = oneshot::channel();
        let running = Running {
            shared: Arc::clone(&shared),
            docker,
            host: host.clone(),
            started: BTreeSet::new(),
            waits: BTreeMap::new(),
            ending: JoinSet::new(),
        };
        let checking = tokio::spawn(checks::follow(shared));
        let done = tokio::spawn(async move {
            running.until(stopped).await;
            checking.abort();
        });
        Ok(Self { stop, done })
    }

    /// Ends all tasks and removes their containers.
    pub async fn stop(self) {
        // Already gone is fine.
        let _ = self.stop.send(());
        let _ = self.done.await;
    }
}

struct Running {
    shared: Arc<Shared>,
    docker: Docker,
    host: String,
    /// Tasks with a container.
    started: BTreeSet<String>,
    /// Apps whose next task has to wait.
    waits: BTreeMap<String, Instant>,
    ending: JoinSet<()>,
}

impl Running {
    async fn until(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut clock = interval(PERIOD);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // An error means that the handle was dropped.
                said = &mut stopped => match said { Ok(()) => break, Err(_) => return },
                _ = clock.tick() => {}
            }
            if let Err(error) = self.round().await {
                warn(&error);
            }
        }
        for task in std::mem::take(&mut self.started) {
            self.end(task, false);
        }
        self.ending.join_all().await;
    }

    async fn round(&mut self) -> Result<()> {
        let alive = self.docker.tasks().await?;
        let known = self.known();
        for task in self.started.clone() {
            if !known.contains(&task) {
                // Marathon no longer has it, since its app was deleted.
                self.started.remove(&task);
                self.end(task, false);
            } else if !alive.contains(&task) {
                self.started.remove(&task);
                self.ended(&task).await;
            }
        }
        for step in self.shared.look(|inner| steps::of(&inner.cluster)) {
            match step {
                Step::Start(app) => self.launch(app).await,
                Step::Stop(task) => {
                    self.say(&task, TaskState::TaskKilling);
                    self.started.remove(&task);
                    self.end(task, true);
                }
            }
        }
        while self.ending.try_join_next().is_some() {}
        Ok(())
    }

    fn known(&self) -> BTreeSet<String> {
        self.shared
            .look(|inner| inner.cluster.apps().flat_map(|(_, app)| app.tasks().map(|task| task.id.clone())).collect())
    }

    async fn launch(&mut self, app: String) {
        if self.waits.get(&app).is_some_and(|until| Instant::now() < *until) {
            return;
        }
        if let Err(error) = self.try_launch(&app).await {
            warn(&error.context(format!("cannot start a task of {app}")));
            self.waits.insert(app, Instant::now() + BACKOFF);
        }
    }

    async fn try_launch(&mut self, app: &str) -> Result<()> {
        let place = Place { host: self.host.clone(), state: TaskState::TaskStaging, alive: None, ..Place::default() };
        let order = self.shared.change(|inner| {
            let task = inner.cluster.start(app, &place)?;
            let version = inner.cluster.app(app).map(|it| it.current().json.clone()).unwrap_or_default();
            let ports = inner.cluster.app(app).and_then(|it| it.task(&task)).map(|it| it.ports.clone());
            anyhow::Ok(Order {
                task,
                app: app.to_owned(),
                version,
                ports: ports.unwrap_or_default(),
                host: place.host.clone(),
            })
        })?;
        let outcome = self.docker.start(&order).await;
        self.say(&order.task, if outcome.is_ok() { TaskState::TaskRunning } else { TaskState::TaskFailed });
        outcome?;
        self.started.insert(order.task);
        Ok(())
    }

    /// It has ended by itself.
    async fn ended(&mut self, task: &str) {
        self.say(task, TaskState::TaskFailed);
        if let Err(error) = self.docker.remove(task).await {
            warn(&error);
        }
    }

    /// Ends a container and waits for its end; `tell` means that Marathon waits for the state.
    fn end(&mut self, task: String, tell: bool) {
        let (docker, shared) = (self.docker.clone(), Arc::clone(&self.shared));
        let grace = shared.look(|inner| {
            let of = inner.cluster.apps().find(|(_, app)| app.task(&task).is_some());
            of.map_or(GRACE, |(_, app)| grace(&app.current().json))
        });
        self.ending.spawn(async move {
            if let Err(error) = docker.stop(&task, grace).await {
                warn(&error);
            }
            if tell {
                say(&shared, &task, TaskState::TaskKilled);
            }
        });
    }

    fn say(&self, task: &str, state: TaskState) {
        say(&self.shared, task, state);
    }
}

fn say(shared: &Shared, task: &str, state: TaskState) {
    // Marathon has dropped the task meanwhile and needs no state.
    let _ = shared.change(|inner| inner.cluster.set_state(task, state));
}

fn grace(app: &Map<String, Value>) -> u64 {
    app.get("taskKillGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(GRACE)
}

#[expect(clippy::print_stderr, reason = "the simulator has no log: errors go to stderr")]
fn warn(error: &anyhow::Error) {
    eprintln!("marathon-sim: {error:#}");
}

impl super::Sim {
    /// Runs the tasks of apps from `/v2/apps` as containers of the Docker behind a socket; `host`, an address or a
    /// name, is their reported host.
    ///
    /// # Errors
    /// No client can be made.
    pub fn run_containers(&self, socket: &Path, host: String) -> Result<Mesos> {
        Mesos::start(self.shared(), socket, host).context("cannot speak to Docker")
    }
}
