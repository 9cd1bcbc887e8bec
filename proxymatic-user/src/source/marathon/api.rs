//! The JSON of Marathon's apps and tasks, read leniently.
//!
//! Absent, `null` and empty are the same. Fields that have no name here are ignored. An app or a task that does not fit
//! becomes a sentence about it and costs only itself. The formats of all Marathon versions are accepted side by side, so
//! the version of the server does not matter.

mod legacy;
mod lenient;
mod pod;
mod port;

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

pub(super) use self::lenient::good;
use self::lenient::{labels, or_default, without_nulls};
pub use self::{
    legacy::{Discovery, DiscoveryPort, Docker, IpPerTask},
    lenient::Lenient,
    pod::{
        ContainerCondition, ContainerStatus, EndpointStatus, NetworkStatus, Pod, PodContainer, PodEndpoint,
        PodInstance, PodStatus,
    },
    port::{PortDefinition, PortMapping},
};

/// The response to `GET /v2/apps`. A response without an `apps` array is an error.
#[derive(Debug, Default, Deserialize)]
pub struct Listing {
    /// Every app that the credentials may see.
    pub apps: Vec<Lenient<App>>,
    /// Every pod, from another response: `GET /v2/pods/::status`.
    #[serde(skip)]
    pub pods: Vec<Lenient<PodStatus>>,
    /// Why there is no such response, and what is used instead.
    #[serde(skip)]
    pub pods_unknown: Option<String>,
}

/// An app: its definition and, in a listing, its tasks.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct App {
    /// The absolute path of the app.
    pub id: String,
    /// The networks of the app; none means the network of the host.
    #[serde(default, deserialize_with = "or_default")]
    pub networks: Vec<Network>,
    /// The container. It has the ports of an app that is not on the network of the host.
    #[serde(default, deserialize_with = "or_default")]
    pub container: Container,
    /// The ports of an app on the network of the host.
    #[serde(default, deserialize_with = "or_default")]
    pub port_definitions: Vec<PortDefinition>,
    /// Whether each service port on the network of the host is the host port too.
    #[serde(default, deserialize_with = "or_default")]
    pub require_ports: bool,
    /// The service ports, from before Marathon had port definitions.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<i64>,
    /// An address for each task, before Marathon 1.5.
    #[serde(default)]
    pub ip_address: Option<IpPerTask>,
    /// The health checks.
    #[serde(default, deserialize_with = "or_default")]
    pub health_checks: Vec<HealthCheck>,
    /// The readiness checks; only their presence is used.
    #[serde(default, deserialize_with = "or_default")]
    pub readiness_checks: Vec<Value>,
    /// The labels of the app.
    #[serde(default, deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
    /// The version of the definition, a timestamp.
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
    /// The times of earlier changes.
    #[serde(default, deserialize_with = "or_default")]
    pub version_info: VersionInfo,
    /// The tasks, of this and of earlier versions; only if `apps.tasks` is embedded.
    #[serde(default, deserialize_with = "or_default")]
    pub tasks: Vec<Lenient<Task>>,
    /// The deployments of the app; only their presence is used.
    #[serde(default, deserialize_with = "or_default")]
    pub deployments: Vec<Value>,
    /// The results of the readiness checks during a deployment.
    #[serde(default, deserialize_with = "or_default")]
    pub readiness_check_results: Vec<ReadinessResult>,
}

/// One entry of `networks`.
#[derive(Debug, Default, Deserialize)]
pub struct Network {
    /// `host`, `container` or `container/bridge`.
    #[serde(default, deserialize_with = "or_default")]
    pub mode: String,
    /// The name of the container network.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
}

/// The fields of `container` that describe ports.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Container {
    /// The ports of the container.
    #[serde(default, deserialize_with = "or_default")]
    pub port_mappings: Vec<PortMapping>,
    /// The options for Docker, which included the network before Marathon 1.5.
    #[serde(default, deserialize_with = "or_default")]
    pub docker: Docker,
}

/// One health check.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// Seconds between two probes; absent for 60.
    #[serde(default)]
    pub interval_seconds: Option<f64>,
}

/// The times of earlier changes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionInfo {
    /// The first version with the present configuration: later versions differ only in the number of tasks.
    #[serde(default, deserialize_with = "or_default")]
    pub last_config_change_at: String,
}

/// Whether a task is ready, while a deployment waits for it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReadinessResult {
    /// The id of the task.
    #[serde(default, deserialize_with = "or_default")]
    pub task_id: String,
    /// Whether the task is ready.
    #[serde(default, deserialize_with = "or_default")]
    pub ready: bool,
}

/// One task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Task {
    /// The id of the task.
    pub id: String,
    /// The agent that runs the task, a name or an address.
    #[serde(default, deserialize_with = "or_default")]
    pub host: String,
    /// The ports of the host that are assigned to the task.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<i64>,
    /// The addresses of the container.
    #[serde(default, deserialize_with = "or_default")]
    pub ip_addresses: Vec<IpAddress>,
    /// The state in Mesos, such as `TASK_RUNNING`; absent before Marathon 1.1.2.
    #[serde(default, deserialize_with = "or_default")]
    pub state: String,
    /// When the task was first seen running.
    #[serde(default, deserialize_with = "or_default")]
    pub started_at: String,
    /// The version of the app that the task was started from.
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
    /// The results of the health checks so far, without the check that each belongs to.
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
#[serde(rename_all = "camelCase")]
pub struct HealthResult {
    /// Whether the task is alive by this check.
    #[serde(default, deserialize_with = "or_default")]
    pub alive: bool,
    /// When the check last succeeded.
    #[serde(default, deserialize_with = "or_default")]
    pub last_success: String,
    /// When the check last failed.
    #[serde(default, deserialize_with = "or_default")]
    pub last_failure: String,
    /// Whether the result is not Marathon's: an earlier agent published the task as active.
    #[serde(skip)]
    pub adopted: bool,
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
