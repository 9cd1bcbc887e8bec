//! The state of a Marathon leader, and the effect of each change: commands in, events out.
//!
//! No I/O and no clock: the owner of the cluster sets the time with [`Cluster::tick`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::api_version::Dialect;
use super::app::App;
use super::error::CommandError;
use super::event::Event;
use super::event_sequences::{self, Deployment};
use super::launch::Agents;
use super::pod::Pods;
use super::task::{Health, Place, Task, TaskState};
use super::timestamp::Timestamp;
use super::version::{Version, normalise};

/// A whole Marathon cluster with one leader.
#[derive(Debug)]
pub struct Cluster {
    pub(super) now: Timestamp,
    last_version: Timestamp,
    leader: String,
    leaders: u32,
    pub(super) apps: BTreeMap<String, App>,
    pub(super) pods: Pods,
    pub(super) agents: Agents,
    /// The deployments of groups in progress.
    pub(super) deployments: BTreeMap<String, Deployment>,
    /// Whether an event tells that the goal of an instance has changed.
    pub(super) announcements: bool,
    /// Whether the root is held, and the events of its next switch.
    root_held: bool,
    unswitched: Vec<Event>,
    pub(super) events: Vec<Event>,
}

impl Cluster {
    /// A cluster without apps, led by `leader` (`host:port`).
    pub fn new(leader: &str) -> Self {
        Self {
            now: Timestamp::EPOCH,
            last_version: Timestamp::EPOCH,
            leader: leader.into(),
            leaders: 1,
            apps: BTreeMap::new(),
            pods: Pods::default(),
            agents: Agents::default(),
            deployments: BTreeMap::new(),
            announcements: true,
            root_held: false,
            unswitched: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Sets the time, which never goes back.
    pub fn tick(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
    }

    /// Returns the latest time.
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// The leader, `host:port`.
    pub fn leader(&self) -> &str {
        &self.leader
    }

    /// All apps by id.
    pub fn apps(&self) -> impl Iterator<Item = (&str, &App)> {
        self.apps.iter().map(|(id, app)| (id.as_str(), app))
    }

    /// One app.
    pub fn app(&self, id: &str) -> Option<&App> {
        self.apps.get(id)
    }

    /// One app, if listings show it.
    pub fn shown(&self, id: &str) -> Option<&App> {
        self.apps.get(id).filter(|app| app.is_shown())
    }

    /// Holds the root, so that listings show changed apps as before; or switches it to all changes so far.
    pub fn hold_root(&mut self, held: bool) {
        self.root_held = held;
        if held {
            return;
        }
        self.apps.values_mut().for_each(App::switch_root);
        let now = json!(self.now);
        for mut event in self.unswitched.drain(..) {
            event.data["timestamp"] = now.clone();
            self.events.push(event);
        }
    }

    /// Returns the events since the last call, in the order in which Marathon publishes them.
    pub fn take_events(&mut self) -> Vec<Event> {
        let dialect = self.agents.dialect;
        std::mem::take(&mut self.events).into_iter().filter_map(|event| dialect.event(event)).collect()
    }

    /// The Marathon version whose JSON is written.
    pub fn dialect(&self) -> Dialect {
        self.agents.dialect
    }

    /// Writes the JSON of another Marathon from now on. Running tasks keep their ids.
    pub fn speak(&mut self, dialect: Dialect) {
        self.agents.dialect = dialect;
        for app in self.apps.values_mut() {
            app.tasks_mut(); // What was written of it is forgotten.
        }
    }

    /// Makes an app from Marathon's JSON, or a new version of it: existing tasks stay and keep their version. Starts a
    /// task at each of `places` and returns their ids.
    pub fn create(&mut self, definition: Value, places: &[Place]) -> Result<Vec<String>, CommandError> {
        let Value::Object(mut definition) = definition else {
            return Err(CommandError::new("an app must be a JSON object with at least an \"id\""));
        };
        let id = definition.get("id").and_then(Value::as_str).unwrap_or("").to_owned();
        let running = self.apps.get(&id).map_or(0, |app| app.tasks().len());
        definition.entry("instances").or_insert_with(|| json!(running + places.len()));
        let action = if self.apps.contains_key(&id) { "RestartApplication" } else { "StartApplication" };
        let version = self.new_version(definition, true)?;
        let tasks = self.agents.place(&id, &version, places, self.now)?;
        self.switch(&id, &version);
        Ok(self.deploy(&id, &version, action, tasks, Vec::new()))
    }

    /// Starts more tasks, as a scale-up does, with a new version that differs in `instances` only.
    pub fn launch(&mut self, id: &str, places: &[Place]) -> Result<Vec<String>, CommandError> {
        let app = self.apps.get(id).ok_or_else(|| CommandError::no_app(id))?;
        let mut definition = app.current().json.clone();
        definition.insert("instances".into(), json!(app.tasks().len() + places.len()));
        let version = self.new_version(definition, false)?;
        let tasks = self.agents.place(id, &version, places, self.now)?;
        self.switch(id, &version);
        Ok(self.deploy(id, &version, "ScaleApplication", tasks, Vec::new()))
    }

    /// Replaces top-level fields of an app by a new version, which no task runs yet. Returns its name.
    pub fn update(&mut self, changes: Value) -> Result<Timestamp, CommandError> {
        let Value::Object(changes) = changes else {
            return Err(CommandError::new("an update must be a JSON object with \"id\" and the fields to replace"));
        };
        let id = changes.get("id").and_then(Value::as_str).unwrap_or("").to_owned();
        let app = self.apps.get(&id).ok_or_else(|| CommandError::no_app(&id))?;
        let mut definition = app.current().json.clone();
        definition.extend(changes);
        let version = self.new_version(definition, true)?;
        self.switch(&id, &version);
        self.deploy(&id, &version, "RestartApplication", Vec::new(), Vec::new());
        Ok(version.stamp)
    }

    /// The effect of `PUT /v2/apps/{id}`: makes an app, or a new version of it, without any task. If only `instances`
    /// differs, the configuration stays the same. Returns the name of the version.
    pub fn put(&mut self, definition: Value) -> Result<Timestamp, CommandError> {
        let Value::Object(given) = definition else {
            return Err(CommandError::new("an app must be a JSON object with at least an \"id\""));
        };
        let id = given.get("id").and_then(Value::as_str).unwrap_or("").to_owned();
        let before = self.apps.get(&id).map(|app| Arc::clone(app.current()));
        let mut definition = before.as_ref().map(|version| version.json.clone()).unwrap_or_default();
        definition.extend(given);
        let asked = normalise(definition.clone(), self.now, before.as_deref(), BTreeSet::new)?;
        let differs = before.as_ref().is_none_or(|before| !before.is_configured_as(&asked));
        let action = if before.is_none() { "StartApplication" } else { "ScaleApplication" };
        let version = self.new_version(definition, differs)?;
        self.switch(&id, &version);
        self.deploy(&id, &version, action, Vec::new(), Vec::new());
        Ok(version.stamp)
    }

    /// Starts a task of the current version, as Marathon does until the app has all its instances. Returns its id.
    pub fn start(&mut self, id: &str, place: &Place) -> Result<String, CommandError> {
        let app = self.apps.get(id).ok_or_else(|| CommandError::no_app(id))?;
        let version = Arc::clone(app.current());
        let task = self.agents.place(id, &version, std::slice::from_ref(place), self.now)?.remove(0);
        self.events.extend(event_sequences::launched(self.now, id, &task));
        let started = task.id.clone();
        self.put_task(id, task);
        Ok(started)
    }

    /// Stops all tasks of an app and starts new ones, in one step and without a new version.
    pub fn replace(&mut self, id: &str, places: &[Place]) -> Result<Vec<String>, CommandError> {
        let app = self.apps.get_mut(id).ok_or_else(|| CommandError::no_app(id))?;
        let version = Arc::clone(app.current());
        let tasks = self.agents.place(id, &version, places, self.now)?;
        let old = std::mem::take(app.tasks_mut()).into_values().collect();
        Ok(self.deploy(id, &version, "RestartApplication", tasks, old))
    }

    /// Deletes an app and its tasks.
    pub fn delete(&mut self, id: &str) -> Result<(), CommandError> {
        let mut app = self.apps.remove(id).ok_or_else(|| CommandError::no_app(id))?;
        let stamp = self.stamp_version();
        let deployment = Deployment::new(id, "StopApplication", stamp);
        self.events.push(deployment.info(self.now));
        self.events.push(Event::group_change_success(self.now, id, stamp));
        let announces = self.announces_ends();
        for task in std::mem::take(app.tasks_mut()).into_values() {
            self.events.extend(event_sequences::killed(self.now, id, task, announces));
        }
        self.events.push(Event::app_terminated(self.now, id));
        self.events.extend(deployment.success(self.now));
        Ok(())
    }

    /// Mesos reports another state of a task. A terminal one takes the task out of every listing, and so does
    /// `TASK_UNREACHABLE` if the app's `unreachableStrategy` has no time to wait, as by default.
    pub fn set_state(&mut self, task: &str, state: TaskState) -> Result<(), CommandError> {
        let (id, mut it) = self.take_task(task)?;
        let stops = matches!(state, TaskState::TaskKilling | TaskState::TaskKilled);
        if stops && !it.stopping {
            it.stopping = true;
            self.announce_end(&id, &it);
        }
        let before = std::mem::replace(&mut it.state, state);
        if state.has_started() && !state.is_terminal() {
            it.started.get_or_insert(self.now);
        }
        let is_replaced = state == TaskState::TaskUnreachable && it.version.replaces_unreachable();
        let mut events = event_sequences::state(self.now, &id, &it);
        if is_replaced {
            events[1] = Event::instance_changed(self.now, &id, &it, "UnreachableInactive");
        }
        // Mesos reports a state again with each result of its checks. For the instance nothing has changed then.
        let changed = before.condition() != state.condition();
        self.events.extend(events.into_iter().take(if changed { 2 } else { 1 }));
        if !state.is_terminal() && !is_replaced {
            self.put_task(&id, it);
        }
        Ok(())
    }

    /// A health check of a task (all of its checks without `check`) has a result, or has lost it (`None`).
    pub fn set_health(&mut self, task: &str, check: Option<usize>, alive: Option<bool>) -> Result<(), CommandError> {
        let (id, _) = self.find_task(task)?;
        let id = id.to_owned();
        self.now = self.now.next(); // a verdict is later than the one it overturns
        let now = self.now;
        let Some(it) = self.apps.get_mut(&id).and_then(|app| app.tasks_mut().get_mut(task)) else {
            return Err(CommandError::no_task(task));
        };
        let checks = it.health.len();
        let chosen = match check {
            None if checks == 0 => {
                return Err(CommandError::new(format!(
                    "{id} has no health checks: create it with \"healthChecks\": true"
                )));
            }
            None => 0..checks,
            Some(one) if one < checks => one..one + 1,
            Some(one) => {
                return Err(CommandError::new(format!(
                    "{id} has {checks} health checks, so \"check\" cannot be {one}"
                )));
            }
        };
        for health in &mut it.health[chosen.clone()] {
            *health = alive.map(|alive| Health::after(health.as_ref(), alive, now));
        }
        self.events.extend(event_sequences::health(now, &id, it, chosen, alive));
        Ok(())
    }

    /// A readiness check has a result; `None` ends the task's part in the deployment, and the last one ends the
    /// deployment.
    pub fn set_ready(&mut self, task: &str, ready: Option<bool>) -> Result<(), CommandError> {
        let (id, _) = self.find_task(task)?;
        let id = id.to_owned();
        let Some(app) = self.apps.get_mut(&id) else { return Err(CommandError::no_app(&id)) };
        if !app.current().json.contains_key("readinessChecks") {
            return Err(CommandError::new(format!("{id} has no readinessChecks: create it with one in the full form")));
        }
        if let Some(it) = app.tasks_mut().get_mut(task) {
            it.ready = ready;
        }
        if app.tasks().all(|task| task.ready.is_none()) {
            let deployment = Deployment::new(&id, "RestartApplication", app.current().stamp);
            self.events.extend(deployment.success(self.now));
        }
        Ok(())
    }

    /// Another node leads (`host:port`, generated if not given): every health result is lost. Returns its name.
    pub fn change_leader(&mut self, name: Option<String>) -> String {
        self.leaders += 1;
        self.leader = name.unwrap_or_else(|| format!("marathon-{}.sim:8080", self.leaders));
        for task in self.apps.values_mut().flat_map(|app| app.tasks_mut().values_mut()) {
            task.health.fill(None);
        }
        self.pods.forget_health();
        self.leader.clone()
    }

    /// Emits the event that a listener has attached or detached.
    pub fn stream_changed(&mut self, remote: &str, attached: bool) {
        let event = if attached { Event::stream_attached } else { Event::stream_detached };
        self.events.push(event(self.now, remote));
    }

    pub(super) fn stamp_version(&mut self) -> Timestamp {
        self.last_version = self.now.max(self.last_version.next());
        self.now = self.last_version;
        self.last_version
    }

    pub(super) fn new_version(
        &mut self,
        mut app: Map<String, Value>,
        config_changed: bool,
    ) -> Result<Arc<Version>, CommandError> {
        let stamp = self.stamp_version();
        let id = app.get("id").and_then(Value::as_str).unwrap_or("");
        let previous = self.apps.get(id).map(|app| Arc::clone(app.current()));
        let config = match previous.as_ref().and_then(|p| p.json["versionInfo"].get("lastConfigChangeAt")) {
            Some(kept) if !config_changed => kept.clone(),
            Some(_) | None => json!(stamp),
        };
        app.insert("versionInfo".into(), json!({"lastScalingAt": stamp, "lastConfigChangeAt": config}));
        let taken = || self.apps.values().flat_map(|app| app.current().service_ports.iter().copied()).collect();
        Ok(Arc::new(normalise(app, stamp, previous.as_deref(), taken)?))
    }

    fn switch(&mut self, id: &str, version: &Arc<Version>) {
        self.set_current(id, version);
        let post = Event::api_post(self.now, &Value::Object(version.json.clone()));
        self.switched([post]);
    }

    pub(super) fn set_current(&mut self, id: &str, version: &Arc<Version>) {
        match self.apps.get_mut(id) {
            Some(app) => app.switch_to(Arc::clone(version), self.root_held),
            None => {
                self.apps.insert(id.into(), App::new(Arc::clone(version), self.root_held));
            }
        }
    }

    /// Emits these events with the switch of the root: now, unless it is held.
    fn switched(&mut self, events: impl IntoIterator<Item = Event>) {
        if self.root_held { self.unswitched.extend(events) } else { self.events.extend(events) }
    }

    /// Puts the started tasks into their states, then emits all events of the start.
    fn deploy(
        &mut self,
        id: &str,
        version: &Version,
        action: &'static str,
        started: Vec<Task>,
        stopped: Vec<Task>,
    ) -> Vec<String> {
        let deployment = Deployment::new(id, action, version.stamp);
        self.events.push(deployment.info(self.now));
        self.switched([Event::group_change_success(self.now, id, version.stamp)]);
        let ids = started.iter().map(|task| task.id.clone()).collect();
        for task in started {
            self.events.extend(event_sequences::launched(self.now, id, &task));
            self.put_task(id, task);
        }
        for task in stopped {
            self.events.extend(event_sequences::killed(self.now, id, task, self.announces_ends()));
        }
        self.switched(deployment.success(self.now));
        ids
    }

    pub(super) fn find_task(&self, task: &str) -> Result<(&str, &Task), CommandError> {
        let mut found = self.apps.iter().filter_map(|(id, app)| Some((id.as_str(), app.task(task)?)));
        found.next().ok_or_else(|| CommandError::no_task(task))
    }

    pub(super) fn take_task(&mut self, task: &str) -> Result<(String, Task), CommandError> {
        let id = self.find_task(task)?.0.to_owned();
        let taken = self.apps.get_mut(&id).and_then(|app| app.tasks_mut().remove(task));
        taken.map(|taken| (id, taken)).ok_or_else(|| CommandError::no_task(task))
    }

    pub(super) fn put_task(&mut self, id: &str, task: Task) {
        if let Some(app) = self.apps.get_mut(id) {
            app.tasks_mut().insert(task.id.clone(), task);
        }
    }
}
