//! Changes of pods: each changes the pods of a cluster and emits its events.

use serde_json::{Value, json};

use super::cluster::Cluster;
use super::error::CommandError;
use super::event::Event;
use super::pod::{Instance, Pod, PodPlace};
use super::task::TaskState;

impl Cluster {
    /// Makes a pod from Marathon's JSON, or a new version of it: running instances stay and keep their version.
    pub fn create_pod(&mut self, mut spec: Value, places: &[PodPlace]) -> Result<Vec<String>, CommandError> {
        let id = spec["id"].as_str().filter(|id| id.starts_with('/')).map(str::to_owned);
        let id = id.ok_or_else(|| CommandError::new("a pod must have an \"id\" that begins with a slash"))?;
        let stamp = self.stamp_version();
        spec["version"] = json!(stamp);
        write_defaults(&mut spec, places.len());
        let endpoints = endpoints(&spec).map(|(_, endpoint)| endpoint);
        let on_host = endpoints.filter(|endpoint| endpoint["hostPort"].is_u64()).count();
        let names: Vec<String> = names(&spec).map(str::to_owned).collect();
        let known = self.pods.pods.contains_key(&id);
        let pod = self.pods.pods.entry(id.clone()).or_insert(Pod {
            versions: Vec::new(),
            instances: Vec::new(),
            changed: stamp,
        });
        pod.changed = stamp;
        pod.versions.push((stamp, spec));
        let mut ids = Vec::new();
        for place in places {
            self.pods.serial += 1;
            let name = id.trim_start_matches('/').replace('/', "_");
            let instance = format!("{name}.instance-{:08x}-0000-11ea-8000-00000000f00d", self.pods.serial);
            let ports = place.ports.clone().unwrap_or_else(|| (0..on_host).map(|_| self.agents.offer()).collect());
            let containers = names.iter().map(|name| (name.clone(), (TaskState::TaskRunning, Some(true)))).collect();
            let version = pod.versions.len() - 1;
            let (id, host, agent) = (instance.clone(), place.host.clone(), self.agents.id(&place.host));
            let ip = place.ip;
            pod.instances.push(Instance { id, version, host, agent, ip, ports, containers, changed: stamp });
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
        let now = self.now();
        let mut all = self.pods.pods.iter_mut().flat_map(|(id, pod)| pod.instances.iter_mut().map(move |it| (id, it)));
        let (id, it) = all.find(|(_, it)| it.id == instance).ok_or_else(missing)?;
        let place = it.containers.get_mut(container).ok_or_else(missing)?;
        let (before, _) = std::mem::replace(place, (state, healthy));
        it.changed = now;
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

/// Writes the values that Marathon stores where a definition has none.
fn write_defaults(spec: &mut Value, instances: usize) {
    let strategy = json!({"inactiveAfterSeconds": 0, "expungeAfterSeconds": 0});
    let defaults = [
        ("scaling", json!({"kind": "fixed", "instances": instances})),
        (
            "scheduling",
            json!({"backoff": {"backoff": 1, "backoffFactor": 1.15, "maxLaunchDelay": 300},
                "upgrade": {"minimumHealthCapacity": 1, "maximumOverCapacity": 1},
                "killSelection": "YOUNGEST_FIRST", "unreachableStrategy": strategy}),
        ),
        ("executorResources", json!({"cpus": 0.1, "mem": 32, "disk": 10})),
        ("role", json!("*")),
    ];
    let fill = |object: &mut Value, key: &str, value: Value| {
        if object.get(key).is_none() {
            object[key] = value;
        }
    };
    for (key, value) in defaults {
        fill(spec, key, value);
    }
    for container in spec["containers"].as_array_mut().into_iter().flatten() {
        fill(container, "resources", json!({"cpus": 0.1, "mem": 32}));
        for key in ["disk", "gpus"] {
            fill(&mut container["resources"], key, json!(0));
        }
    }
}

fn names(spec: &Value) -> impl Iterator<Item = &str> {
    spec["containers"].as_array().into_iter().flatten().filter_map(|container| container["name"].as_str())
}

fn endpoints(spec: &Value) -> impl Iterator<Item = (&Value, &Value)> {
    let containers = spec["containers"].as_array().into_iter().flatten();
    containers.flat_map(|it| it["endpoints"].as_array().into_iter().flatten().map(move |endpoint| (it, endpoint)))
}
