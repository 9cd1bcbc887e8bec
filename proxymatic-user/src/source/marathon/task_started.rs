//! A task that has begun to run, by an event alone: where nothing has to be asked, it is served before anything is read.
//! Pure.
//!
//! An event names the host and the ports, and the version of the definition that says what the ports are. So the last
//! listing is enough where it has that definition. Health and readiness are not in the event: what is checked waits for
//! an answer that has the results.

use std::net::IpAddr;

use serde::Deserialize;

use super::{
    api::{IpAddress, Listing, Task},
    convert::{self, Lookups, Options},
};
use crate::model::Snapshot;

/// A task that runs, as an event has it.
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
    /// The task of the data of an event; `None` where anything is missing, and a listing has to say it.
    pub(super) fn of(data: &str) -> Option<Self> {
        let Data { app_id, task_id, host, ports, ip_addresses, version } = serde_json::from_str(data).ok()?;
        if task_id.is_empty() || host.is_empty() || version.is_empty() {
            return None;
        }
        let (state, ip_addresses) = ("TASK_RUNNING".into(), ip_addresses.unwrap_or_default());
        let task = Task { id: task_id, host, ports, ip_addresses, state, version, ..Task::default() };
        Some(Self { app: app_id, task })
    }

    /// What the task serves, by its app in a listing and the addresses of hosts that are known; `None` where those do
    /// not say.
    pub(super) fn read(
        &self,
        listing: &Listing,
        known: impl Fn(&str) -> Option<IpAddr>,
        rules: Options,
    ) -> Option<Snapshot> {
        let app = convert::good(&listing.apps).find(|app| app.id == self.app)?;
        let mut found = Lookups::default();
        if convert::address_of(&self.task.host).is_none() {
            found.hosts.insert(self.task.host.clone(), Ok(known(&self.task.host)?));
        }
        convert::read_task(app, &self.task, &found, rules)
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

    /// The backends that an event gives, with an app of which `more` is known.
    fn served(event: &Value, more: Value) -> Option<Vec<String>> {
        let app = json!({"id": "/a", "version": VERSION, "networks": [{"mode": "host"}],
            "portDefinitions": [{"port": 1234, "protocol": "tcp"}]});
        let listing = convert::parse(json!({"apps": [with(app, more)]}).to_string().as_bytes()).unwrap();
        let known = |name: &str| (name == "h2").then(|| IpAddr::from([10, 0, 0, 2]));
        let snapshot = TaskStarted::of(&event.to_string())?.read(&listing, known, NonZeroU32::MIN.into())?;
        let backends = snapshot.services.values().flat_map(|it| &it.backends);
        Some(backends.map(|it| format!("{} {}:{} {:?}", it.task, it.address, it.port, it.state)).collect())
    }

    #[test]
    fn a_task_of_the_known_definition_is_served_where_the_event_says() {
        assert_eq!(served(&event(), json!({})), Some(vec![format!("t2 10.0.0.2:31002 {:?}", State::Active)]));
    }

    #[test]
    fn what_is_checked_is_not_taken_for_healthy() {
        for check in [json!({"healthChecks": [{}]}), json!({"readinessChecks": [{}], "deployments": [{}]})] {
            assert_eq!(served(&event(), check), Some(vec![format!("t2 10.0.0.2:31002 {:?}", State::Warming)]));
        }
    }

    #[test]
    fn what_would_have_to_be_asked_for_is_left_to_an_answer() {
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
