//! The JSON of pods and of their instances.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::lenient::{Lenient, labels, or_default};

/// One entry of the response to `GET /v2/pods/::status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// The absolute path of the pod.
    pub id: String,
    /// The latest definition.
    #[serde(default, deserialize_with = "or_default")]
    pub spec: Pod,
    /// `STABLE`, `DEGRADED`, or `TERMINAL` while a deployment deletes it.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    /// The instances of the pod.
    #[serde(default, deserialize_with = "or_default")]
    pub instances: Vec<Lenient<PodInstance>>,
}

/// The definition of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Pod {
    /// The containers.
    #[serde(default, deserialize_with = "or_default")]
    pub containers: Vec<PodContainer>,
    /// The version of the definition, a timestamp.
    #[serde(default, deserialize_with = "or_default")]
    pub version: String,
}

/// One container of a definition.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodContainer {
    /// The name, unique in the pod.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// The ports.
    #[serde(default, deserialize_with = "or_default")]
    pub endpoints: Vec<PodEndpoint>,
    /// The health check; only its presence is used.
    #[serde(default)]
    pub health_check: Option<serde_json::Value>,
}

/// One port of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodEndpoint {
    /// The name, unique in the pod.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// The port at the address of the instance.
    #[serde(default, deserialize_with = "or_default")]
    pub container_port: i64,
    /// `tcp`, `udp` or both; empty for TCP.
    #[serde(default, deserialize_with = "or_default")]
    pub protocol: Vec<String>,
    /// The container networks of the port; empty for all of them.
    #[serde(default, deserialize_with = "or_default")]
    pub network_names: Vec<String>,
    /// The port of the host; absent for none, 0 for any.
    #[serde(default)]
    pub host_port: Option<i64>,
    /// The labels of the port.
    #[serde(default, deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
}

/// One instance.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodInstance {
    /// The id of the instance.
    pub id: String,
    /// `PENDING`, `STAGING`, `STABLE`, `DEGRADED` or `TERMINAL`.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    /// The reason for the status, for people. Only this text says that an instance is unreachable.
    #[serde(default, deserialize_with = "or_default")]
    pub message: String,
    /// The agent that runs the instance, a name or an address.
    #[serde(default, deserialize_with = "or_default")]
    pub agent_hostname: String,
    /// The definition that the instance was started from: `/v2/pods/<id>::versions/<version>`.
    #[serde(default, deserialize_with = "or_default")]
    pub spec_reference: String,
    /// The addresses.
    #[serde(default, deserialize_with = "or_default")]
    pub networks: Vec<NetworkStatus>,
    /// The containers of the instance.
    #[serde(default, deserialize_with = "or_default")]
    pub containers: Vec<ContainerStatus>,
}

/// The addresses of an instance on one network.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NetworkStatus {
    /// The name of the network; absent for the network of the host.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// The addresses.
    #[serde(default, deserialize_with = "or_default")]
    pub addresses: Vec<String>,
}

/// One container of an instance.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerStatus {
    /// The name in the definition.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// The state in Mesos, such as `TASK_RUNNING`.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    /// Since when the container is in this state.
    #[serde(default, deserialize_with = "or_default")]
    pub status_since: String,
    /// The id of the Mesos task.
    #[serde(default, deserialize_with = "or_default")]
    pub container_id: String,
    /// The conditions of the container.
    #[serde(default, deserialize_with = "or_default")]
    pub conditions: Vec<ContainerCondition>,
    /// The ports; none while the container is not active.
    #[serde(default, deserialize_with = "or_default")]
    pub endpoints: Vec<EndpointStatus>,
}

/// One condition of a container. Only the condition `healthy` is used.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ContainerCondition {
    /// The name of the condition.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// `true` or `false`.
    #[serde(default, deserialize_with = "or_default")]
    pub value: String,
    /// For `healthy`: `health-reported-by-mesos` or `health-unreported-by-mesos`.
    #[serde(default, deserialize_with = "or_default")]
    pub reason: String,
}

impl ContainerCondition {
    /// Returns whether this is the result of the health check.
    pub fn is_health(&self) -> bool {
        self.name == "healthy"
    }

    /// Returns whether the health check has no result yet.
    pub fn is_unreported(&self) -> bool {
        self.is_health() && self.reason == "health-unreported-by-mesos"
    }
}

/// One port of a container that runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// The name in the definition.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// The port of the host that is assigned to the endpoint.
    #[serde(default)]
    pub allocated_host_port: Option<i64>,
    /// The result of the health check of the container, if the check uses this port.
    #[serde(default)]
    pub healthy: Option<bool>,
}
