//! The JSON of Marathon's apps and tasks, as far as it is of use here, read with patience.
//!
//! Absent, `null` and empty are the same; fields that are not named here are never looked at; an app or a task that is
//! not what it should be is kept as a sentence about it, and costs only itself. All that Marathon has ever written is
//! accepted side by side: which version answers is never asked.

mod legacy;
mod pod;

use std::collections::BTreeMap;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _},
};
use serde_json::{Value, value::RawValue};

pub use self::{
    legacy::{Discovery, DiscoveryPort, Docker, IpPerTask},
    pod::{
        ContainerCondition, ContainerStatus, EndpointStatus, NetworkStatus, Pod, PodContainer, PodEndpoint,
        PodInstance, PodStatus,
    },
};

/// The answer to `GET /v2/apps`. Without an `apps` array it is no such answer.
#[derive(Debug, Default, Deserialize)]
pub struct Listing {
    /// Every app the credentials may see.
    pub apps: Vec<Lenient<App>>,
    /// Every pod, from an answer of its own: `GET /v2/pods/::status`.
    #[serde(skip)]
    pub pods: Vec<Lenient<PodStatus>>,
    /// Why that answer is not there, and what is used instead.
    #[serde(skip)]
    pub pods_unknown: Option<String>,
}

/// A `T`, or why it is none.
#[derive(Clone, Debug)]
pub enum Lenient<T> {
    /// It is one.
    Good(T),
    /// It is not.
    Bad {
        /// Its `id`, where at least that could be read.
        id: Option<String>,
        /// What is wrong.
        reason: String,
    },
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Lenient<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Read as it is written where it is what it should be: to make a tree of it first takes several times as long.
        let text = Box::<RawValue>::deserialize(deserializer)?;
        if let Ok(it) = serde_json::from_str(text.get()) {
            return Ok(Self::Good(it));
        }
        // A tree has no field twice, which is wrong only for those who read as it is written.
        let value: Value = serde_json::from_str(text.get()).map_err(D::Error::custom)?;
        let id = value.get("id").and_then(Value::as_str).map(str::to_owned);
        Ok(match T::deserialize(value) {
            Ok(it) => Self::Good(it),
            Err(error) => Self::Bad { id, reason: error.to_string() },
        })
    }
}

/// An app: its definition, and in a listing also its tasks.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// Its absolute path.
    pub id: String,
    /// What it is attached to; none means the network of the host.
    #[serde(default, deserialize_with = "or_default")]
    pub networks: Vec<Network>,
    /// The container, which has the ports of an app that is not on the network of the host.
    #[serde(default, deserialize_with = "or_default")]
    pub container: Container,
    /// The ports of an app on the network of the host.
    #[serde(default, deserialize_with = "or_default")]
    pub port_definitions: Vec<PortDefinition>,
    /// Whether the service ports on the network of the host are the host ports too.
    #[serde(default, deserialize_with = "or_default")]
    pub require_ports: bool,
    /// The service ports, before there were port definitions.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<i64>,
    /// An address for each task, before 1.5.
    #[serde(default)]
    pub ip_address: Option<IpPerTask>,
    /// Its health checks.
    #[serde(default, deserialize_with = "or_default")]
    pub health_checks: Vec<HealthCheck>,
    /// Its readiness checks; what is in them does not matter here.
    #[serde(default, deserialize_with = "or_default")]
    pub readiness_checks: Vec<Value>,
    /// Its labels.
    #[serde(default, deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
    /// The version of the definition, a timestamp.
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
    /// What changed when.
    #[serde(default, deserialize_with = "or_default")]
    pub version_info: VersionInfo,
    /// Its tasks, of this and of earlier versions; only where `apps.tasks` is embedded.
    #[serde(default, deserialize_with = "or_default")]
    pub tasks: Vec<Lenient<Task>>,
    /// The deployments that concern it; what is in them does not matter here.
    #[serde(default, deserialize_with = "or_default")]
    pub deployments: Vec<Value>,
    /// What its readiness checks say, while it is being deployed.
    #[serde(default, deserialize_with = "or_default")]
    pub readiness_check_results: Vec<ReadinessResult>,
}

/// One entry of `networks`.
#[derive(Debug, Default, Deserialize)]
pub struct Network {
    /// `host`, `container` or `container/bridge`.
    #[serde(default, deserialize_with = "or_default")]
    pub mode: String,
    /// Which container network.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
}

/// The part of `container` that says something of ports.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The ports of the container.
    #[serde(default, deserialize_with = "or_default")]
    pub port_mappings: Vec<PortMapping>,
    /// What Docker is told, which was also of the network before 1.5.
    #[serde(default, deserialize_with = "or_default")]
    pub docker: Docker,
}

/// One entry of `container.portMappings`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The port inside; 0 for the same as the host port.
    #[serde(default, deserialize_with = "or_default")]
    pub container_port: i64,
    /// The port of the host; absent for none, 0 for any.
    #[serde(default)]
    pub host_port: Option<i64>,
    /// The service port; 0 where none was assigned.
    #[serde(default, deserialize_with = "or_default")]
    pub service_port: i64,
    /// `tcp`, `udp` or both with a comma between.
    #[serde(default, deserialize_with = "or_default")]
    pub protocol: String,
    /// The container networks it is on; empty for all of them.
    #[serde(default, deserialize_with = "or_default")]
    pub network_names: Vec<String>,
    /// Its labels.
    #[serde(default, deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
}

/// One entry of `portDefinitions`.
#[derive(Debug, Default, Deserialize)]
pub struct PortDefinition {
    /// The service port; 0 where none was assigned.
    #[serde(default, deserialize_with = "or_default")]
    pub port: i64,
    /// `tcp`, `udp` or both with a comma between.
    #[serde(default, deserialize_with = "or_default")]
    pub protocol: String,
    /// Its labels.
    #[serde(default, deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
}

/// One health check.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// Seconds between two probes; 60 where it is not said.
    #[serde(default)]
    pub interval_seconds: Option<f64>,
}

/// When what was changed.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionInfo {
    /// The first version that has the present configuration: later ones differ only in the number of tasks.
    #[serde(default, deserialize_with = "or_default")]
    pub last_config_change_at: String,
}

/// Whether a task is ready, while a deployment waits for that.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessResult {
    /// The task.
    #[serde(default, deserialize_with = "or_default")]
    pub task_id: String,
    /// Whether it is.
    #[serde(default, deserialize_with = "or_default")]
    pub ready: bool,
}

/// One task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// Its id.
    pub id: String,
    /// The agent it runs on, a name or an address.
    #[serde(default, deserialize_with = "or_default")]
    pub host: String,
    /// The ports of the host that it has been given.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<i64>,
    /// The addresses of its container.
    #[serde(default, deserialize_with = "or_default")]
    pub ip_addresses: Vec<IpAddress>,
    /// What Mesos says of it, such as `TASK_RUNNING`; absent before Marathon 1.1.2.
    #[serde(default, deserialize_with = "or_default")]
    pub state: String,
    /// When it was first seen running.
    #[serde(default, deserialize_with = "or_default")]
    pub started_at: String,
    /// The version of the app it was started from.
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
    /// The results of its health checks so far; which is of which check is not said.
    #[serde(default, deserialize_with = "without_nulls")]
    pub health_check_results: Vec<HealthResult>,
}

/// One address of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpAddress {
    /// The address.
    #[serde(default, deserialize_with = "or_default")]
    pub ip_address: String,
}

/// The result of one health check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct HealthResult {
    /// Whether the task is alive by this check.
    #[serde(default, deserialize_with = "or_default")]
    pub alive: bool,
}

/// Takes `null` for what is there when nothing is said.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// Early Marathons write `[null]` for a check that has no result yet.
fn without_nulls<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let all: Vec<Option<T>> = or_default(deserializer)?;
    Ok(all.into_iter().flatten().collect())
}

/// Labels are strings, but numbers have been recorded as well.
fn labels<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    let labels: BTreeMap<String, Value> = or_default(deserializer)?;
    Ok(labels
        .into_iter()
        .filter_map(|(label, value)| match value {
            Value::Null => None,
            Value::String(text) => Some((label, text)),
            other => Some((label, other.to_string())),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_null_and_empty_are_the_same() {
        let absent: App = serde_json::from_str(r#"{"id":"/a"}"#).unwrap();
        let null: App = serde_json::from_str(
            r#"{"id":"/a","networks":null,"container":null,"portDefinitions":null,"labels":null,"version":null,
            "versionInfo":null,"tasks":null,"healthChecks":null,"deployments":null,"readinessCheckResults":null}"#,
        )
        .unwrap();
        let empty: App = serde_json::from_str(
            r#"{"id":"/a","networks":[],"container":{},"portDefinitions":[],"labels":{},"version":"",
            "versionInfo":{},"tasks":[],"healthChecks":[],"deployments":[],"readinessCheckResults":[],"args":null}"#,
        )
        .unwrap();
        let absent = format!("{absent:?}");
        assert_eq!(absent, format!("{null:?}"));
        assert_eq!(absent, format!("{empty:?}"));
    }

    #[test]
    fn one_bad_task_costs_only_itself() {
        let app: App =
            serde_json::from_str(r#"{"id":"/a","tasks":[{"id":"t1","ports":["x"]},7,{"id":"t2"}]}"#).unwrap();
        assert!(matches!(&app.tasks[0], Lenient::Bad { id: Some(id), .. } if id == "t1"));
        assert!(matches!(&app.tasks[1], Lenient::Bad { id: None, .. }));
        assert!(matches!(&app.tasks[2], Lenient::Good(task) if task.id == "t2"));
    }

    #[test]
    fn label_values_may_be_numbers() {
        let app: App = serde_json::from_str(r#"{"id":"/a","labels":{"n":7,"s":"x","b":true,"null":null}}"#).unwrap();
        let labels: Vec<_> = app.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(labels, [("b", "true"), ("n", "7"), ("s", "x")]);
    }
}
