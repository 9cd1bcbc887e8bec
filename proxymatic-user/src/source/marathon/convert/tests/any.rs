//! Responses of any form, near and far from those of Marathon.

use proptest::prelude::*;
use serde_json::{Value, json};

/// JSON of any form, with the names and words that the conversion uses.
pub(super) fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "",
        "/a",
        "tcp",
        "udp,tcp",
        "container",
        "container/bridge",
        "host",
        "TASK_RUNNING",
        "TASK_UNREACHABLE",
        "10.0.0.1",
        "a1.lan",
        "2020-01-01T00:00:00.000Z",
        "com.meltwater.proxymatic.port.0.weight",
        "BRIDGE",
        "USER",
        "STABLE",
        "DEGRADED",
        "192.0.2.1:80",
        "/name:80",
        "/v2/pods/a::versions/2020-01-01T00:00:00.000Z",
    ]);
    let name = prop::sample::select(vec![
        "id",
        "apps",
        "tasks",
        "networks",
        "mode",
        "name",
        "container",
        "portMappings",
        "portDefinitions",
        "port",
        "hostPort",
        "containerPort",
        "servicePort",
        "protocol",
        "networkNames",
        "labels",
        "ports",
        "ipAddresses",
        "ipAddress",
        "state",
        "host",
        "version",
        "healthChecks",
        "healthCheckResults",
        "alive",
        "versionInfo",
        "lastConfigChangeAt",
        "com.meltwater.proxymatic.port.0.weight",
        "com.meltwater.proxymatic.port.0.servicePort",
        "com.meltwater.proxymatic.servicePort",
        "VIP_0",
        "docker",
        "network",
        "ipAddress",
        "discovery",
        "number",
        "requirePorts",
        "spec",
        "instances",
        "containers",
        "endpoints",
        "conditions",
        "healthCheck",
        "healthy",
        "status",
        "specReference",
        "agentHostname",
        "allocatedHostPort",
        "addresses",
    ]);
    let number = prop_oneof![Just(0i64), Just(1), Just(31000), Just(65536), any::<i64>()];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        number.prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 128, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name.clone(), inner), 0..8)
                .prop_map(|fields| fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

/// An app in the right format with any values.
pub(super) fn any_app() -> impl Strategy<Value = Value> {
    let mapping = prop::collection::vec(any_json(), 0..3);
    let numbers = prop::collection::vec(-1i64..70_000, 0..3);
    let mode = prop::sample::select(vec!["host", "container", "container/bridge"]);
    (mode, mapping, numbers, any_json(), any_json()).prop_map(|(mode, mappings, numbers, any, other)| {
        let mapped: Vec<_> = numbers.iter().map(|port| json!({"servicePort": port, "containerPort": 1})).collect();
        let defined: Vec<_> = numbers.iter().map(|port| json!({ "port": port })).collect();
        json!({"id": "/a", "networks": [{"mode": mode}], "portDefinitions": defined,
            "container": {"portMappings": if mappings.is_empty() { mapped } else { mappings }},
            "tasks": [{"id": "t", "host": "10.0.0.1", "state": "TASK_RUNNING", "ports": numbers, "ipAddresses": any},
                other]})
    })
}

/// An app in the format of Marathon 1.4 and earlier with any values.
pub(super) fn any_legacy_app() -> impl Strategy<Value = Value> {
    let network = prop::sample::select(vec!["HOST", "BRIDGE", "USER", "NONE", "", "?"]);
    let mapping = || prop::collection::vec(any_json(), 0..3);
    let numbers = || prop::collection::vec(-1i64..70_000, 0..3);
    (network, mapping(), numbers(), numbers(), any_json(), any_json()).prop_map(
        |(network, mappings, ports, given, address, any)| {
            json!({"id": "/a", "ports": ports, "portDefinitions": any, "ipAddress": address,
                "container": {"docker": {"network": network, "portMappings": mappings}},
                "tasks": [{"id": "t", "host": "10.0.0.1", "ports": given, "ipAddresses": [{"ipAddress": "9.0.0.1"}]}]})
        },
    )
}

/// A pod in the right format with any values.
pub(super) fn any_pod() -> impl Strategy<Value = Value> {
    let labels = json!({"com.meltwater.proxymatic.servicePort": "1000", "VIP_0": "/name:80"});
    (any_json(), any_json(), any_json(), -1i64..70_000).prop_map(move |(any, other, status, port)| {
        json!({"id": "/p", "spec": {"containers": [{"name": "c", "endpoints": [
                {"name": "e", "containerPort": port, "labels": labels}, any]}, other]},
            "instances": [{"id": "p.i", "status": "STABLE", "networks": [{"addresses": ["9.0.0.1"]}],
                "containers": [{"name": "c", "status": "TASK_RUNNING", "endpoints": [{"name": "e"}, status]}]}, any]})
    })
}
