//! The JSON of earlier Marathons: converts the responses and events of 1.8 into theirs. `view`, `event` and
//! `event_sequences` write those of 1.8.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::event::Event;

/// The Marathon version whose JSON the simulator writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub enum Dialect {
    /// 1.3 and earlier: legacy networks, nulls, `taskId` in health results, no instances and no pods.
    #[serde(rename = "1.3")]
    D13,
    /// 1.4: legacy networks, nulls, pods.
    #[serde(rename = "1.4")]
    D14,
    /// 1.5 to 1.7: current networks, nulls.
    #[serde(rename = "1.5")]
    D15,
    /// 1.8 and later.
    #[default]
    #[serde(rename = "1.8")]
    D18,
}

/// Fields of an app that play-json wrote as null if they were unset.
const NULLS: [&str; 9] =
    ["args", "cmd", "container", "env", "executor", "ipAddress", "readinessCheckResults", "residency", "user"];

impl Dialect {
    /// All of them, oldest first.
    pub const ALL: [Self; 4] = [Self::D13, Self::D14, Self::D15, Self::D18];

    /// The version in `/v2/info`.
    pub const fn version(self) -> &'static str {
        match self {
            Self::D13 => "1.3.13",
            Self::D14 => "1.4.13",
            Self::D15 => "1.5.12",
            Self::D18 => "1.10.26",
        }
    }

    /// Whether the version has pods.
    pub fn has_pods(self) -> bool {
        self > Self::D13
    }

    /// Whether an event tells that the goal of an instance has changed, as since 1.8.
    pub fn announces_ends(self) -> bool {
        self > Self::D15
    }

    /// Whether a standby redirects listeners to the leader, as since 1.7, instead of proxying the stream.
    pub fn redirects_streams(self) -> bool {
        self > Self::D15
    }

    /// Whether a slow listener loses events, as up to 1.7; since then it is disconnected.
    pub fn drops_events(self) -> bool {
        self <= Self::D15
    }

    /// The status of an unknown path, which 1.9 changed.
    pub(super) fn unknown_path(self) -> StatusCode {
        if self == Self::D18 { StatusCode::INTERNAL_SERVER_ERROR } else { StatusCode::NOT_FOUND }
    }

    /// Returns the ids of a task and of its instance. `name` is its app's, without slashes.
    pub(super) fn ids(self, name: &str, uuid: &str) -> (String, String) {
        match self {
            Self::D13 => (format!("{name}.{uuid}"), format!("{name}.{uuid}")),
            Self::D14 | Self::D15 => (format!("{name}.{uuid}"), format!("{name}.marathon-{uuid}")),
            Self::D18 => (format!("{name}.instance-{uuid}._app.1"), format!("{name}.instance-{uuid}")),
        }
    }

    /// Converts an app, with tasks or without.
    pub(super) fn app(self, app: &mut Map<String, Value>) {
        if self == Self::D18 {
            return;
        }
        app.remove("role");
        if self <= Self::D14 {
            legacy_networks(app);
        }
        if self == Self::D13 {
            app.retain(|key, _| !matches!(key.as_str(), "gpus" | "killSelection" | "unreachableStrategy"));
        }
        for key in NULLS {
            app.entry(key).or_insert(Value::Null);
        }
        for task in app.get_mut("tasks").and_then(Value::as_array_mut).into_iter().flatten() {
            self.task(task);
        }
    }

    /// Converts a task.
    pub(super) fn task(self, task: &mut Value) {
        let Some(task) = task.as_object_mut().filter(|_| self != Self::D18) else { return };
        task.remove("role");
        task.entry("startedAt").or_insert(Value::Null);
        for result in task.get_mut("healthCheckResults").and_then(Value::as_array_mut).into_iter().flatten() {
            for key in ["firstSuccess", "lastSuccess", "lastFailure", "lastFailureCause"] {
                if result.get(key).is_none() {
                    result[key] = Value::Null;
                }
            }
            if self == Self::D13 {
                rename(result, "instanceId", "taskId");
            }
        }
        task.retain(|key, value| {
            !matches!(key.as_str(), "healthCheckResults" | "servicePorts")
                || value.as_array().is_none_or(|it| !it.is_empty())
        });
    }

    /// Converts an event; `None` if that version had no such event.
    pub(super) fn event(self, mut event: Event) -> Option<Event> {
        match event.kind {
            "instance_changed_event" | "instance_health_changed_event" if self == Self::D13 => return None,
            "health_status_changed_event" if self == Self::D13 => rename(&mut event.data, "instanceId", "taskId"),
            "api_post_event" => {
                event.data["appDefinition"].as_object_mut().into_iter().for_each(|app| self.app(app));
            }
            _ => {}
        }
        Some(event)
    }
}

fn rename(value: &mut Value, from: &str, to: &str) {
    let Some(value) = value.as_object_mut() else { return };
    if let Some(it) = value.remove(from) {
        value.insert(to.into(), it);
    }
}

/// Converts `networks` into the fields of versions without it.
fn legacy_networks(app: &mut Map<String, Value>) {
    let networks = app.remove("networks").unwrap_or_default();
    let mut container = app.remove("container").unwrap_or_default();
    let mut mappings = container.as_object_mut().and_then(|it| it.remove("portMappings")).unwrap_or_default();
    for mapping in mappings.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        mapping.remove("networkNames");
        mapping.entry("hostPort").or_insert(Value::Null);
    }
    let of = |mappings: &Value, field: &str| -> Vec<Value> {
        mappings.as_array().into_iter().flatten().map(|mapping| mapping[field].clone()).collect()
    };
    let network = match networks[0]["mode"].as_str() {
        Some("container/bridge") => {
            let definitions: Vec<_> = mappings
                .as_array()
                .into_iter()
                .flatten()
                .map(|it| json!({"port": it["servicePort"], "protocol": it["protocol"], "labels": it["labels"]}))
                .collect();
            app.insert("ports".into(), json!(of(&mappings, "servicePort")));
            app.insert("portDefinitions".into(), json!(definitions));
            "BRIDGE"
        }
        Some("container") => {
            app.retain(|key, _| !matches!(key.as_str(), "portDefinitions" | "requirePorts"));
            let discovered: Vec<_> = match container["docker"].is_object() {
                true => Vec::new(),
                false => mappings.as_array().into_iter().flatten().map(discovery_port).collect(),
            };
            let address = json!({"groups": [], "labels": {}, "discovery": {"ports": discovered},
                "networkName": networks[0]["name"]});
            app.insert("ipAddress".into(), address);
            "USER"
        }
        Some(_) | None => {
            let ports = of(app.get("portDefinitions").unwrap_or(&Value::Null), "port");
            app.insert("ports".into(), json!(ports));
            "HOST"
        }
    };
    if let Some(docker) = container.get_mut("docker").and_then(Value::as_object_mut) {
        docker.insert("network".into(), json!(network));
        docker.insert("portMappings".into(), mappings);
    }
    app.insert("container".into(), container);
}

/// Converts a mapping of a container that Docker does not run, which had no service port then.
fn discovery_port(mapping: &Value) -> Value {
    json!({"number": mapping["containerPort"], "name": mapping["name"], "protocol": mapping["protocol"],
        "labels": mapping["labels"]})
}
