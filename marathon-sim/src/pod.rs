//! Pods: their versions, their instances, and the JSON of both.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Value, json};

use super::task::TaskState;
use super::timestamp::Timestamp;

/// All pods by id.
#[derive(Debug, Default)]
pub(super) struct Pods {
    pub(super) pods: BTreeMap<String, Pod>,
    /// The number of instances so far.
    pub(super) serial: u32,
}

/// A pod: its versions, oldest first and never empty, and its instances.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) versions: Vec<(Timestamp, Value)>,
    pub(super) instances: Vec<Instance>,
    /// When it was changed last.
    pub(super) changed: Timestamp,
}

/// An instance of a pod, as of one of its versions.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: String,
    pub(super) version: usize,
    pub(super) host: String,
    /// Mesos' id of the agent.
    pub(super) agent: String,
    pub(super) ip: IpAddr,
    pub(super) ports: Vec<u16>,
    pub(super) containers: BTreeMap<String, (TaskState, Option<bool>)>,
    /// When it was changed last.
    pub(super) changed: Timestamp,
}

/// The place of a new instance of a pod. All its containers run and are healthy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodPlace {
    /// The agent host: a name or an address.
    pub host: String,
    /// The address that its containers share.
    pub ip: IpAddr,
    /// The host ports of those endpoints that have one, in order; assigned by the simulator if missing.
    pub ports: Option<Vec<u16>>,
}

impl Pods {
    /// Drops all health results.
    pub(super) fn forget_health(&mut self) {
        let instances = self.pods.values_mut().flat_map(|pod| &mut pod.instances);
        instances.flat_map(|instance| instance.containers.values_mut()).for_each(|(_, healthy)| *healthy = None);
    }

    /// Serves the paths below `/v2/pods/`.
    pub(super) fn answer(&self, path: &str) -> Option<Value> {
        let path = path.trim_end_matches('/');
        let Some((id, what)) = path.split_once("::") else {
            return match path {
                "" => Some(self.pods.values().map(|pod| pod.spec(pod.versions.len() - 1).clone()).collect()),
                id => self.pods.get(&format!("/{id}")).map(|pod| pod.spec(pod.versions.len() - 1).clone()),
            };
        };
        if (id, what) == ("", "status") {
            return Some(self.pods.iter().map(|(id, pod)| pod.status(id)).collect());
        }
        let id = format!("/{}", id.trim_matches('/'));
        let pod = self.pods.get(&id)?;
        match what.strip_prefix("versions/") {
            None if what == "status" => Some(pod.status(&id)),
            None => (what == "versions").then(|| pod.versions.iter().rev().map(|(stamp, _)| json!(stamp)).collect()),
            Some(name) => {
                pod.versions.iter().find(|(stamp, _)| stamp.to_string() == name).map(|(_, spec)| spec.clone())
            }
        }
    }
}

impl Pod {
    fn spec(&self, version: usize) -> &Value {
        &self.versions[version].1
    }

    fn status(&self, id: &str) -> Value {
        let instances: Vec<Value> = self.instances.iter().map(|instance| self.instance(id, instance)).collect();
        let stable = instances.iter().all(|instance| instance["status"] == "STABLE");
        let status = if stable { "STABLE" } else { "DEGRADED" };
        json!({"id": id, "spec": self.spec(self.versions.len() - 1), "status": status, "instances": instances,
            "terminationHistory": [], "statusSince": self.changed, "lastUpdated": self.changed, "lastChanged": self.changed})
    }

    fn instance(&self, id: &str, instance: &Instance) -> Value {
        let (stamp, spec) = &self.versions[instance.version];
        let mut ports = instance.ports.iter();
        let mut degraded = false;
        let mut containers = Vec::new();
        for container in spec["containers"].as_array().into_iter().flatten() {
            let name = container["name"].as_str().unwrap_or_default();
            let (state, healthy) = instance.containers.get(name).copied().unwrap_or((TaskState::TaskUnknown, None));
            let check = &container["healthCheck"];
            let checked = ["http", "tcp"].iter().find_map(|kind| check[kind]["endpoint"].as_str());
            let mut endpoints = Vec::new();
            for endpoint in container["endpoints"].as_array().into_iter().flatten() {
                let mut shown = json!({"name": endpoint["name"]});
                if endpoint["hostPort"].is_u64() {
                    shown["allocatedHostPort"] = json!(ports.next());
                }
                if checked.is_some() && checked == endpoint["name"].as_str() {
                    shown["healthy"] = json!(healthy.unwrap_or(false));
                }
                endpoints.push(shown);
            }
            let mut conditions = json!([]);
            if check.is_object() {
                let reason = if healthy.is_some() { "health-reported-by-mesos" } else { "health-unreported-by-mesos" };
                let value = healthy.unwrap_or(false).to_string();
                conditions = json!([{"name": "healthy", "value": value, "reason": reason}]);
                degraded |= healthy != Some(true);
            }
            degraded |= state != TaskState::TaskRunning;
            if state.is_terminal() {
                endpoints.clear();
            }
            containers.push(json!({"name": name, "status": state, "containerId": format!("{}.{name}", instance.id),
                "conditions": conditions, "endpoints": endpoints, "statusSince": instance.changed,
                "lastUpdated": instance.changed, "lastChanged": instance.changed}));
        }
        let any = |is: fn(TaskState) -> bool| instance.containers.values().any(|(state, _)| is(*state));
        let unreachable = any(|state| state == TaskState::TaskUnreachable);
        // A container that failed makes Marathon schedule the instance again, and kill the others.
        let status = if any(|state| state.is_terminal() && state != TaskState::TaskKilled) {
            "PENDING"
        } else if any(|state| matches!(state, TaskState::TaskKilling | TaskState::TaskKilled)) {
            "TERMINAL"
        } else if degraded {
            "DEGRADED"
        } else {
            "STABLE"
        };
        let mut network = json!({"addresses": [instance.ip]});
        if let Some(name) = spec["networks"][0].get("name") {
            network["name"] = name.clone();
        }
        let mut shown = json!({"id": instance.id, "status": status, "agentHostname": instance.host, "conditions": [],
            "agentId": instance.agent, "resources": {"cpus": 0.1, "mem": 32, "disk": 10, "gpus": 0}, "localVolumes": [],
            "role": "*", "statusSince": instance.changed, "lastUpdated": instance.changed, "lastChanged": instance.changed,
            "specReference": format!("/v2/pods{id}::versions/{stamp}"), "containers": containers,
            "networks": [network]});
        if unreachable {
            shown["message"] = json!("pod instance has become unreachable");
        }
        shown
    }
}
