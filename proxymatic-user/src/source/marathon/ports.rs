//! Which address and port each service port of a task is served at.
//!
//! A task's `ports` has one entry for each port *of the host*, in order: one for each entry of portDefinitions, or one
//! for each entry of portMappings that has a hostPort. Ports without one are reached at the address of the container.
//! So the two lists are walked together, never zipped, and by the definition that the task was started from.

mod legacy;

use std::{collections::BTreeMap, net::IpAddr};

use super::api::{App, PortMapping, Task};
use crate::model::Protocol;

/// One port of an app, as its definition has it. Its index is its place in portMappings or portDefinitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port<'a> {
    /// The service port as Marathon assigned it; 0 for none.
    pub service_port: i64,
    /// What is spoken, as the definition has it.
    pub protocol: &'a str,
    /// What is spoken; none where the definition says something unknown.
    pub protocols: &'static [Protocol],
    /// Where tasks serve it.
    pub served: Served,
    /// The port of the host that the definition asks for; 0 for any or none.
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
        /// The port there.
        port: i64,
        /// Its place among the container networks of the app where it is on only one of several, and their number.
        network: Option<(usize, usize)>,
    },
}

/// Where one service port of one task is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The index of the port in the definition.
    pub index: usize,
    /// The address, or `None` for the host of the task.
    pub address: Option<IpAddr>,
    /// The port, 1 to 65,535.
    pub port: u16,
}

/// The ports of an app, by its definition.
pub fn of(app: &App) -> Result<Vec<Port<'_>>, String> {
    // This is the shape that Marathon writes since 1.5. An earlier shape is another way to the same list.
    let Some(first) = app.networks.first() else { return legacy::of(app) };
    if let Some(other) = app.networks.iter().find(|network| network.mode != first.mode) {
        let (mode, other) = (&first.mode, &other.mode);
        return Err(format!("its networks mix the modes {mode:?} and {other:?}, so its ports are not known"));
    }
    let mappings = app.container.port_mappings.iter();
    match first.mode.as_str() {
        "host" => Ok(on_host(app)),
        "container/bridge" => Ok(mappings.map(|it| mapped(it, Served::OnHost)).collect()),
        "container" | "" => mappings.map(|it| in_container(app, it)).collect(),
        other => Err(format!("its network mode {other:?} is unknown, so its ports are not known")),
    }
}

/// The ports of an app on the network of the host.
fn on_host(app: &App) -> Vec<Port<'_>> {
    let port = |service_port, protocol, labels| Port {
        service_port,
        protocol,
        protocols: protocols(protocol),
        served: Served::OnHost,
        fixed: if app.require_ports { service_port } else { 0 },
        labels,
    };
    if app.port_definitions.is_empty() {
        // Before there were definitions, there were numbers.
        return app.ports.iter().map(|number| port(*number, "", &NO_LABELS)).collect();
    }
    app.port_definitions.iter().map(|it| port(it.port, it.protocol.as_str(), &it.labels)).collect()
}

static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

fn mapped(mapping: &PortMapping, served: Served) -> Port<'_> {
    Port {
        service_port: mapping.service_port,
        protocol: &mapping.protocol,
        protocols: protocols(&mapping.protocol),
        served,
        fixed: mapping.host_port.unwrap_or_default(),
        labels: &mapping.labels,
    }
}

/// A port of an app that has container networks of its own.
fn in_container<'a>(app: &App, mapping: &'a PortMapping) -> Result<Port<'a>, String> {
    if mapping.host_port.is_some() {
        return Ok(mapped(mapping, Served::OnHost));
    }
    let network = match mapping.network_names.first() {
        Some(name) if app.networks.len() > 1 => {
            let place = app.networks.iter().position(|network| network.name == *name);
            let place = place.ok_or_else(|| format!("a port names the network {name:?}, which the app is not on"))?;
            Some((place, app.networks.len()))
        }
        Some(_) | None => None,
    };
    Ok(mapped(mapping, Served::InContainer { port: mapping.container_port, network }))
}

/// What a definition says is spoken.
pub(super) fn protocols(text: &str) -> &'static [Protocol] {
    match text {
        "" | "tcp" => &[Protocol::Tcp],
        "udp" => &[Protocol::Udp],
        "udp,tcp" | "tcp,udp" => &[Protocol::Tcp, Protocol::Udp],
        _ => &[],
    }
}

/// Where a task serves the ports of its definition; those that it does not serve yet are left out.
///
/// `Err` if the task and the definition do not fit: then any answer would be a guess. What is wrong with one port is
/// in the second list.
pub fn walk(ports: &[Port<'_>], task: &Task) -> Result<(Vec<Endpoint>, Vec<String>), String> {
    if ports.is_empty() {
        return Ok(Default::default()); // Nothing to serve, and so nothing to guess.
    }
    let wanted = ports.iter().filter(|port| port.served == Served::OnHost).count();
    if wanted != task.ports.len() {
        return Err(format!(
            "has {} ports of its host, but its definition asks for {wanted}; none of them is used, rather than guess",
            task.ports.len()
        ));
    }
    let mut on_host = task.ports.iter();
    let (mut endpoints, mut wrong) = (Vec::new(), Vec::new());
    for (index, port) in ports.iter().enumerate() {
        let place = match &port.served {
            Served::OnHost => on_host.next().map(|number| (None, *number)),
            Served::InContainer { port, network } => match container_address(task, *network) {
                Ok(address) => address.map(|address| (Some(address), *port)),
                Err(reason) => {
                    wrong.push(format!("port {index}: {reason}"));
                    None
                }
            },
        };
        let Some((address, number)) = place else { continue };
        match u16::try_from(number) {
            Ok(port) if port > 0 => endpoints.push(Endpoint { index, address, port }),
            Ok(_) | Err(_) => wrong.push(format!("port {index}: it is served at port {number}, which cannot be")),
        }
    }
    Ok((endpoints, wrong))
}

/// The address of the container, on the network of that place among several; `None` while it has none.
fn container_address(task: &Task, network: Option<(usize, usize)>) -> Result<Option<IpAddr>, String> {
    let mut all = Vec::with_capacity(task.ip_addresses.len());
    for entry in &task.ip_addresses {
        let address: IpAddr = entry
            .ip_address
            .parse()
            .map_err(|_| format!("the container's address {:?} is not an IP address", entry.ip_address))?;
        all.push(address);
    }
    // On two families the container has an address of each: one of them is enough, and this one every client has.
    let mut family: Vec<_> = all.iter().copied().filter(IpAddr::is_ipv4).collect();
    if family.is_empty() {
        family = all;
    }
    match network {
        None => Ok(family.first().copied()),
        Some(_) if family.is_empty() => Ok(None),
        Some((place, networks)) if family.len() == networks => Ok(Some(family[place])),
        Some((_, networks)) => Err(format!(
            "the container has {} addresses on {networks} networks, so the one it is served at is not known",
            family.len()
        )),
    }
}

#[cfg(test)]
mod tests;
