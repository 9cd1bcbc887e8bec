//! Events in the form of Marathon 1.8+. `api_version` converts them into those of earlier ones.

use std::net::IpAddr;

use serde::Serialize;
use serde_json::{Value, json};

use super::task::{Task, TaskState};
use super::timestamp::Timestamp;

/// One event: its type and its JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The value of `event:` in the stream, and of `eventType` in the data.
    pub kind: &'static str,
    /// The data, with `eventType` and `timestamp`.
    pub data: Value,
}

impl Event {
    /// An event of this kind. `data` must be an object.
    pub fn new(kind: &'static str, now: Timestamp, mut data: Value) -> Self {
        data["eventType"] = json!(kind);
        data["timestamp"] = json!(now);
        Self { kind, data }
    }

    /// A listener has attached to the event stream; sent to all listeners.
    pub fn stream_attached(now: Timestamp, remote: &str) -> Self {
        Self::new("event_stream_attached", now, json!({"remoteAddress": remote}))
    }

    /// A listener has left the event stream.
    pub fn stream_detached(now: Timestamp, remote: &str) -> Self {
        Self::new("event_stream_detached", now, json!({"remoteAddress": remote}))
    }

    /// An app was posted, put or patched.
    pub fn api_post(now: Timestamp, app: &Value) -> Self {
        let uri = format!("/v2/apps{}", app["id"].as_str().unwrap_or(""));
        Self::new("api_post_event", now, json!({"clientIp": "127.0.0.1", "uri": uri, "appDefinition": app}))
    }

    /// The tree of apps has been switched.
    pub fn group_change_success(now: Timestamp, app: &str, version: Timestamp) -> Self {
        Self::new("group_change_success", now, json!({"groupId": group_of(app), "version": version}))
    }

    /// The tree of apps stays as it is.
    pub fn group_change_failed(now: Timestamp, app: &str, version: Timestamp, reason: &str) -> Self {
        let data = json!({"groupId": group_of(app), "version": version, "reason": reason});
        Self::new("group_change_failed", now, data)
    }

    /// The last task of a deleted app has ended.
    pub fn app_terminated(now: Timestamp, app: &str) -> Self {
        Self::new("app_terminated_event", now, json!({"appId": app}))
    }

    /// Mesos reports the state of the task.
    pub fn status_update(now: Timestamp, app: &str, task: &Task) -> Self {
        let addresses: Vec<Address> = shown_addresses(task).collect();
        Self::new(
            "status_update_event",
            now,
            json!({"slaveId": task.agent, "taskId": task.id, "taskStatus": task.state, "message": "", "appId": app,
                "host": task.host, "ipAddresses": addresses, "ports": task.ports, "version": task.version.stamp}),
        )
    }

    /// The condition or the goal of the task's instance has changed.
    pub fn instance_changed(now: Timestamp, app: &str, task: &Task, condition: &str) -> Self {
        let placed = condition != "Scheduled";
        Self::new(
            "instance_changed_event",
            now,
            json!({"instanceId": task.instance, "condition": condition, "runSpecId": app,
                "agentId": placed.then_some(&task.agent), "host": placed.then_some(&task.host),
                "runSpecVersion": task.version.stamp}),
        )
    }

    /// One health check of the task has a result.
    pub fn health_status_changed(now: Timestamp, app: &str, task: &Task, alive: bool) -> Self {
        Self::new(
            "health_status_changed_event",
            now,
            json!({"appId": app, "instanceId": task.instance, "version": task.version.stamp, "alive": alive}),
        )
    }

    /// The result of all checks of the task together.
    pub fn instance_health_changed(now: Timestamp, app: &str, task: &Task) -> Self {
        Self::new(
            "instance_health_changed_event",
            now,
            json!({"instanceId": task.instance, "runSpecId": app, "healthy": task.healthy(),
                "runSpecVersion": task.version.stamp}),
        )
    }
}

/// Returns the group that an app is in.
fn group_of(app: &str) -> &str {
    app.rsplit_once('/').map_or("/", |(group, _)| if group.is_empty() { "/" } else { group })
}

/// One of a task's `ipAddresses`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Address {
    ip_address: IpAddr,
    protocol: &'static str,
}

/// `ipAddresses` of a task: empty until its container starts, and while it is unreachable, because the status of such a
/// task has no container.
pub(super) fn shown_addresses(task: &Task) -> impl Iterator<Item = Address> {
    let is_known = !matches!(task.state, TaskState::TaskStaging | TaskState::TaskUnreachable);
    let known = if is_known { &task.addresses[..] } else { &[] };
    known.iter().map(|&ip_address| {
        let protocol = if ip_address.is_ipv4() { "IPv4" } else { "IPv6" };
        Address { ip_address, protocol }
    })
}
