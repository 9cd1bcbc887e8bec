//! The address and port at which a task serves each of its service ports.
//!
//! A task's `ports` has one entry for each port *of the host*, in order: one for each entry of portDefinitions, or one
//! for each entry of portMappings that has a hostPort. A port without a hostPort is reached at the address of the
//! container. So the two lists are walked together, never zipped, and by the definition that the task was started from.

mod legacy;
mod port;

use std::net::IpAddr;

pub(super) use self::port::protocols;
pub use self::port::{Port, Served};
use self::port::{host_ports, mapped};
use super::api::{App, PortMapping, Task};

/// The place at which one task serves one service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The index of the port in the definition.
    pub index: usize,
    /// The address, or `None` for the host of the task.
    pub address: Option<IpAddr>,
    /// The port, 1 to 65,535.
    pub port: u16,
}

/// Returns the ports of an app by its definition.
///
/// # Errors
/// The definition does not determine its ports; the text is the rest of a sentence.
pub fn ports_of(app: &App) -> Result<Vec<Port<'_>>, String> {
    // This is the format since Marathon 1.5. Earlier formats are translated to the same list.
    let Some(first) = app.networks.first() else { return legacy::ports_of(app) };
    if let Some(other) = app.networks.iter().find(|network| network.mode != first.mode) {
        let (mode, other) = (&first.mode, &other.mode);
        return Err(format!("its networks mix the modes {mode:?} and {other:?}, so its ports are not known"));
    }
    let mappings = app.container.port_mappings.iter();
    match first.mode.as_str() {
        "host" => Ok(host_ports(app)),
        "container/bridge" => Ok(mappings.map(|it| mapped(it, Served::OnHost)).collect()),
        "container" | "" => mappings.map(|it| container_port(app, it)).collect(),
        other => Err(format!("its network mode {other:?} is unknown, so its ports are not known")),
    }
}

/// Returns a port of an app on container networks.
fn container_port<'a>(app: &App, mapping: &'a PortMapping) -> Result<Port<'a>, String> {
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

/// Returns the endpoints of a task, without ports that it does not serve yet, and what is wrong with single ports.
///
/// # Errors
/// The task and the definition do not fit, so any endpoint would be a guess.
pub fn endpoints(ports: &[Port<'_>], task: &Task) -> Result<(Vec<Endpoint>, Vec<String>), String> {
    if ports.is_empty() {
        return Ok(Default::default()); // Without ports there is nothing to guess.
    }
    let wanted = ports.iter().filter(|port| port.served == Served::OnHost).count();
    if wanted != task.ports.len() {
        return Err(format!(
            "has {} ports of its host, but its definition has {wanted}; none of them is used, because any choice would be \
             a guess",
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
            Ok(_) | Err(_) => wrong.push(format!("port {index}: its port {number} is not from 1 to 65535")),
        }
    }
    Ok((endpoints, wrong))
}

/// Returns the address of the container, on the network of that position if it has several; `None` while it has none.
fn container_address(task: &Task, network: Option<(usize, usize)>) -> Result<Option<IpAddr>, String> {
    let mut all = Vec::with_capacity(task.ip_addresses.len());
    for entry in &task.ip_addresses {
        let address: IpAddr = entry
            .ip_address
            .parse()
            .map_err(|_| format!("the container's address {:?} is not an IP address", entry.ip_address))?;
        all.push(address);
    }
    // A container on two families has an address of each. One is enough, and every client has IPv4.
    let mut family: Vec<_> = all.iter().copied().filter(IpAddr::is_ipv4).collect();
    if family.is_empty() {
        family = all;
    }
    match network {
        None => Ok(family.first().copied()),
        Some(_) if family.is_empty() => Ok(None),
        Some((place, networks)) if family.len() == networks => Ok(Some(family[place])),
        Some((_, networks)) => Err(format!(
            "the container has {} addresses on {networks} networks, so its address is not known",
            family.len()
        )),
    }
}

#[cfg(test)]
mod tests;
