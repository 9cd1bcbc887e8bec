//! Changes that emit several events, in the order of Marathon 1.8+.

use std::ops::Range;

use serde_json::{Value, json};

use super::event::Event;
use super::task::{Task, TaskState};
use super::timestamp::Timestamp;

/// A change of apps that emits several events.
#[derive(Debug, Clone)]
pub(super) struct Deployment {
    id: String,
    apps: Vec<String>,
    action: &'static str,
    version: Timestamp,
}

impl Deployment {
    /// A deployment with one step of one action on `app`.
    pub(super) fn new(app: &str, action: &'static str, version: Timestamp) -> Self {
        Self { id: deployment_id(app, version), apps: vec![app.into()], action, version }
    }

    /// A deployment with one step of one action on each of these apps.
    pub(super) fn of_group(apps: Vec<String>, action: &'static str, version: Timestamp) -> Self {
        Self { id: deployment_id("/", version), apps, action, version }
    }

    /// The id of the deployment.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Its first events.
    pub(super) fn info(&self, now: Timestamp) -> Event {
        Event::new("deployment_info", now, json!({"plan": self.plan(), "currentStep": self.step()}))
    }

    /// Its events when the only step is done, and with it the deployment.
    pub(super) fn success(&self, now: Timestamp) -> [Event; 2] {
        [
            Event::new("deployment_step_success", now, json!({"plan": self.plan(), "currentStep": self.step()})),
            Event::new("deployment_success", now, json!({"id": self.id, "plan": self.plan()})),
        ]
    }

    /// The event of its withdrawal.
    pub(super) fn failed(&self, now: Timestamp) -> Event {
        let reason = "The upgrade has been cancelled";
        Event::new("deployment_failed", now, json!({"id": self.id, "plan": self.plan(), "reason": reason}))
    }

    fn plan(&self) -> Value {
        json!({"id": self.id, "version": self.version, "steps": [self.step()]})
    }

    fn step(&self) -> Value {
        let actions = self.apps.iter().map(|app| json!({"action": self.action, "app": app}));
        json!({"actions": actions.collect::<Vec<_>>()})
    }
}

/// Returns the id of the deployment that brought `app` to `version`.
pub(super) fn deployment_id(app: &str, version: Timestamp) -> String {
    format!("deployment{}-{version}", app.replace('/', "_"))
}

/// Returns the event of a task's current state.
pub(super) fn state(now: Timestamp, app: &str, task: &Task) -> [Event; 2] {
    [Event::status_update(now, app, task), Event::instance_changed(now, app, task, task.state.condition())]
}

/// Returns the events of a task that Marathon stops. `announces`: whether the change of its goal is one.
pub(super) fn killed(now: Timestamp, app: &str, mut task: Task, announces: bool) -> Vec<Event> {
    // The goal changes before the state; the goal itself is not in the JSON.
    let goal = (announces && !task.stopping).then(|| Event::instance_changed(now, app, &task, task.state.condition()));
    task.state = TaskState::TaskKilled;
    goal.into_iter().chain(state(now, app, &task)).collect()
}

/// Returns the events of a started task up to its current state.
pub(super) fn launched(now: Timestamp, app: &str, task: &Task) -> Vec<Event> {
    let steps: &[TaskState] = match task.state {
        TaskState::TaskStaging => &[],
        TaskState::TaskStarting => &[TaskState::TaskStarting],
        TaskState::TaskRunning => &[TaskState::TaskStarting, TaskState::TaskRunning],
        last => &[TaskState::TaskStarting, TaskState::TaskRunning, last],
    };
    let mut events: Vec<Event> =
        ["Scheduled", "Provisioned"].map(|condition| Event::instance_changed(now, app, task, condition)).into();
    let mut then = task.clone();
    for &step in steps {
        then.state = step;
        then.started = task.started.filter(|_| step.has_started());
        events.extend(state(now, app, &then));
    }
    if let Some(alive) = task.healthy() {
        events.extend(health(now, app, task, 0..task.health.len(), Some(alive)));
    }
    events
}

/// Returns the events of health checks of a task that have a result, or have lost it (`None`).
pub(super) fn health(now: Timestamp, app: &str, task: &Task, checks: Range<usize>, alive: Option<bool>) -> Vec<Event> {
    let mut events = Vec::new();
    for by_mesos in &task.version.checks[checks] {
        let Some(alive) = alive else { break };
        if *by_mesos {
            events.push(Event::status_update(now, app, task)); // what Mesos' checks say comes with a state
        }
        events.push(Event::health_status_changed(now, app, task, alive));
    }
    events.push(Event::instance_health_changed(now, app, task));
    events
}
