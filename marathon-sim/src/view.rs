//! Listings in the form of Marathon 1.8+; `api_version` converts them into those of earlier ones. They borrow from the
//! cluster and stay small: 20 000 tasks are some 20 MB.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use super::api_version::Dialect;
use super::app::App;
use super::cluster::Cluster;
use super::event::{Address, shown_addresses};
use super::event_sequences::deployment_id;
use super::task::{Task, TaskState};
use super::timestamp::Timestamp;
use super::version::Version;

/// The parts of a listing of apps besides the apps, by `embed=` (with any of Marathon's prefixes).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Embed {
    /// `tasks`
    pub tasks: bool,
    /// `readinessCheckResults`
    pub readiness: bool,
}

impl Embed {
    /// The parts that a single app always shows.
    pub const ALL: Self = Self { tasks: true, readiness: true };

    /// Reads one `embed=` value; unknown ones add nothing.
    #[must_use]
    pub fn with(self, value: &str) -> Self {
        match value.rsplit('.').next() {
            Some("tasks") => Self { tasks: true, ..self },
            Some("readiness") => Self { readiness: true, ..self },
            Some(_) | None => self,
        }
    }
}

/// Which tasks `/v2/tasks` lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Status {
    /// `status=running` was requested.
    pub running: bool,
    /// `status=staging` was requested.
    pub staging: bool,
}

impl Status {
    fn shows(self, state: TaskState) -> bool {
        match self {
            Self { running: false, staging: false } => true,
            Self { running, staging } => {
                running && state == TaskState::TaskRunning || staging && state == TaskState::TaskStaging
            }
        }
    }
}

/// `{"apps": […]}` of the apps that `wanted` selects.
pub fn apps<'a>(cluster: &'a Cluster, embed: Embed, wanted: &dyn Fn(&str, &App) -> bool) -> impl Serialize + use<'a> {
    group(cluster, "apps", embed, wanted)
}

/// `{"<name>": […]}`: how `/v2/apps` and `/v2/apps/group/*` list apps.
pub fn group<'a>(
    cluster: &'a Cluster,
    name: &'static str,
    embed: Embed,
    wanted: &dyn Fn(&str, &App) -> bool,
) -> impl Serialize + use<'a> {
    let chosen = cluster.apps().filter(|(id, app)| app.is_shown() && wanted(id, app));
    Named(name, chosen.map(|(id, app)| entry(cluster.dialect(), id, app, embed)).collect::<Vec<_>>())
}

/// `{"app": {…}}`
pub fn app<'a>(dialect: Dialect, id: &'a str, app: &'a App) -> impl Serialize + use<'a> {
    Named("app", entry(dialect, id, app, Embed::ALL))
}

/// `{"tasks": […]}` of one app, without service ports.
pub fn app_tasks(dialect: Dialect, id: &str, app: &App) -> impl Serialize + use<> {
    Named("tasks", app.tasks().map(|task| spoken(dialect, &TaskView::new(id, task, &[]))).collect::<Vec<_>>())
}

/// `{"tasks": […]}` of the whole cluster, with the service ports of the apps' current versions.
pub fn tasks(cluster: &Cluster, status: Status) -> impl Serialize {
    let shown = cluster.apps().filter(|(_, app)| app.is_shown());
    let all = shown.flat_map(|(id, app)| app.tasks().map(move |task| (id, app, task)));
    let shown = all.filter(|(_, _, task)| status.shows(task.state));
    Named(
        "tasks",
        shown
            .map(|(id, app, task)| spoken(cluster.dialect(), &TaskView::new(id, task, &app.shown().service_ports)))
            .collect::<Vec<_>>(),
    )
}

/// `{"versions": […]}`, newest first.
pub fn versions(app: &App) -> impl Serialize + use<> {
    let mut stamps: Vec<_> = app.versions().iter().map(|version| version.stamp).collect();
    stamps.sort_unstable_by(|one, other| other.cmp(one));
    Named("versions", stamps)
}

/// An app of this version, without tasks and counts.
pub fn version(dialect: Dialect, app: &App, name: &str) -> Option<Map<String, Value>> {
    let found = app.versions().iter().find(|version: &&std::sync::Arc<Version>| version.stamp.to_string() == name);
    let mut json = found?.json.clone();
    dialect.app(&mut json);
    Some(json)
}

/// `/v2/info`
pub fn info(cluster: &Cluster) -> Value {
    let host = cluster.leader().rsplit_once(':').map_or("", |(host, _)| host);
    let port = cluster.leader().rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    json!({
        "name": "marathon", "version": cluster.dialect().version(), "buildref": "sim", "elected": true, "leader": cluster.leader(),
        "frameworkId": "6f1c2a90-51d0-4e0a-sim-0000",
        "marathon_config": {
            "framework_name": "marathon", "ha": true, "hostname": host, "features": ["task_killing"],
            "local_port_min": 10_000, "local_port_max": 20_000, "mesos_leader_ui_url": "http://mesos.sim:5050/",
            "task_launch_timeout": 300_000, "reconciliation_interval": 600_000,
        },
        "zookeeper_config": {"zk": "zk://zk.sim:2181/marathon", "zk_max_versions": 50},
        "http_config": {"http_port": port, "https_port": 8443},
    })
}

/// `/v2/leader`
pub fn leader(cluster: &Cluster) -> Value {
    json!({"leader": cluster.leader()})
}

/// An app in listings.
fn entry<'a>(dialect: Dialect, id: &'a str, app: &'a App, embed: Embed) -> &'a RawValue {
    let way = usize::from(embed.tasks) + 2 * usize::from(embed.readiness);
    // The view always serializes; in case of an error the entry would be null.
    let view = || AppView::new(id, app, embed);
    app.listed(way, || match dialect {
        Dialect::D18 => to_raw_value(&view()).unwrap_or_default(),
        Dialect::D13 | Dialect::D14 | Dialect::D15 => {
            let mut value = serde_json::to_value(view()).unwrap_or_default();
            value.as_object_mut().into_iter().for_each(|app| dialect.app(app));
            to_raw_value(&value).unwrap_or_default()
        }
    })
}

/// A task in the form of this Marathon version.
fn spoken(dialect: Dialect, task: &TaskView<'_>) -> Box<RawValue> {
    if dialect == Dialect::D18 {
        return to_raw_value(task).unwrap_or_default();
    }
    let mut value = serde_json::to_value(task).unwrap_or_default();
    dialect.task(&mut value);
    to_raw_value(&value).unwrap_or_default()
}

/// An object with one field.
struct Named<T>(&'static str, T);

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map([(self.0, &self.1)])
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct AppView<'a> {
    #[serde(flatten)]
    json: &'a Map<String, Value>,
    tasks_staged: usize,
    tasks_running: usize,
    tasks_healthy: usize,
    tasks_unhealthy: usize,
    deployments: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tasks: Option<Vec<TaskView<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    readiness_check_results: Option<Vec<Value>>,
}

impl<'a> AppView<'a> {
    fn new(id: &'a str, app: &'a App, embed: Embed) -> Self {
        let count = |test: fn(&Task) -> bool| app.tasks().filter(|task| test(task)).count();
        let readiness: Vec<Value> = app
            .tasks()
            .filter_map(|task| {
                let ready = task.ready?;
                Some(json!({"name": readiness_name(&task.version), "taskId": task.id, "ready": ready}))
            })
            .collect();
        // A readiness result exists only while its app is being deployed.
        let deploying = !readiness.is_empty();
        let deployment = deploying.then(|| json!({"id": deployment_id(id, app.current().stamp)}));
        Self {
            json: &app.shown().json,
            tasks_staged: count(|task| task.state == TaskState::TaskStaging),
            tasks_running: count(|task| task.state == TaskState::TaskRunning),
            tasks_healthy: count(|task| task.healthy() == Some(true)),
            tasks_unhealthy: count(|task| task.healthy() == Some(false)),
            deployments: deployment.into_iter().collect(),
            tasks: embed.tasks.then(|| app.tasks().map(|task| TaskView::new(id, task, &[])).collect()),
            readiness_check_results: embed.readiness.then_some(readiness),
        }
    }
}

fn readiness_name(version: &Version) -> &str {
    version.json.get("readinessChecks").and_then(|checks| checks[0]["name"].as_str()).unwrap_or("readinessCheck")
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskView<'a> {
    id: &'a str,
    app_id: &'a str,
    host: &'a str,
    ports: &'a [u16],
    service_ports: &'a [u16],
    ip_addresses: Vec<Address>,
    state: TaskState,
    health_check_results: Vec<HealthView<'a>>,
    staged_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<Timestamp>,
    version: Timestamp,
    slave_id: &'a str,
    role: &'static str,
    local_volumes: [(); 0],
}

impl<'a> TaskView<'a> {
    fn new(app: &'a str, task: &'a Task, service_ports: &'a [u16]) -> Self {
        let result = |health: &super::task::Health| HealthView {
            alive: health.alive,
            consecutive_failures: health.consecutive_failures,
            instance_id: &task.instance,
            first_success: health.first_success,
            last_success: health.last_success,
            last_failure: health.last_failure,
            last_failure_cause: (!health.alive).then_some("the simulator was told so"),
        };
        Self {
            id: &task.id,
            app_id: app,
            host: &task.host,
            ports: &task.ports,
            service_ports,
            ip_addresses: shown_addresses(task).collect(),
            state: task.state,
            health_check_results: task.health.iter().flatten().map(result).collect(),
            staged_at: task.staged,
            started_at: task.started,
            version: task.version.stamp,
            slave_id: &task.agent,
            role: "*",
            local_volumes: [],
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthView<'a> {
    alive: bool,
    consecutive_failures: u32,
    instance_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_success: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_success: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure_cause: Option<&'static str>,
}
