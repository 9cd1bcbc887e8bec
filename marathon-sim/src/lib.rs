//! A simulated Marathon: an HTTP server with the part of the REST API that the agent uses, and a control API.
//!
//! ```text
//! cluster (pure: commands in, events out)  <-  command (JSON)  <-  POST /sim/…, or methods of [`Sim`]
//!     |            |
//!   view         event  ->  hub  ->  stream        GET /v2/events
//!     '-- api ------------------------------ GET /v2/apps …, fault and log around it
//! ```
//!
//! It speaks Marathon 1.8 and later, and earlier versions by `api_version`. Apps from Marathon's own API (`deploy`:
//! POST, PUT and DELETE) get tasks from a [`Mesos`], which makes containers of them.
//!
//! Control: `POST /sim/<command>` with JSON, or [`Sim::command`], or the method in the table.
//!
//! | command | takes | method |
//! | --- | --- | --- |
//! | `apps` | `{"id", "servicePort", "protocol", "mode", "containerPort", "healthChecks", "labels", "tasks", "alive"}`; makes the app, or a new version of it with more tasks | [`Sim::create`] |
//! | `apps` | `{"app": {Marathon's JSON}, "tasks", "alive"}` | [`Sim::create_full`] |
//! | `tasks` | `{"app", <a task>}` or `{"app", "tasks"}`; scales up by a new version, as in Marathon | [`Sim::launch`] |
//! | `state` | `{"task", "state": "TASK_…"}`; terminal states remove the task | [`Sim::set_state`] |
//! | `health` | `{"task" or "app", "alive": true, false or null, "check"}` | [`Sim::set_health`], [`Sim::set_check`] |
//! | `kill` | `{"task"}`; Marathon announces the end of the task, whose state stays as it is | [`Sim::kill`] |
//! | `restart` | `{"task", "place": <a task>}`; the task ends, and another starts under its instance | [`Sim::restart`] |
//! | `announcements` | `{"sent": true or false}`; whether Marathon announces ends, as since 1.8 | [`Sim::announce`] |
//! | `readiness` | `{"task", "ready": true, false or null}` | [`Sim::set_ready`] |
//! | `replace` | `{"app", "tasks"}`; all at once, same version | [`Sim::replace`] |
//! | `app/update` | `{"app": {"id", and the fields to replace}}` | [`Sim::update_app`] |
//! | `app/delete` | `{"id"}` | [`Sim::delete_app`] |
//! | `withdraw` | `{"id"}`; the deployment of the app's current version is withdrawn: the version before it counts again | [`Sim::withdraw`] |
//! | `refuse` | `{"id"}`; a change of the app is refused, because a deployment has locked the app | [`Sim::command`] |
//! | `group` | `{"apps": [Marathon's JSON]}`; makes the apps by one deployment, and returns its id | [`Sim::command`] |
//! | `group/start` | `{"app", <a task>}`; starts a task of the app's current version | [`Sim::command`] |
//! | `group/finish` | `{"deployment"}`; ends the deployment | [`Sim::command`] |
//! | `leader` | `{}` or `{"leader"}`; ends streams, drops health results; with `{"seconds", "code"}` no node leads before | [`Sim::change_leader`], [`Sim::lose_leader`] |
//! | `fault` | `{"kind", "code", "body", "percent", "paths", "times"}`, see [`FaultKind`] | [`Sim::fault`] |
//! | `delivery` | `{"lost", "held", "reversed", "twice", "pieces", "padding", "strange", "outstanding"}`, see [`Delivery`] | [`Sim::deliver`] |
//! | `root` | `{"held"}`; listings show changed apps as before, after `deployment_info`, until it is released | [`Sim::hold_root`] |
//! | `guard` | `{"guard": "open", {"basic": "user:password"} or {"account": {"uid", "seconds"}}}` | [`Sim::guard`] |
//! | `dialect` | `{"dialect": "1.3", "1.4", "1.5" or "1.8"}`; running tasks keep their ids | [`Sim::speak`] |
//! | `pods` | `{"pod": {Marathon's JSON}, "instances": [{"host", "ip", "ports"}]}`; makes the pod, or a new version of it with more instances | [`Sim::create_pod`] |
//! | `pods/state` | `{"instance", "container", "state": "TASK_…", "healthy": true, false or null}` | [`Sim::set_container`] |
//! | `pods/delete` | `{"id"}` | [`Sim::delete_pod`] |
//!
//! `DELETE /v2/leader` ends the leader's node as that of a real Marathon, see [`Sim::abdicate`].
//!
//! A task is `{"host", "port" or "ports", "ip", "state", "alive"}`. `GET /sim/state` returns the state, `GET /sim/log`
//! the requests (`DELETE` clears it), and `GET /sim/written` when the first event of the latest change was written:
//! `{"ns"}` of CLOCK_MONOTONIC, `null` before that.

mod abdication;
mod access;
mod api;
mod api_version;
mod app;
mod auth;
mod cluster;
mod command;
mod delivery;
mod deploy;
mod deployments;
mod error;
mod event;
mod event_bus;
mod event_sequences;
mod fault;
mod fault_injection;
mod instances;
mod launch;
mod mesos;
mod pod;
mod pod_commands;
mod ports;
mod response;
mod server;
mod short_form;
mod state;
mod stream;
mod task;
#[cfg(test)]
mod tests;
mod timestamp;
mod version;
pub mod view;

pub use api_version::Dialect;
pub use app::App;
pub use auth::Guard;
pub use axum::http::StatusCode;
pub use cluster::Cluster;
pub use delivery::Delivery;
pub use error::CommandError;
pub use event::Event;
pub use fault::{Fault, FaultKind};
pub use mesos::Mesos;
pub use pod::PodPlace;
pub use ports::{Mode, Port};
pub use server::{Node, Options, Sim, serve};
pub use short_form::ShortApp;
pub use state::Logged;
pub use task::{Health, Place, Task, TaskState};
pub use timestamp::Timestamp;
pub use version::Version;
