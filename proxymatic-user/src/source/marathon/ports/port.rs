//! One port of a definition, and the forms that every version of Marathon shares.

use std::collections::BTreeMap;

use crate::{
    model::Protocol,
    source::marathon::api::{App, PortMapping},
};

/// One port of an app's definition. Its index is its position in portMappings or portDefinitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port<'a> {
    /// The service port that Marathon assigned; 0 for none.
    pub service_port: i64,
    /// The protocol as the definition has it.
    pub protocol: &'a str,
    /// The protocols; none if the definition has an unknown one.
    pub protocols: &'static [Protocol],
    /// Where tasks serve the port.
    pub served: Served,
    /// The port of the host that the definition requires; 0 for any or none.
    pub fixed: i64,
    /// The labels of the port itself.
    pub labels: &'a BTreeMap<String, String>,
}

/// Where a task serves a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Served {
    /// On its host, at the next entry of the task's `ports`.
    OnHost,
    /// In its container.
    InContainer {
        /// The port in the container.
        port: i64,
        /// The position of its network among the container networks of the app, and their number; `None` if the port is
        /// on any of them.
        network: Option<(usize, usize)>,
    },
}

/// Returns the ports of an app on the network of the host.
pub(super) fn host_ports(app: &App) -> Vec<Port<'_>> {
    let port = |service_port, protocol, labels| Port {
        service_port,
        protocol,
        protocols: protocols(protocol),
        served: Served::OnHost,
        fixed: if app.require_ports { service_port } else { 0 },
        labels,
    };
    if app.port_definitions.is_empty() {
        // Early versions of Marathon have only the numbers.
        return app.ports.iter().map(|number| port(*number, "", &NO_LABELS)).collect();
    }
    app.port_definitions.iter().map(|it| port(it.port, it.protocol.as_str(), &it.labels)).collect()
}

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// Returns the port of a mapping.
pub(super) fn mapped(mapping: &PortMapping, served: Served) -> Port<'_> {
    Port {
        service_port: mapping.service_port,
        protocol: &mapping.protocol,
        protocols: protocols(&mapping.protocol),
        served,
        fixed: mapping.host_port.unwrap_or_default(),
        labels: &mapping.labels,
    }
}

/// Returns the protocols that a definition names; none if it names an unknown one.
pub(in crate::source::marathon) fn protocols(text: &str) -> &'static [Protocol] {
    match text {
        "" | "tcp" => &[Protocol::Tcp],
        "udp" => &[Protocol::Udp],
        "udp,tcp" | "tcp,udp" => &[Protocol::Tcp, Protocol::Udp],
        _ => &[],
    }
}
