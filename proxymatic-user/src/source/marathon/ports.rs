//! Which address and port each service port of a task is served at.
//!
//! A task's `ports` has one entry for each port *of the host*, in order: one for each entry of portDefinitions, or one
//! for each entry of portMappings that has a hostPort. Ports without one are reached at the address of the container.
//! So the two lists are walked together, never zipped, and by the definition that the task was started from.

use std::net::IpAddr;

use super::wire::{App, PortMapping, Task};
use crate::model::Protocol;

/// One port of an app, as its definition has it. Its index is its place in portMappings or portDefinitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The service port as Marathon assigned it; 0 for none.
    pub service_port: i64,
    /// What is spoken; none where the definition says something unknown.
    pub protocols: &'static [Protocol],
    /// Where tasks serve it.
    pub served: Served,
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
pub fn of(app: &App) -> Result<Vec<Port>, String> {
    // This is the shape that Marathon writes since 1.5. An earlier shape is another way to the same list.
    let mode = app.networks.first().map_or("host", |network| network.mode.as_str());
    if let Some(other) = app.networks.iter().find(|network| network.mode != mode) {
        return Err(format!("its networks mix the modes {mode:?} and {:?}, so its ports are not known", other.mode));
    }
    match mode {
        "host" => Ok(app
            .port_definitions
            .iter()
            .map(|it| Port { service_port: it.port, protocols: protocols(&it.protocol), served: Served::OnHost })
            .collect()),
        "container/bridge" => app.container.port_mappings.iter().map(|it| Ok(mapped(it, Served::OnHost))).collect(),
        "container" => app.container.port_mappings.iter().map(|it| in_container(app, it)).collect(),
        other => Err(format!("its network mode {other:?} is unknown, so its ports are not known")),
    }
}

fn mapped(mapping: &PortMapping, served: Served) -> Port {
    Port { service_port: mapping.service_port, protocols: protocols(&mapping.protocol), served }
}

/// A port of an app that has container networks of its own.
fn in_container(app: &App, mapping: &PortMapping) -> Result<Port, String> {
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

fn protocols(text: &str) -> &'static [Protocol] {
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
pub fn walk(ports: &[Port], task: &Task) -> Result<(Vec<Endpoint>, Vec<String>), String> {
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
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(app: Value, task: Value, expected: &[&str]) {
        let app: App = serde_json::from_value(app).unwrap();
        let task: Task = serde_json::from_value(task).unwrap();
        let got = match of(&app).and_then(|ports| Ok((walk(&ports, &task)?, ports))) {
            Err(reason) => vec![format!("error: {reason}")],
            Ok(((endpoints, wrong), ports)) => {
                let endpoint = |it: &Endpoint| {
                    let Port { service_port, protocols, .. } = &ports[it.index];
                    let protocols: Vec<_> = protocols.iter().map(ToString::to_string).collect();
                    let address = it.address.map_or("host".into(), |address| address.to_string());
                    format!("{service_port}/{} -> {address} {}", protocols.join("+"), it.port)
                };
                endpoints.iter().map(endpoint).chain(wrong).collect()
            }
        };
        assert_eq!(got, expected);
    }

    fn overlay(mappings: Value) -> Value {
        json!({"id": "/a", "networks": [{"mode": "container", "name": "ov"}], "container": {"portMappings": mappings}})
    }

    #[test]
    fn the_worked_case() {
        let app = overlay(json!([
            {"containerPort": 80, "hostPort": 0, "servicePort": 10000, "protocol": "tcp"},
            {"containerPort": 81, "servicePort": 10001},
            {"containerPort": 53, "hostPort": 0, "servicePort": 10002, "protocol": "udp,tcp"},
        ]));
        let task = json!({"id": "t", "host": "a1", "ports": [31000, 31001], "ipAddresses": [{"ipAddress": "9.0.0.5"}]});
        check(app, task, &["10000/tcp -> host 31000", "10001/tcp -> 9.0.0.5 81", "10002/tcp+udp -> host 31001"]);
    }

    #[test]
    fn on_the_network_of_the_host_each_definition_has_a_port() {
        let app = json!({"id": "/a", "networks": [{"mode": "host"}], "portDefinitions": [
            {"port": 10000, "protocol": "udp"}, {"port": 10001, "protocol": "tcp,udp"}]});
        let task = json!({"id": "t", "ports": [31000, 31001], "ipAddresses": [{"ipAddress": "10.0.0.1"}]});
        check(app, task, &["10000/udp -> host 31000", "10001/tcp+udp -> host 31001"]);
        let old = json!({"id": "/a", "portDefinitions": [{"port": 10000}]});
        check(old, json!({"id": "t", "ports": [31000]}), &["10000/tcp -> host 31000"]);
    }

    #[test]
    fn on_a_bridge_each_mapping_has_a_port_of_the_host_and_the_container_address_is_not_used() {
        let app = json!({"id": "/a", "networks": [{"mode": "container/bridge"}], "container": {"portMappings": [
            {"containerPort": 80, "hostPort": 0, "servicePort": 10000}, {"containerPort": 81, "servicePort": 10001}]}});
        let task = json!({"id": "t", "ports": [31000, 31001], "ipAddresses": [{"ipAddress": "172.17.0.4"}]});
        check(app, task, &["10000/tcp -> host 31000", "10001/tcp -> host 31001"]);
    }

    #[test]
    fn a_container_without_an_address_yet_has_no_endpoint_and_is_not_wrong() {
        let app = overlay(json!([
            {"containerPort": 80, "servicePort": 10000}, {"containerPort": 81, "hostPort": 81, "servicePort": 10001}]));
        check(app, json!({"id": "t", "ports": [31000], "ipAddresses": []}), &["10001/tcp -> host 31000"]);
    }

    #[test]
    fn lists_that_do_not_fit_are_not_guessed_at() {
        let says =
            "error: has 1 ports of its host, but its definition asks for 0; none of them is used, rather than guess";
        check(overlay(json!([{"containerPort": 80}])), json!({"id": "t", "ports": [31000]}), &[says]);
        let says =
            "error: has 0 ports of its host, but its definition asks for 1; none of them is used, rather than guess";
        check(json!({"id": "/a", "portDefinitions": [{"port": 1}]}), json!({"id": "t"}), &[says]);
    }

    #[test]
    fn with_several_container_networks_the_port_says_which() {
        let app = json!({"id": "/a", "networks": [{"mode": "container", "name": "x"}, {"mode": "container", "name": "y"}],
            "container": {"portMappings": [
                {"containerPort": 80, "servicePort": 1, "networkNames": ["y"]}, {"containerPort": 81, "servicePort": 2}]}});
        let two = json!({"id": "t", "ipAddresses": [{"ipAddress": "9.0.0.1"}, {"ipAddress": "9.1.0.1"}]});
        check(app.clone(), two, &["1/tcp -> 9.1.0.1 80", "2/tcp -> 9.0.0.1 81"]);
        let says = "port 0: the container has 1 addresses on 2 networks, so the one it is served at is not known";
        check(app, json!({"id": "t", "ipAddresses": [{"ipAddress": "9.0.0.1"}]}), &["2/tcp -> 9.0.0.1 81", says]);
    }

    #[test]
    fn of_two_families_ipv4_is_used_and_ipv6_alone_is_read() {
        let app = overlay(json!([{"containerPort": 80, "servicePort": 1}]));
        let both = json!({"id": "t", "ipAddresses": [{"ipAddress": "fd01::5"}, {"ipAddress": "9.0.0.5"}]});
        check(app.clone(), both, &["1/tcp -> 9.0.0.5 80"]);
        check(app, json!({"id": "t", "ipAddresses": [{"ipAddress": "fd01::5"}]}), &["1/tcp -> fd01::5 80"]);
    }

    #[test]
    fn ports_that_cannot_be_cost_only_themselves() {
        let app = json!({"id": "/a", "portDefinitions": [{"port": 1}, {"port": 2}, {"port": 3}]});
        let task = json!({"id": "t", "ports": [0, 70000, 31000]});
        let (zero, big) = ("which cannot be", "port 1: it is served at port 70000, which cannot be");
        check(app, task, &["3/tcp -> host 31000", &format!("port 0: it is served at port 0, {zero}"), big]);
        let app = json!({"id": "/a", "portDefinitions": [{"port": 1, "protocol": "sctp"}]});
        check(app, json!({"id": "t", "ports": [31000]}), &["1/ -> host 31000"]);
    }

    #[test]
    fn modes_that_are_unknown_or_mixed_are_said() {
        let app = json!({"id": "/a", "networks": [{"mode": "warp"}]});
        check(app, json!({"id": "t"}), &["error: its network mode \"warp\" is unknown, so its ports are not known"]);
        let app = json!({"id": "/a", "networks": [{"mode": "host"}, {"mode": "container"}]});
        let says = "error: its networks mix the modes \"host\" and \"container\", so its ports are not known";
        check(app, json!({"id": "t"}), &[says]);
    }
}
