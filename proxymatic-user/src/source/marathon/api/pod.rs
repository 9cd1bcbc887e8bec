//! The JSON of pods and of their instances, as far as it is of use here.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Lenient, labels, or_default};

/// One entry of the answer to `GET /v2/pods/::status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodStatus {
    /// Its absolute path.
    pub id: String,
    /// Its latest definition.
    #[serde(default, deserialize_with = "or_default")]
    pub spec: Pod,
    /// `STABLE`, `DEGRADED`, or `TERMINAL` while a deployment deletes it.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    /// What runs of it.
    #[serde(default, deserialize_with = "or_default")]
    pub instances: Vec<Lenient<PodInstance>>,
}

/// The definition of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Pod {
    /// Its containers.
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
    /// Its name, unique in the pod.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// Its ports.
    #[serde(default, deserialize_with = "or_default")]
    pub endpoints: Vec<PodEndpoint>,
    /// Its health check; what is in it does not matter here.
    #[serde(default)]
    pub health_check: Option<serde_json::Value>,
}

/// One port of a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodEndpoint {
    /// Its name, unique in the pod.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// The port at the address of the instance.
    #[serde(default, deserialize_with = "or_default")]
    pub container_port: i64,
    /// `tcp`, `udp` or both; empty for TCP.
    #[serde(default, deserialize_with = "or_default")]
    pub protocol: Vec<String>,
    /// The container networks it is on; empty for all of them.
    #[serde(default, deserialize_with = "or_default")]
    pub network_names: Vec<String>,
    /// The port of the host; absent for none, 0 for any.
    #[serde(default)]
    pub host_port: Option<i64>,
    /// Its labels.
    #[serde(default, deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
}

/// One instance.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodInstance {
    /// Its id.
    pub id: String,
    /// `PENDING`, `STAGING`, `STABLE`, `DEGRADED` or `TERMINAL`.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    /// Why that is so, for people; of an unreachable one it is the only word for that.
    #[serde(default, deserialize_with = "or_default")]
    pub message: String,
    /// The agent it runs on, a name or an address.
    #[serde(default, deserialize_with = "or_default")]
    pub agent_hostname: String,
    /// Which definition it was started from: `/v2/pods/<id>::versions/<version>`.
    #[serde(default, deserialize_with = "or_default")]
    pub spec_reference: String,
    /// Its addresses.
    #[serde(default, deserialize_with = "or_default")]
    pub networks: Vec<NetworkStatus>,
    /// What runs in it.
    #[serde(default, deserialize_with = "or_default")]
    pub containers: Vec<ContainerStatus>,
}

/// The addresses of an instance on one network.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct NetworkStatus {
    /// The network; absent on the network of the host.
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
    /// Its name in the definition.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// What Mesos says of it, such as `TASK_RUNNING`.
    #[serde(default, deserialize_with = "or_default")]
    pub status: String,
    /// The id of its Mesos task.
    #[serde(default, deserialize_with = "or_default")]
    pub container_id: String,
    /// What else is known of it.
    #[serde(default, deserialize_with = "or_default")]
    pub conditions: Vec<ContainerCondition>,
    /// Its ports; none while it is not active.
    #[serde(default, deserialize_with = "or_default")]
    pub endpoints: Vec<EndpointStatus>,
}

/// Something that is known of a container. Of use here is only the one of the name `healthy`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ContainerCondition {
    /// What it is about.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// `true` or `false`.
    #[serde(default, deserialize_with = "or_default")]
    pub value: String,
    /// Of health: `health-reported-by-mesos` or `health-unreported-by-mesos`.
    #[serde(default, deserialize_with = "or_default")]
    pub reason: String,
}

impl ContainerCondition {
    /// Whether it is about what the health check says.
    pub fn is_health(&self) -> bool {
        self.name == "healthy"
    }

    /// Whether the health check has not said anything yet.
    pub fn is_unreported(&self) -> bool {
        self.is_health() && self.reason == "health-unreported-by-mesos"
    }
}

/// One port of a container that runs.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// Its name in the definition.
    #[serde(default, deserialize_with = "or_default")]
    pub name: String,
    /// The port of the host that it has been given.
    #[serde(default)]
    pub allocated_host_port: Option<i64>,
    /// What the health check of the container says, where it asks this port.
    #[serde(default)]
    pub healthy: Option<bool>,
}
