//! Pods: their versions, their instances, and the JSON of both.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::error::CommandError;
use super::event::Event;
use super::task::TaskState;
use super::timestamp::Timestamp;

/// All pods by id.
#[derive(Debug, Default)]
pub(super) struct Pods {
    pods: BTreeMap<String, Pod>,
    serial: u32,
}

/// A pod: its versions, oldest first and never empty, and its instances.
#[derive(Debug)]
struct Pod {
    versions: Vec<(Timestamp, Value)>,
    instances: Vec<Instance>,
}

#[derive(Debug)]
struct Instance {
    id: String,
    version: usize,
    host: String,
    ip: IpAddr,
    ports: Vec<u16>,
    containers: BTreeMap<String, (TaskState, Option<bool>)>,
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

impl Cluster {
    /// Makes a pod from Marathon's JSON, or a new version of it: running instances stay and keep their version.
    pub fn create_pod(&mut self, mut spec: Value, places: &[PodPlace]) -> Result<Vec<String>, CommandError> {
        let id = spec["id"].as_str().filter(|id| id.starts_with('/')).map(str::to_owned);
        let id = id.ok_or_else(|| CommandError::new("a pod must have an \"id\" that begins with a slash"))?;
        let stamp = self.stamp_version();
        spec["version"] = json!(stamp);
        let endpoints = endpoints(&spec).map(|(_, endpoint)| endpoint);
        let on_host = endpoints.filter(|endpoint| endpoint["hostPort"].is_u64()).count();
        let names: Vec<String> = names(&spec).map(str::to_owned).collect();
        let known = self.pods.pods.contains_key(&id);
        let pod = self.pods.pods.entry(id.clone()).or_insert(Pod { versions: Vec::new(), instances: Vec::new() });
        pod.versions.push((stamp, spec));
        let mut ids = Vec::new();
        for place in places {
            self.pods.serial += 1;
            let name = id.trim_start_matches('/').replace('/', "_");
            let instance = format!("{name}.instance-{:08x}-0000-11ea-8000-00000000f00d", self.pods.serial);
            let ports = place.ports.clone().unwrap_or_else(|| (0..on_host).map(|_| self.agents.offer()).collect());
            let containers = names.iter().map(|name| (name.clone(), (TaskState::TaskRunning, Some(true)))).collect();
            let version = pod.versions.len() - 1;
            let it =
                Instance { id: instance.clone(), version, host: place.host.clone(), ip: place.ip, ports, containers };
            pod.instances.push(it);
            ids.push(instance);
        }
        let kind = if known { "pod_updated_event" } else { "pod_created_event" };
        self.tell_of_pod(kind, &id);
        for instance in &ids {
            self.tell_of_instance(&id, instance, "Running");
        }
        Ok(ids)
    }

    /// Reports another state of a container, and its health result.
    pub fn set_container(
        &mut self,
        instance: &str,
        container: &str,
        state: TaskState,
        healthy: Option<bool>,
    ) -> Result<(), CommandError> {
        let missing =
            || CommandError::new(format!("no pod has an instance {instance:?} with a container {container:?}"));
        let mut all = self.pods.pods.iter_mut().flat_map(|(id, pod)| pod.instances.iter_mut().map(move |it| (id, it)));
        let (id, it) = all.find(|(_, it)| it.id == instance).ok_or_else(missing)?;
        let place = it.containers.get_mut(container).ok_or_else(missing)?;
        let (before, _) = std::mem::replace(place, (state, healthy));
        let id = id.clone();
        if before.condition() == state.condition() {
            let data =
                json!({"instanceId": instance, "runSpecId": id, "healthy": healthy, "runSpecVersion": self.now()});
            self.events.push(Event::new("instance_health_changed_event", self.now(), data));
        } else {
            self.tell_of_instance(&id, instance, state.condition());
        }
        Ok(())
    }

    /// Deletes a pod and its instances.
    pub fn delete_pod(&mut self, id: &str) -> Result<(), CommandError> {
        let pod = self.pods.pods.remove(id).ok_or_else(|| CommandError::new(format!("there is no pod {id:?}")))?;
        self.tell_of_pod("pod_deleted_event", id);
        for instance in pod.instances {
            self.tell_of_instance(id, &instance.id, "Killed");
        }
        Ok(())
    }

    fn tell_of_pod(&mut self, kind: &'static str, id: &str) {
        let uri = format!("/v2/pods{id}");
        self.events.push(Event::new(kind, self.now(), json!({"clientIp": "127.0.0.1", "uri": uri})));
    }

    fn tell_of_instance(&mut self, id: &str, instance: &str, condition: &str) {
        let data = json!({"instanceId": instance, "condition": condition, "runSpecId": id, "agentId": "sim-S0",
            "host": null, "runSpecVersion": self.now()});
        self.events.push(Event::new("instance_changed_event", self.now(), data));
    }
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
            "terminationHistory": []})
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
                "conditions": conditions, "endpoints": endpoints}));
        }
        let unreachable = instance.containers.values().any(|(state, _)| *state == TaskState::TaskUnreachable);
        let status = if degraded { "DEGRADED" } else { "STABLE" };
        let network = spec["networks"][0]["name"].clone();
        let mut shown = json!({"id": instance.id, "status": status, "agentHostname": instance.host, "conditions": [],
            "specReference": format!("/v2/pods{id}::versions/{stamp}"), "containers": containers,
            "networks": [{"name": network, "addresses": [instance.ip]}]});
        if unreachable {
            shown["message"] = json!("pod instance has become unreachable");
        }
        shown
    }
}

fn names(spec: &Value) -> impl Iterator<Item = &str> {
    spec["containers"].as_array().into_iter().flatten().filter_map(|container| container["name"].as_str())
}

fn endpoints(spec: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let containers = spec["containers"].as_array().into_iter().flatten();
    containers.flat_map(|it| it["endpoints"].as_array().into_iter().flatten().map(move |endpoint| (it, endpoint)))
}
