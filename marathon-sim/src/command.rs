//! The control commands as JSON: what `POST /sim/<command>` takes and answers.

use std::time::{Duration, Instant};

use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::api_version::Dialect;
use super::auth::Guard;
use super::delivery::Delivery;
use super::error::CommandError;
use super::fault::{Fault, FaultCommand, FaultKind};
use super::pod::PodPlace;
use super::short_form::ShortApp;
use super::state::Inner;
use super::task::{Place, TaskState};

const COMMANDS: &str = "apps, tasks, state, kill, restart, announcements, health, readiness, replace, app/update, app/delete, withdraw, refuse, group, group/start, group/finish, leader, root, streams/close, fault, delivery, guard, dialect, pods, pods/state, pods/delete";

const SHORT: &str = r#"{"id", "servicePort", "protocol", "mode", "containerPort", "healthChecks", "labels", "tasks": […], "alive"}, or {"app": {…}, "tasks": […]}"#;

/// Carries out one command.
pub(super) fn run(inner: &mut Inner, command: &str, mut body: Value) -> Result<Value, CommandError> {
    if !body.is_object() {
        return Err(CommandError::new(format!("/sim/{command} takes a JSON object")));
    }
    let cluster = &mut inner.cluster;
    match command {
        "apps" => {
            spread_alive(&mut body);
            let (app, places) = if body.get("app").is_some() {
                let Full { app, tasks } = parse(command, r#"{"app": {…}, "tasks": […], "alive"}"#, body)?;
                (app, tasks)
            } else {
                parse::<ShortApp>(command, SHORT, body)?.expand()
            };
            Ok(json!({"tasks": cluster.create(app, &places)?}))
        }
        "tasks" if body.get("tasks").is_some() => {
            spread_alive(&mut body);
            let Many { app, tasks } = parse(command, r#"{"app", "tasks": […], "alive"}"#, body)?;
            Ok(json!({"tasks": cluster.launch(&app, &tasks)?}))
        }
        "tasks" => {
            let accepted = r#"{"app", "host", "port" or "ports", "ip", "state", "alive"}, or "tasks": […] of such"#;
            let (app, place) = one_place(command, accepted, body)?;
            let ids = cluster.launch(&app, &[place])?;
            Ok(json!({"task": ids[0], "tasks": ids}))
        }
        "state" => {
            let SetState { task, state } = parse(command, r#"{"task": "<id>", "state": "TASK_…"}"#, body)?;
            cluster.set_state(&task, state)?;
            Ok(json!({}))
        }
        "kill" => {
            let TaskId { task } = parse(command, r#"{"task": "<id>"}"#, body)?;
            cluster.kill(&task)?;
            Ok(json!({}))
        }
        "restart" => {
            let accepted = r#"{"task": "<id>", "place": {"host", "port" or "ports", "ip", "state", "alive"}}"#;
            let Restart { task, place } = parse(command, accepted, body)?;
            Ok(json!({"task": cluster.restart(&task, &place)?}))
        }
        "announcements" => {
            let SetAnnouncements { sent } = parse(command, r#"{"sent": true or false}"#, body)?;
            cluster.announce(sent);
            Ok(json!({}))
        }
        "health" => {
            let accepted = r#"{"task": "<id>" or "app": "/id", "alive": true, false or null, "check": 0…}"#;
            let SetHealth { task, app, check, alive } = parse(command, accepted, body)?;
            let tasks = match (task, app) {
                (Some(task), None) => vec![task],
                (None, Some(id)) => {
                    let app = cluster.app(&id).ok_or_else(|| CommandError::no_app(&id))?;
                    app.tasks().map(|task| task.id.clone()).collect()
                }
                (None, None) | (Some(_), Some(_)) => {
                    return Err(CommandError::new(format!("/sim/health needs a task or an app; accepted: {accepted}")));
                }
            };
            for task in tasks {
                cluster.set_health(&task, check, alive)?;
            }
            Ok(json!({}))
        }
        "readiness" => {
            let SetReady { task, ready } = parse(command, r#"{"task": "<id>", "ready": true, false or null}"#, body)?;
            cluster.set_ready(&task, ready)?;
            Ok(json!({}))
        }
        "replace" => {
            spread_alive(&mut body);
            let Many { app, tasks } = parse(command, r#"{"app", "tasks": […], "alive"}"#, body)?;
            Ok(json!({"tasks": cluster.replace(&app, &tasks)?}))
        }
        "app/update" => {
            let Update { app } = parse(command, r#"{"app": {"id", and the fields to replace}}"#, body)?;
            Ok(json!({"version": cluster.update(app)?}))
        }
        "app/delete" => {
            let Delete { id } = parse(command, r#"{"id": "/app"}"#, body)?;
            cluster.delete(&id)?;
            Ok(json!({}))
        }
        "withdraw" => {
            let Delete { id } = parse(command, r#"{"id": "/app"}"#, body)?;
            Ok(json!({"version": cluster.withdraw(&id)?}))
        }
        "refuse" => {
            let Delete { id } = parse(command, r#"{"id": "/app"}"#, body)?;
            cluster.refuse(&id)?;
            Ok(json!({}))
        }
        "group" => {
            let Group { apps } = parse(command, r#"{"apps": [{…}]}"#, body)?;
            Ok(json!({"deployment": cluster.create_group(apps)?}))
        }
        "group/start" => {
            let accepted = r#"{"app", "host", "port" or "ports", "ip", "state", "alive"}"#;
            let (app, place) = one_place(command, accepted, body)?;
            Ok(json!({"task": cluster.start(&app, &place)?}))
        }
        "group/finish" => {
            let Finish { deployment } = parse(command, r#"{"deployment": "<id>"}"#, body)?;
            cluster.finish(&deployment)?;
            Ok(json!({}))
        }
        "leader" => {
            let accepted = r#"{} or {"leader": "host:port", "seconds": without one, "code": 502}"#;
            let Leader { leader, seconds, code } = parse(command, accepted, body)?;
            if seconds.is_some() || code.is_some() {
                let code = StatusCode::from_u16(code.unwrap_or(502)).unwrap_or(StatusCode::BAD_GATEWAY);
                lose_leader(inner, code, seconds.map(Duration::from_secs));
            }
            let leader = change_leader(inner, leader);
            Ok(json!({"leader": leader}))
        }
        "root" => {
            let SetRoot { held } = parse(command, r#"{"held": true or false}"#, body)?;
            cluster.hold_root(held);
            Ok(json!({}))
        }
        "streams/close" => {
            let Nothing {} = parse(command, "{}", body)?;
            inner.hub.close();
            Ok(json!({}))
        }
        "fault" => {
            let accepted = r#"{"kind", "code", "body", "percent", "paths": "/v2…", "times"}"#;
            set_fault(inner, parse::<FaultCommand>(command, accepted, body)?.try_into()?);
            Ok(json!({}))
        }
        "delivery" => {
            let accepted = r#"{"lost", "held", "reversed", "twice", "pieces", "padding", "strange", "outstanding"}"#;
            inner.hub.delivery = parse::<Delivery>(command, accepted, body)?;
            Ok(json!({}))
        }
        "guard" => {
            let accepted = r#"{"guard": "open", {"basic": "user:password"} or {"account": {"uid", "seconds"}}}"#;
            let SetGuard { guard } = parse(command, accepted, body)?;
            inner.gate.guard = guard;
            inner.gate.forget_tokens();
            Ok(json!({}))
        }
        "dialect" => {
            let accepted = r#"{"dialect": "1.3", "1.4", "1.5" or "1.8"}"#;
            let SetDialect { dialect } = parse(command, accepted, body)?;
            cluster.speak(dialect);
            Ok(json!({}))
        }
        "pods" => {
            let accepted = r#"{"pod": {…}, "instances": [{"host", "ip", "ports"}]}"#;
            let CreatePod { pod, instances } = parse(command, accepted, body)?;
            Ok(json!({"instances": cluster.create_pod(pod, &instances)?}))
        }
        "pods/state" => {
            let accepted = r#"{"instance", "container", "state": "TASK_…", "healthy": true, false or null}"#;
            let SetContainer { instance, container, state, healthy } = parse(command, accepted, body)?;
            cluster.set_container(&instance, &container, state, healthy)?;
            Ok(json!({}))
        }
        "pods/delete" => {
            let Delete { id } = parse(command, r#"{"id": "/pod"}"#, body)?;
            cluster.delete_pod(&id)?;
            Ok(json!({}))
        }
        _ => Err(CommandError::new(format!("there is no command {command:?}; accepted: {COMMANDS}"))),
    }
}

/// No leader: every response has this status for this time, or until a leader is named without a time.
pub(super) fn lose_leader(inner: &mut Inner, code: StatusCode, during: Option<Duration>) {
    inner.hub.close();
    inner.gate.leaderless = Some((code, during.map(|during| Instant::now() + during)));
}

/// Another leader, which has no listeners yet.
pub(super) fn change_leader(inner: &mut Inner, name: Option<String>) -> String {
    let events = inner.cluster.take_events();
    inner.hub.publish(&events, inner.cluster.dialect());
    inner.hub.close();
    inner.cluster.change_leader(name)
}

/// Replaces the current fault.
pub(super) fn set_fault(inner: &mut Inner, fault: Fault) {
    if fault.kind == FaultKind::RefuseEvents {
        inner.hub.close();
    }
    inner.fault = fault;
}

/// The simulator's state, for people and for scripts.
pub(super) fn summary(inner: &Inner) -> Value {
    let apps: Vec<Value> = inner
        .cluster
        .apps()
        .map(|(id, app)| {
            let tasks: Vec<Value> = app
                .tasks()
                .map(|task| {
                    json!({"id": task.id, "host": task.host, "ports": task.ports, "ips": task.addresses,
                        "state": task.state, "alive": task.healthy(), "version": task.version.stamp})
                })
                .collect();
            json!({"id": id, "version": app.current().stamp, "servicePorts": app.current().service_ports,
                "versions": app.versions().len(), "tasks": tasks})
        })
        .collect();
    json!({"leader": inner.cluster.leader(), "streams": inner.hub.len(), "apps": apps,
        "fault": {"kind": inner.fault.name(), "paths": inner.fault.paths}})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetRoot {
    held: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetDialect {
    dialect: Dialect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CreatePod {
    pod: Value,
    #[serde(default)]
    instances: Vec<PodPlace>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetContainer {
    instance: String,
    container: String,
    state: TaskState,
    healthy: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Full {
    app: Value,
    #[serde(default)]
    tasks: Vec<Place>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Many {
    app: String,
    tasks: Vec<Place>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetState {
    task: String,
    state: TaskState,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    apps: Vec<Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Finish {
    deployment: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TaskId {
    task: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Restart {
    task: String,
    place: Place,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetAnnouncements {
    sent: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetHealth {
    task: Option<String>,
    app: Option<String>,
    check: Option<usize>,
    #[serde(deserialize_with = "Option::deserialize")]
    alive: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetReady {
    task: String,
    #[serde(deserialize_with = "Option::deserialize")]
    ready: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    app: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    id: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Leader {
    leader: Option<String>,
    seconds: Option<u64>,
    code: Option<u16>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetGuard {
    guard: Guard,
}

/// Parses a task with the id of its app.
fn one_place(command: &str, accepted: &str, mut body: Value) -> Result<(String, Place), CommandError> {
    let app = body.as_object_mut().and_then(|body| body.remove("app"));
    let app = parse(command, accepted, app.unwrap_or(Value::Null))?;
    Ok((app, parse(command, accepted, body)?))
}

fn parse<T: DeserializeOwned>(command: &str, accepted: &str, body: Value) -> Result<T, CommandError> {
    serde_json::from_value(body)
        .map_err(|wrong| CommandError::new(format!("/sim/{command}: {wrong}; accepted: {accepted}")))
}

/// `alive` beside `tasks` applies to each task without its own.
fn spread_alive(body: &mut Value) {
    let Some(alive) = body.as_object_mut().and_then(|body| body.remove("alive")) else { return };
    for task in body["tasks"].as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        task.entry("alive").or_insert_with(|| alive.clone());
    }
}
