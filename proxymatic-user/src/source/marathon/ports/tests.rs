//! The endpoints of tasks by their definitions.

use serde_json::{Value, json};

use super::*;

fn check(app: Value, task: Value, expected: &[&str]) {
    let app: App = serde_json::from_value(app).unwrap();
    let task: Task = serde_json::from_value(task).unwrap();
    let got = match ports_of(&app).and_then(|ports| Ok((endpoints(&ports, &task)?, ports))) {
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
fn host_and_container_ports_are_walked_together() {
    let app = overlay(json!([
        {"containerPort": 80, "hostPort": 0, "servicePort": 10000, "protocol": "tcp"},
        {"containerPort": 81, "servicePort": 10001},
        {"containerPort": 53, "hostPort": 0, "servicePort": 10002, "protocol": "udp,tcp"},
    ]));
    let task = json!({"id": "t", "host": "a1", "ports": [31000, 31001], "ipAddresses": [{"ipAddress": "9.0.0.5"}]});
    check(app, task, &["10000/tcp -> host 31000", "10001/tcp -> 9.0.0.5 81", "10002/tcp+udp -> host 31001"]);
}

#[test]
fn each_port_definition_has_a_port_of_the_host() {
    let app = json!({"id": "/a", "networks": [{"mode": "host"}], "portDefinitions": [
        {"port": 10000, "protocol": "udp"}, {"port": 10001, "protocol": "tcp,udp"}]});
    let task = json!({"id": "t", "ports": [31000, 31001], "ipAddresses": [{"ipAddress": "10.0.0.1"}]});
    check(app, task, &["10000/udp -> host 31000", "10001/tcp+udp -> host 31001"]);
    let old = json!({"id": "/a", "portDefinitions": [{"port": 10000}]});
    check(old, json!({"id": "t", "ports": [31000]}), &["10000/tcp -> host 31000"]);
}

#[test]
fn bridge_mapping_has_a_port_of_the_host() {
    let app = json!({"id": "/a", "networks": [{"mode": "container/bridge"}], "container": {"portMappings": [
        {"containerPort": 80, "hostPort": 0, "servicePort": 10000}, {"containerPort": 81, "servicePort": 10001}]}});
    let task = json!({"id": "t", "ports": [31000, 31001], "ipAddresses": [{"ipAddress": "172.17.0.4"}]});
    check(app, task, &["10000/tcp -> host 31000", "10001/tcp -> host 31001"]);
}

#[test]
fn container_without_an_address_has_no_endpoint() {
    let app = overlay(json!([
        {"containerPort": 80, "servicePort": 10000}, {"containerPort": 81, "hostPort": 81, "servicePort": 10001}]));
    check(app, json!({"id": "t", "ports": [31000], "ipAddresses": []}), &["10001/tcp -> host 31000"]);
}

#[test]
fn different_numbers_of_ports_are_an_error() {
    let error = "error: has 1 ports of its host, but its definition has 0; none of them is used, because any choice would be \
                 a guess";
    check(overlay(json!([{"containerPort": 80}])), json!({"id": "t", "ports": [31000]}), &[error]);
    let error = "error: has 0 ports of its host, but its definition has 1; none of them is used, because any choice would be \
                 a guess";
    check(json!({"id": "/a", "portDefinitions": [{"port": 1}]}), json!({"id": "t"}), &[error]);
}

#[test]
fn port_names_its_network_if_there_are_several() {
    let app = json!({"id": "/a", "networks": [{"mode": "container", "name": "x"}, {"mode": "container", "name": "y"}],
        "container": {"portMappings": [
            {"containerPort": 80, "servicePort": 1, "networkNames": ["y"]}, {"containerPort": 81, "servicePort": 2}]}});
    let two = json!({"id": "t", "ipAddresses": [{"ipAddress": "9.0.0.1"}, {"ipAddress": "9.1.0.1"}]});
    check(app.clone(), two, &["1/tcp -> 9.1.0.1 80", "2/tcp -> 9.0.0.1 81"]);
    let expected = "port 0: the container has 1 addresses on 2 networks, so its address is not known";
    check(app, json!({"id": "t", "ipAddresses": [{"ipAddress": "9.0.0.1"}]}), &["2/tcp -> 9.0.0.1 81", expected]);
}

#[test]
fn ipv4_is_preferred_and_ipv6_alone_is_used() {
    let app = overlay(json!([{"containerPort": 80, "servicePort": 1}]));
    let both = json!({"id": "t", "ipAddresses": [{"ipAddress": "fd01::5"}, {"ipAddress": "9.0.0.5"}]});
    check(app.clone(), both, &["1/tcp -> 9.0.0.5 80"]);
    check(app, json!({"id": "t", "ipAddresses": [{"ipAddress": "fd01::5"}]}), &["1/tcp -> fd01::5 80"]);
}

#[test]
fn impossible_port_costs_only_itself() {
    let app = json!({"id": "/a", "portDefinitions": [{"port": 1}, {"port": 2}, {"port": 3}]});
    let task = json!({"id": "t", "ports": [0, 70000, 31000]});
    let (zero, big) = ("is not from 1 to 65535", "port 1: its port 70000 is not from 1 to 65535");
    check(app, task, &["3/tcp -> host 31000", &format!("port 0: its port 0 {zero}"), big]);
    let app = json!({"id": "/a", "portDefinitions": [{"port": 1, "protocol": "sctp"}]});
    check(app, json!({"id": "t", "ports": [31000]}), &["1/ -> host 31000"]);
}

#[test]
fn unknown_or_mixed_modes_are_an_error() {
    let app = json!({"id": "/a", "networks": [{"mode": "warp"}]});
    check(app, json!({"id": "t"}), &["error: its network mode \"warp\" is unknown, so its ports are not known"]);
    let app = json!({"id": "/a", "networks": [{"mode": "host"}, {"mode": "container"}]});
    let expected = "error: its networks mix the modes \"host\" and \"container\", so its ports are not known";
    check(app, json!({"id": "t"}), &[expected]);
}
