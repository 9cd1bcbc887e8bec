//! The short form of an app for most tests: one port, and the places of its tasks.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::ports::Mode;
use super::task::Place;

/// An app with one port. `container` mode means an address per task and no host port.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ShortApp {
    /// `/shop/web`
    pub id: String,
    /// Its service port; 0 lets the simulator assign one.
    pub service_port: u16,
    /// `tcp`, `udp` or `udp,tcp`.
    pub protocol: String,
    /// Its network.
    pub mode: Mode,
    /// The port inside the container. In container mode it is the tasks' `port`; in bridge mode the default is 80.
    pub container_port: Option<u16>,
    /// Whether it has a health check (a single one, by Mesos).
    pub health_checks: bool,
    /// Labels of the app.
    pub labels: BTreeMap<String, String>,
    /// Its first tasks. In container mode a task's address is its `ip`, or else its `host`.
    pub tasks: Vec<Place>,
}

impl Default for ShortApp {
    fn default() -> Self {
        Self {
            id: String::new(),
            service_port: 0,
            protocol: "tcp".into(),
            mode: Mode::Host,
            container_port: None,
            health_checks: false,
            labels: BTreeMap::new(),
            tasks: Vec::new(),
        }
    }
}

impl ShortApp {
    /// A TCP app on the hosts' own network, without checks, labels or tasks.
    pub fn new(id: &str, service_port: u16) -> Self {
        Self { id: id.into(), service_port, ..Self::default() }
    }

    /// Sets the protocol.
    #[must_use]
    pub fn protocol(self, protocol: &str) -> Self {
        Self { protocol: protocol.into(), ..self }
    }

    /// Sets the network.
    #[must_use]
    pub fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Adds a health check.
    #[must_use]
    pub fn checked(self) -> Self {
        Self { health_checks: true, ..self }
    }

    /// Adds a label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Adds a running, healthy task.
    #[must_use]
    pub fn task(self, host: &str, port: u16) -> Self {
        self.place(Place::new(host, port))
    }

    /// Adds a task.
    #[must_use]
    pub fn place(mut self, place: Place) -> Self {
        self.tasks.push(place);
        self
    }

    /// Returns the app in Marathon's JSON, and its tasks.
    pub fn expand(self) -> (Value, Vec<Place>) {
        let Self { id, service_port, protocol, mode, container_port, health_checks, labels, tasks } = self;
        let mut app = json!({"id": id, "labels": labels, "networks": [{"mode": mode}]});
        match mode {
            Mode::Host => {
                app["portDefinitions"] = json!([{"port": service_port, "protocol": protocol, "name": "default"}]);
            }
            Mode::Bridge => {
                app["container"] = container(json!({"containerPort": container_port.unwrap_or(80), "hostPort": 0,
                    "servicePort": service_port, "protocol": protocol, "name": "default"}));
            }
            Mode::Container => {
                app["networks"][0]["name"] = json!("dcos");
                let inside = container_port.or_else(|| tasks.iter().find_map(|task| task.port)).unwrap_or(80);
                app["container"] = container(json!({"containerPort": inside, "servicePort": service_port,
                    "protocol": protocol, "name": "default"}));
            }
        }
        if health_checks {
            app["healthChecks"] = json!([{"protocol": "MESOS_TCP", "portIndex": 0}]);
        }
        (app, tasks)
    }
}

fn container(mapping: Value) -> Value {
    json!({"type": "DOCKER", "volumes": [], "portMappings": [mapping],
        "docker": {"image": "sim", "forcePullImage": false, "privileged": false, "parameters": []}})
}
