//! The ports of apps in the formats before Marathon 1.5, translated in the way of Marathon 1.5.

use super::port::{Port, Served, host_ports, mapped, protocols};
use crate::source::marathon::api::{App, DiscoveryPort, PortMapping};

/// Returns the ports of an app without `networks`.
pub(super) fn ports_of(app: &App) -> Result<Vec<Port<'_>>, String> {
    let docker = &app.container.docker;
    let mappings = if docker.port_mappings.is_empty() { &app.container.port_mappings } else { &docker.port_mappings };
    match (docker.network.as_str(), &app.ip_address) {
        ("" | "HOST", None) => Ok(host_ports(app)),
        ("BRIDGE", _) if mappings.is_empty() => Ok(host_ports(app)),
        ("BRIDGE", _) => Ok(mappings.iter().map(|it| mapped(it, Served::OnHost)).collect()),
        ("USER", None) => Ok(mappings.iter().map(container_port).collect()),
        ("USER" | "" | "HOST", Some(_)) if !mappings.is_empty() => Ok(mappings.iter().map(container_port).collect()),
        ("USER" | "" | "HOST", Some(ip)) => Ok(ip.discovery.ports.iter().map(discovery_port).collect()),
        // Nothing outside of the container can reach it.
        ("NONE", _) => Ok(Vec::new()),
        (other, _) => Err(format!("its docker network {other:?} is unknown, so its ports are not known")),
    }
}

fn container_port(mapping: &PortMapping) -> Port<'_> {
    match mapping.host_port {
        Some(_) => mapped(mapping, Served::OnHost),
        None => mapped(mapping, Served::InContainer { port: mapping.container_port, network: None }),
    }
}

fn discovery_port(port: &DiscoveryPort) -> Port<'_> {
    Port {
        service_port: 0,
        protocol: &port.protocol,
        protocols: protocols(&port.protocol),
        served: Served::InContainer { port: port.number, network: None },
        fixed: 0,
        labels: &port.labels,
    }
}
