//! The conversion of Marathon's responses. Each test covers one part of the API: the formats of an app, tasks, addresses,
//! pods, health, and known failures of other programs. Each row of a test has the name of one case.

#![expect(clippy::print_stdout, reason = "the name of the row that fails; the harness shows it only then")]

mod claims;
mod failures;
mod fields;
mod labels;
mod networks;
mod ownership;
mod pods;
mod shapes;
mod traffic;
mod vips;

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU32, sync::Arc};

use expect_test::Expect;
use proxymatic_user::{
    model::{Backend, Snapshot, Warning},
    source::marathon::{
        ClaimRules,
        api::Listing,
        convert,
        lookups::{Lookups, Options},
    },
};
use serde_json::{Value, json};

/// One row: its name, the apps, and their conversion.
type Row = (&'static str, Value, Expect);

/// Options under which every virtual address is served.
fn options() -> Options {
    let vip_networks = ["0.0.0.0/0", "::/0"].map(|it| it.parse().expect("a network")).into();
    let claims = Arc::new(ClaimRules { vip_networks, vip_names: true, ..ClaimRules::default() });
    Options { claims, ..NonZeroU32::MIN.into() }
}

/// Converts a response with these apps and pods. The host `a1.lan` is 10.0.0.1, and no other name is known.
fn snapshot(apps: Value, pods: Value, options: &Options) -> Snapshot {
    let mut listing: Listing = convert::parse(json!({ "apps": apps }).to_string().as_bytes()).expect("a listing");
    listing.pods = convert::parse_pods(pods.to_string().as_bytes()).expect("a list of pods");
    let required = convert::required_lookups(&listing);
    let address = |name: &str| match name {
        "a1.lan" => Ok(IpAddr::from([10, 0, 0, 1])),
        _ => Err("no such name".to_owned()),
    };
    let hosts = required.hosts.iter().map(|name| (name.clone(), address(name))).collect();
    let missing = || Err("http://m/v does not exist there".to_owned());
    let definitions = required.definitions.into_iter().map(|key| (key, missing())).collect();
    let pods =
        required.pods.into_iter().map(|key| (key.clone(), earlier_pod(&key.1).map(Arc::new).ok_or("gone".into())));
    let pods = pods.collect::<BTreeMap<_, _>>();
    convert::convert(&listing, &Lookups { definitions, pods, hosts, ..Lookups::default() }, options)
}

/// Returns the only earlier definition of a pod.
fn earlier_pod(version: &str) -> Option<proxymatic_user::source::marathon::api::Pod> {
    let labels = json!({"com.meltwater.proxymatic.servicePort": "700"});
    let endpoints = json!([{"name": "old", "containerPort": 7, "labels": labels}]);
    let pod = json!({"containers": [{"name": "c1", "endpoints": endpoints}], "version": version});
    (version == "2019-01-01T00:00:00.000Z").then(|| serde_json::from_value(pod).expect("a pod"))
}

/// Returns services and their backends as text, with the warnings below.
fn text(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    for (key, service) in &snapshot.services {
        text += &format!("{key} {}\n", service.name);
        for Backend { task, address, port, weight, maxconn, state } in &service.backends {
            let weight = if weight.get() == 500 { String::new() } else { format!(" weight {}", weight.get()) };
            let maxconn = if *maxconn == 0 { String::new() } else { format!(" maxconn {maxconn}") };
            text += &format!("  {task} {address} {port} {state:?}{weight}{maxconn}\n");
        }
    }
    for Warning { app, reason } in &snapshot.warnings {
        text += &format!("{app}: {reason}\n");
    }
    text
}

fn check(rows: Vec<Row>) {
    for (name, apps, expected) in rows {
        println!("row: {name}");
        expected.assert_eq(&text(&snapshot(apps, json!([]), &options())));
    }
}

/// A value with some of its fields replaced.
fn with(mut value: Value, fields: Value) -> Value {
    let fields = fields.as_object().expect("an object").clone();
    value.as_object_mut().expect("an object").extend(fields);
    value
}

/// A task that runs on 10.0.0.9.
fn task(id: &str, ports: &[u16]) -> Value {
    json!({"id": id, "host": "10.0.0.9", "ports": ports, "state": "TASK_RUNNING"})
}

/// An app on the network of its hosts with one service port.
fn app(id: &str, port: u16, tasks: Value) -> Value {
    json!({"id": id, "networks": [{"mode": "host"}], "portDefinitions": [{"port": port, "protocol": "tcp"}],
        "tasks": tasks})
}
