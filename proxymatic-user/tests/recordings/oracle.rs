//! Which tasks may get connections, by the words of Marathon's documents. It shares no code with the agent.
//!
//! The rules, each with the document of Marathon that it comes from:
//!
//! - A task gets connections if it is `TASK_RUNNING` (docs/task-handling.md), if the app has no health check or all of its
//!   results are alive (docs/health-checks.md), and if no deployment waits for its readiness (docs/readiness-checks.md).
//! - Results of health checks are in the memory of the leader. A new leader starts with none, and then the last results of
//!   a task count (docs/high-availability.md).
//! - A result that is older than the start of its task is the result of the task before it, because Marathon keeps results
//!   for each instance. The start of an instance is not repeated if its task is replaced.
//! - `instance_changed_event` is sent if the condition or the goal of an instance changes. A second `Running` means that
//!   Marathon is about to stop the instance.
//! - A task that is being killed, or that is unreachable, may still run (docs/task-handling.md). It is the last resort of
//!   its service: it gets connections only if no other task may get some.
//! - The ports of a task are those of the version that it was started from.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::{
    player::{definitions, event_data, event_name},
    recording::{Step, What},
};

/// Where a task serves: its id, its address and its port.
pub(crate) type Place = (String, String, u64);

/// Which tasks may get the connections of a service.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// The apps and pods of the service.
    pub(crate) apps: BTreeSet<String>,
    /// The tasks that share all connections.
    pub(crate) must: BTreeSet<Place>,
    /// The tasks that may get connections if no other task can. Their processes may still serve.
    pub(crate) last_resort: BTreeSet<Place>,
    /// Tasks that may get connections if no other task can, but need not: their checks fail.
    pub(crate) failing: BTreeSet<Place>,
    /// Tasks that may get connections or not: events are missing.
    pub(crate) uncertain: BTreeSet<Place>,
}

/// The state of the cluster as the recording has described it so far.
pub(crate) struct Oracle {
    definitions: BTreeMap<(String, String), Value>,
    apps: Value,
    pods: Value,
    /// The last condition of each instance.
    conditions: BTreeMap<String, String>,
    /// Instances that Marathon is about to stop.
    announced: BTreeSet<String>,
    /// Instances that Marathon may be about to stop.
    uncertain: BTreeSet<String>,
    /// The last verdict of the checks of each task.
    verdicts: BTreeMap<String, bool>,
    ready: BTreeSet<String>,
    /// The places of tasks that were last heard of as unreachable, with their services.
    unreachable: BTreeMap<String, BTreeSet<(String, Place)>>,
    /// Whether the stream was lost once, so that events are missing.
    was_reattached: bool,
    /// All places of tasks that were listed, with their services.
    places: BTreeMap<String, BTreeSet<(String, Place)>>,
}

impl Oracle {
    pub(crate) fn new(steps: &[Step]) -> Self {
        Self {
            definitions: definitions(steps),
            apps: Value::Null,
            pods: Value::Null,
            conditions: BTreeMap::new(),
            announced: BTreeSet::new(),
            uncertain: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            ready: BTreeSet::new(),
            unreachable: BTreeMap::new(),
            was_reattached: false,
            places: BTreeMap::new(),
        }
    }

    /// Follows a step, and returns the traffic of each service after it.
    pub(crate) fn play(&mut self, step: &Step) -> BTreeMap<String, Traffic> {
        for response in step.responses.iter().filter(|it| it.status == 200) {
            let body = || serde_json::from_str(&response.body).expect("JSON");
            match response.path.as_str() {
                "/v2/apps" => self.apps = body(),
                "/v2/pods/::status" => self.pods = body(),
                _ => {}
            }
        }
        match &step.what {
            What::Event(frame) => self.event(event_name(frame).unwrap_or_default(), &event_data(frame)),
            What::StreamEnds => {
                self.conditions.clear();
                self.announced.clear();
                self.was_reattached = true;
            }
            What::Silence | What::StreamOpens => {}
        }
        self.traffic()
    }

    fn event(&mut self, name: &str, data: &Value) {
        match name {
            "instance_changed_event" => {
                let instance = text(&data["instanceId"]);
                let condition = text(&data["condition"]);
                let before = self.conditions.insert(instance.clone(), condition.clone());
                self.announced.remove(&instance);
                self.uncertain.remove(&instance);
                if condition == "Running" && before.as_deref() == Some("Running") {
                    self.announced.insert(instance);
                } else if condition == "Running" && before.is_none() && self.was_reattached {
                    // After a change of leader the conditions are not known.
                    self.uncertain.insert(instance);
                }
            }
            "status_update_event" => {
                let task = text(&data["taskId"]);
                if data["taskStatus"] == "TASK_UNREACHABLE" {
                    self.unreachable.insert(task.clone(), self.places.get(&task).cloned().unwrap_or_default());
                } else {
                    self.unreachable.remove(&task);
                }
            }
            "unknown_instance_terminated_event" => {
                let instance = format!("{}.", text(&data["instanceId"]));
                self.unreachable.retain(|task, _| !task.starts_with(&instance));
            }
            _ => {}
        }
    }

    fn traffic(&mut self) -> BTreeMap<String, Traffic> {
        let mut all: BTreeMap<String, Traffic> = BTreeMap::new();
        let mut listed = BTreeSet::new();
        for app in self.apps["apps"].clone().as_array().into_iter().flatten() {
            let id = text(&app["id"]);
            for service in self.services(app) {
                all.entry(service).or_default().apps.insert(id.clone());
            }
            for task in app["tasks"].as_array().into_iter().flatten() {
                let name = text(&task["id"]);
                listed.insert(name.clone());
                let version = (id.clone(), text(&task["version"]));
                let definition = self.definitions.get(&version).unwrap_or(app).clone();
                let places = places(&definition, task);
                if !places.is_empty() {
                    self.places.insert(name.clone(), places.clone());
                }
                let verdict = self.verdict(app, &definition, task, &name);
                for (service, place) in places {
                    let traffic = all.entry(service).or_default();
                    traffic.apps.insert(id.clone());
                    add(traffic, verdict, place);
                }
            }
        }
        for pod in self.pods.clone().as_array().into_iter().flatten() {
            for (service, place, verdict) in self.pod(pod) {
                let traffic = all.entry(service).or_default();
                traffic.apps.insert(text(&pod["id"]));
                add(traffic, verdict, place);
            }
        }
        // An unreachable task that Marathon has replaced is not listed any more, but it may still run.
        // It is the last resort until something better is there.
        let has_better = |it: &Traffic| !it.must.is_empty();
        self.unreachable.retain(|task, places| {
            listed.contains(task) || !places.iter().any(|(service, _)| all.get(service).is_none_or(has_better))
        });
        for (task, places) in &self.unreachable {
            for (service, place) in places.iter().filter(|_| !listed.contains(task)) {
                if let Some(traffic) = all.get_mut(service) {
                    traffic.last_resort.insert(place.clone());
                }
            }
        }
        all
    }

    /// Returns the services of an app, whether it has tasks or not.
    fn services(&self, app: &Value) -> Vec<String> {
        ports(app).into_iter().flat_map(|port| port.services()).collect()
    }

    fn verdict(&mut self, app: &Value, definition: &Value, task: &Value, name: &str) -> Verdict {
        match task["state"].as_str().unwrap_or_default() {
            "TASK_RUNNING" => {}
            "TASK_KILLING" | "TASK_UNREACHABLE" => return Verdict::LastResort,
            _ => return Verdict::Nothing,
        }
        if Self::is_of(&self.announced, name) {
            return Verdict::LastResort;
        }
        if Self::is_of(&self.uncertain, name) {
            return Verdict::Uncertain;
        }
        if !self.is_ready(app, task, name) {
            return Verdict::Nothing;
        }
        if is_empty(&definition["healthChecks"]) {
            return Verdict::Must;
        }
        let started = task["startedAt"].as_str().unwrap_or_default();
        let results = task["healthCheckResults"].as_array().cloned().unwrap_or_default();
        let at = |result: &Value| text(&result["lastSuccess"]).max(text(&result["lastFailure"]));
        let own: Vec<_> = results.iter().filter(|result| at(result).as_str() >= started).collect();
        let alive = match (own.as_slice(), results.as_slice()) {
            ([], []) => self.verdicts.get(name).copied(),
            ([], _) => None,
            (own, _) => Some(own.iter().all(|result| result["alive"] == true)),
        };
        self.verdicts.extend(alive.map(|alive| (name.to_owned(), alive)));
        match alive {
            Some(true) => Verdict::Must,
            Some(false) => Verdict::Failing,
            None => Verdict::Nothing,
        }
    }

    fn is_of(instances: &BTreeSet<String>, task: &str) -> bool {
        instances.iter().any(|it| task.strip_prefix(it.as_str()).is_some_and(|rest| rest.starts_with('.')))
    }

    fn is_ready(&mut self, app: &Value, task: &Value, name: &str) -> bool {
        let results = app["readinessCheckResults"].as_array().into_iter().flatten();
        let result = results.into_iter().find(|it| it["taskId"] == task["id"]).map(|it| it["ready"] == true);
        let awaited =
            !is_empty(&app["readinessChecks"]) && !is_empty(&app["deployments"]) && task["version"] == app["version"];
        let ready = result.unwrap_or(!awaited || self.ready.contains(name));
        if ready {
            self.ready.insert(name.to_owned());
        }
        ready
    }

    /// Returns the places of a pod's containers, with their services.
    fn pod(&self, pod: &Value) -> Vec<(String, Place, Verdict)> {
        let mut all = Vec::new();
        for instance in pod["instances"].as_array().into_iter().flatten() {
            for container in instance["containers"].as_array().into_iter().flatten() {
                let name = text(&container["containerId"]);
                let verdict = match (container["status"].as_str(), instance["status"].as_str()) {
                    (Some("TASK_KILLING"), _) => Verdict::LastResort,
                    (Some("TASK_RUNNING"), Some("STABLE" | "DEGRADED")) => {
                        match pod["status"] == "TERMINAL" || Self::is_of(&self.announced, &name) {
                            true => Verdict::LastResort,
                            false => Verdict::Must,
                        }
                    }
                    _ => Verdict::Nothing,
                };
                for endpoint in container["endpoints"].as_array().into_iter().flatten() {
                    let spec = pod["spec"]["containers"].as_array().into_iter().flatten();
                    let spec = spec.into_iter().find(|it| it["name"] == container["name"]);
                    let ports = spec.and_then(|it| it["endpoints"].as_array()).into_iter().flatten();
                    let port = ports.into_iter().find(|it| it["name"] == endpoint["name"]);
                    let label = |it: &Value| text(&it["labels"]["com.meltwater.proxymatic.servicePort"]);
                    let Some(service) = port.map(label).filter(|it| !it.is_empty()) else { continue };
                    let Some(number) = endpoint["allocatedHostPort"].as_u64() else { continue };
                    all.push((
                        format!("{service}/tcp"),
                        (name.clone(), text(&instance["agentHostname"]), number),
                        verdict,
                    ));
                }
            }
        }
        all
    }
}

/// What a task may get.
#[derive(Clone, Copy)]
enum Verdict {
    Must,
    LastResort,
    Failing,
    Uncertain,
    Nothing,
}

fn add(traffic: &mut Traffic, verdict: Verdict, place: Place) {
    match verdict {
        Verdict::Must => drop(traffic.must.insert(place)),
        Verdict::LastResort => drop(traffic.last_resort.insert(place)),
        Verdict::Failing => drop(traffic.failing.insert(place)),
        Verdict::Uncertain => drop(traffic.uncertain.insert(place)),
        Verdict::Nothing => {}
    }
}

/// One port of a definition.
struct Port {
    number: u64,
    protocols: Vec<String>,
    /// The port in the container, if it is reached at the address of the container.
    in_container: Option<u64>,
}

impl Port {
    fn services(&self) -> Vec<String> {
        self.protocols.iter().map(|protocol| format!("{}/{protocol}", self.number)).collect()
    }
}

fn ports(definition: &Value) -> Vec<Port> {
    let is_host = definition["networks"][0]["mode"] == "host";
    let (list, number) = match is_host {
        true => (&definition["portDefinitions"], "port"),
        false => (&definition["container"]["portMappings"], "servicePort"),
    };
    let port = |it: &Value| Port {
        number: it[number].as_u64().unwrap_or_default(),
        protocols: text(&it["protocol"]).split(',').map(str::to_owned).collect(),
        in_container: (!is_host && it["hostPort"].is_null()).then(|| it["containerPort"].as_u64().unwrap_or_default()),
    };
    list.as_array().into_iter().flatten().map(port).collect()
}

/// Returns where a task serves each of its services.
fn places(definition: &Value, task: &Value) -> BTreeSet<(String, Place)> {
    let id = text(&task["id"]);
    let mut on_host = task["ports"].as_array().into_iter().flatten();
    let mut places = BTreeSet::new();
    for port in ports(definition) {
        let place = match port.in_container {
            None => on_host.next().and_then(Value::as_u64).map(|number| (text(&task["host"]), number)),
            Some(number) => task["ipAddresses"][0]["ipAddress"].as_str().map(|it| (it.to_owned(), number)),
        };
        let Some((address, number)) = place else { continue };
        places.extend(port.services().into_iter().map(|service| (service, (id.clone(), address.clone(), number))));
    }
    places
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn is_empty(list: &Value) -> bool {
    list.as_array().is_none_or(Vec::is_empty)
}
