//! The ports of an app: where each network mode keeps it, its defaults, and the assignment of service ports.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::error::CommandError;

/// The network mode of an app's containers. Marathon forbids mixing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Mode {
    /// On the host's own network: `portDefinitions`.
    #[default]
    #[serde(rename = "host")]
    Host,
    /// Behind the host's bridge: `portMappings`, each with a host port.
    #[serde(rename = "container/bridge")]
    Bridge,
    /// With an address of their own: `portMappings`, a host port only on request.
    #[serde(rename = "container")]
    Container,
}

/// One port of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The service port: never 0 here.
    pub service: u16,
    /// The port inside the container (0: the same as the host port). In host mode 0.
    pub container: u16,
    /// The requested host port (0: any), or none.
    pub host: Option<u16>,
}

/// A port definition or a port mapping; unknown fields are kept.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PortJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    container_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    host_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(default = "tcp")]
    protocol: String,
    #[serde(default)]
    labels: Map<String, Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

fn tcp() -> String {
    "tcp".into()
}

impl PortJson {
    /// Returns the port, after its service port was assigned.
    pub(super) fn seen(&self, mode: Mode, fixed_host_ports: bool) -> Port {
        match mode {
            Mode::Host => {
                let service = self.port.unwrap_or(0);
                Port { service, container: 0, host: Some(if fixed_host_ports { service } else { 0 }) }
            }
            Mode::Bridge | Mode::Container => Port {
                service: self.service_port.unwrap_or(0),
                container: self.container_port.unwrap_or(0),
                host: self.host_port,
            },
        }
    }
}

/// Returns the app's port list with the defaults of its mode; an app without one has one dynamic port.
pub(super) fn take(app: &mut Map<String, Value>, mode: Mode) -> Result<Vec<PortJson>, CommandError> {
    let mappings = match app.get_mut("container") {
        None => None,
        Some(Value::Object(container)) => container.remove("portMappings"),
        Some(_) => {
            return Err(CommandError::new("container must be an object with type, docker, volumes and portMappings"));
        }
    };
    let definitions = app.remove("portDefinitions");
    let (list, other, name) = match mode {
        Mode::Host => (definitions, mappings, "portDefinitions"),
        Mode::Bridge | Mode::Container => (mappings, definitions, "container.portMappings"),
    };
    if other.is_some_and(|other| other.as_array().is_none_or(|other| !other.is_empty())) {
        return Err(CommandError::new(format!("an app in this network mode gives its ports in {name} only")));
    }
    let list = list.unwrap_or_else(|| json!([{"name": "default"}]));
    let mut ports: Vec<PortJson> = serde_json::from_value(list)
        .map_err(|wrong| CommandError::new(format!("{name} is not an array of Marathon's port objects: {wrong}")))?;
    for port in &mut ports {
        match mode {
            Mode::Host => port.port = port.port.or(Some(0)),
            Mode::Bridge | Mode::Container => port.container_port = port.container_port.or(Some(0)),
        }
        if mode == Mode::Bridge {
            port.host_port = port.host_port.or(Some(0));
        }
        port.protocol = match port.protocol.as_str() {
            known @ ("tcp" | "udp" | "udp,tcp") => known.into(),
            "tcp,udp" => "udp,tcp".into(),
            other => {
                return Err(CommandError::new(format!(r#"protocol {other:?} is none of "tcp", "udp" and "udp,tcp""#)));
            }
        };
    }
    Ok(ports)
}

/// Writes the port list back to its place.
pub(super) fn put(app: &mut Map<String, Value>, mode: Mode, ports: &[PortJson]) {
    match mode {
        Mode::Host => {
            let mut written = json!(ports);
            // Marathon writes the labels of a port definition only if there are some, and those of a mapping always.
            for port in written.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
                port.retain(|key, value| key != "labels" || value.as_object().is_none_or(|labels| !labels.is_empty()));
            }
            app.insert("portDefinitions".into(), written);
        }
        Mode::Bridge | Mode::Container => {
            let container = app.entry("container").or_insert_with(|| json!({"type": "MESOS", "volumes": []}));
            container["portMappings"] = json!(ports);
        }
    }
}

/// Replaces each 0: by a service port of the previous version that the new one does not use, else by the lowest free one.
pub(super) fn assign(
    ports: &mut [PortJson],
    mode: Mode,
    previous: &[u16],
    taken: impl Fn() -> BTreeSet<u16>,
) -> Result<(), CommandError> {
    let slot = |port: &mut PortJson| match mode {
        Mode::Host => *port.port.get_or_insert(0),
        Mode::Bridge | Mode::Container => *port.service_port.get_or_insert(0),
    };
    let mut own: BTreeSet<u16> = ports.iter_mut().map(slot).collect();
    if !own.contains(&0) {
        return Ok(());
    }
    let unused: Vec<u16> = previous.iter().copied().filter(|port| !own.contains(port)).collect();
    let mut kept = unused.into_iter();
    let taken = taken();
    for port in ports {
        if slot(port) != 0 {
            continue;
        }
        let free = || (10_000..=20_000).find(|port| !own.contains(port) && !taken.contains(port));
        let found = kept.next().or_else(free).ok_or_else(|| {
            CommandError::new("all service ports 10000..=20000 are taken: give an explicit one, or delete an app")
        })?;
        own.insert(found);
        match mode {
            Mode::Host => port.port = Some(found),
            Mode::Bridge | Mode::Container => port.service_port = Some(found),
        }
    }
    Ok(())
}
