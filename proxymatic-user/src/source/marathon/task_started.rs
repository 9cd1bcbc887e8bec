//! A task that has started, as an event describes it. If no request is needed, the task is served before the next read.
//! Pure.
//!
//! An event names the host, the ports, and the version of the definition. So the last listing is enough if it has that
//! version. An event has no health and readiness: a task with checks waits for a response with their results.

use std::net::IpAddr;

use serde::Deserialize;

use super::{
    api::{IpAddress, Listing, Task, good},
    convert,
    lookups::{Lookups, Options, parse_address},
};
use crate::model::Snapshot;

/// A task that has started, as an event describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TaskStarted {
    app: String,
    task: Task,
}

/// The data of `status_update_event`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    app_id: String,
    task_id: String,
    host: String,
    ports: Vec<i64>,
    ip_addresses: Option<Vec<IpAddress>>,
    version: String,
}

impl TaskStarted {
    /// Returns the task in the data of an event; `None` if a field is missing, so that a listing is needed.
    pub(super) fn parse(data: &str) -> Option<Self> {
        let Data { app_id, task_id, host, ports, ip_addresses, version } = serde_json::from_str(data).ok()?;
        if task_id.is_empty() || host.is_empty() || version.is_empty() {
            return None;
        }
        let (state, ip_addresses) = ("TASK_RUNNING".into(), ip_addresses.unwrap_or_default());
        let task = Task { id: task_id, host, ports, ip_addresses, state, version, ..Task::default() };
        Some(Self { app: app_id, task })
    }

    /// Returns the services of the task, by its app in a listing and the known addresses of hosts; `None` if those are not
    /// enough.
    pub(super) fn convert(
        &self,
        listing: &Listing,
        known: impl Fn(&str) -> Option<IpAddr>,
        options: &Options,
    ) -> Option<Snapshot> {
        let app = good(&listing.apps).find(|app| app.id == self.app)?;
        let mut lookups = Lookups::default();
        if parse_address(&self.task.host).is_none() {
            lookups.hosts.insert(self.task.host.clone(), Ok(known(&self.task.host)?));
        }
        convert::convert_task(listing, app, &self.task, &lookups, options)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use serde_json::{Value, json};

    use super::*;
    use crate::model::State;

    const VERSION: &str = "2026-01-01T00:00:00.000Z";

    fn event() -> Value {
        json!({"appId": "/a", "taskId": "t2", "taskStatus": "TASK_RUNNING", "host": "h2", "ports": [31_002],
            "ipAddresses": [{"ipAddress": "10.0.0.2", "protocol": "IPv4"}], "version": VERSION})
    }

    fn with(event: Value, change: Value) -> Value {
        let (Value::Object(mut event), Value::Object(change)) = (event, change) else { panic!("no objects") };
        event.extend(change);
        event.into()
    }

    /// Returns the backends of an event, for an app with the fields `more`.
    fn served(event: &Value, more: Value) -> Option<Vec<String>> {
        let app = json!({"id": "/a", "version": VERSION, "networks": [{"mode": "host"}],
            "portDefinitions": [{"port": 1234, "protocol": "tcp"}]});
        let listing = convert::parse(json!({"apps": [with(app, more)]}).to_string().as_bytes()).unwrap();
        let known = |name: &str| (name == "h2").then(|| IpAddr::from([10, 0, 0, 2]));
        let snapshot = TaskStarted::parse(&event.to_string())?.convert(&listing, known, &NonZeroU32::MIN.into())?;
        let backends = snapshot.services.values().flat_map(|it| &it.backends);
        Some(backends.map(|it| format!("{} {}:{} {:?}", it.task, it.address, it.port, it.state)).collect())
    }

    #[test]
    fn task_of_a_known_definition_is_served_by_its_event() {
        assert_eq!(served(&event(), json!({})), Some(vec![format!("t2 10.0.0.2:31002 {:?}", State::Active)]));
    }

    #[test]
    fn task_with_checks_only_warms_up() {
        for check in [json!({"healthChecks": [{}]}), json!({"readinessChecks": [{}], "deployments": [{}]})] {
            assert_eq!(served(&event(), check), Some(vec![format!("t2 10.0.0.2:31002 {:?}", State::Warming)]));
        }
    }

    #[test]
    fn task_that_needs_a_request_waits_for_a_response() {
        for change in [
            json!({"appId": "/b"}),
            json!({"version": "2026-02-02T00:00:00.000Z"}),
            json!({"host": "h3"}),
            json!({"host": ""}),
            json!({"host": null}),
            json!({"ports": "31002"}),
            json!({"version": null}),
        ] {
            let changed = json!({"versionInfo": {"lastConfigChangeAt": "2026-03-03T00:00:00.000Z"}});
            assert_eq!(served(&with(event(), change.clone()), changed), None, "{change}");
        }
    }
}
