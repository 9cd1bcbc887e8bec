//! Ports as Marathon wrote them before 1.5, translated as 1.5 itself did.

use super::{App, Port, PortMapping, Served, mapped, on_host, protocols};
use crate::source::marathon::api::DiscoveryPort;

/// The ports of an app without `networks`.
pub(super) fn of(app: &App) -> Result<Vec<Port<'_>>, String> {
    let docker = &app.container.docker;
    let mappings = if docker.port_mappings.is_empty() { &app.container.port_mappings } else { &docker.port_mappings };
    match (docker.network.as_str(), &app.ip_address) {
        ("" | "HOST", None) => Ok(on_host(app)),
        ("BRIDGE", _) if mappings.is_empty() => Ok(on_host(app)),
        ("BRIDGE", _) => Ok(mappings.iter().map(|it| mapped(it, Served::OnHost)).collect()),
        ("USER", None) => Ok(mappings.iter().map(in_container).collect()),
        ("USER" | "" | "HOST", Some(_)) if !mappings.is_empty() => Ok(mappings.iter().map(in_container).collect()),
        ("USER" | "" | "HOST", Some(ip)) => Ok(ip.discovery.ports.iter().map(discovered).collect()),
        // Nobody outside reaches such a container.
        ("NONE", _) => Ok(Vec::new()),
        (other, _) => Err(format!("its docker network {other:?} is unknown, so its ports are not known")),
    }
}

fn in_container(mapping: &PortMapping) -> Port<'_> {
    match mapping.host_port {
        Some(_) => mapped(mapping, Served::OnHost),
        None => mapped(mapping, Served::InContainer { port: mapping.container_port, network: None }),
    }
}

fn discovered(port: &DiscoveryPort) -> Port<'_> {
    Port {
        service_port: 0,
        protocol: &port.protocol,
        protocols: protocols(&port.protocol),
        served: Served::InContainer { port: port.number, network: None },
        fixed: 0,
        labels: &port.labels,
    }
}
