//! Responses of Marathon, and their conversion: services as text, warnings below.

mod any;
mod histories;

use std::{num::NonZeroU32, sync::Arc, time::Instant};

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

use self::any::{any_app, any_json, any_legacy_app, any_pod};
use super::*;
use crate::{
    model::{Backend, MAX_NEW, Start, State, Warning},
    source::marathon::server_clock::ServerClock,
};

fn lookups() -> Lookups {
    let app: App = serde_json::from_value(json!({"id": "/a", "version": "2020-01-01T00:00:00.000Z",
        "networks": [{"mode": "host"}], "portDefinitions": [{"port": 900}, {"port": 901}],
        "labels": {"com.meltwater.proxymatic.port.1.weight": "7"}}))
    .unwrap();
    let definitions = [
        (("/a".into(), "2020-01-01T00:00:00.000Z".into()), Ok(Arc::new(app))),
        (("/a".into(), "2019-01-01T00:00:00.000Z".into()), Err("http://h/v does not exist there".into())),
    ];
    let hosts = [("a1.lan".into(), Ok("10.0.0.1".parse().unwrap())), ("gone.lan".into(), Err("no such name".into()))];
    Lookups { definitions: definitions.into(), hosts: hosts.into(), ..Lookups::default() }
}

fn listing(apps: Value) -> Listing {
    serde_json::from_value(json!({ "apps": apps })).unwrap()
}

fn check(apps: Value, expected: Expect) {
    let snapshot = convert(&listing(apps), &lookups(), &NonZeroU32::MIN.into());
    let mut text = String::new();
    for (key, service) in &snapshot.services {
        text += &format!("{key} {}\n", service.name);
        for Backend { task, address, port, weight, maxconn, state } in &service.backends {
            let maxconn = if *maxconn == 0 { String::new() } else { format!(" maxconn {maxconn}") };
            text += &format!("  {task} {address} {port} {state:?} {}{maxconn}\n", weight.get());
        }
    }
    for Warning { app, reason } in &snapshot.warnings {
        text += &format!("{app}: {reason}\n");
    }
    expected.assert_eq(&text);
}

/// An app on the network of the host with one port and these tasks.
fn app(id: &str, port: u32, tasks: Value) -> Value {
    json!({"id": id, "version": "2020-05-01T10:00:00.000Z", "networks": [{"mode": "host"}],
        "portDefinitions": [{"port": port, "protocol": "tcp"}], "tasks": tasks})
}

fn task(id: &str, port: u32) -> Value {
    json!({"id": id, "host": "10.0.0.9", "ports": [port], "state": "TASK_RUNNING",
        "version": "2020-05-01T10:00:00.000Z"})
}

/// A value with some of its fields replaced.
fn with(mut value: Value, fields: Value) -> Value {
    value.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    value
}

/// Returns the unchecked tasks of an app with these fields, 10 s after 2020-05-01T10:00:00Z by Marathon's clock.
fn unchecked(fields: Value, tasks: Value) -> Vec<(String, Option<u64>)> {
    let read = Instant::now() + MAX_NEW;
    let clock = Some(ServerClock::read(None, 1_588_327_210_000, read));
    let listing = listing(json!([with(app("/a", 80, tasks), fields)]));
    let snapshot = convert(&listing, &Lookups { clock, ..lookups() }, &NonZeroU32::MIN.into());
    let age = |start: &Start| match start {
        Start::Unknown => None,
        Start::At(start) => Some((read - *start).as_secs()),
    };
    let unchecked = snapshot.services.values().flat_map(|it| &it.unchecked);
    unchecked.map(|(task, start)| (task.clone(), age(start))).collect()
}

#[test]
fn unchecked_task_is_listed_with_its_start_while_new() {
    let started = |id: &str, at: &str| with(task(id, 1), json!({ "startedAt": at }));
    let tasks = json!([
        started("a-old", "2020-05-01T09:59:10.000Z"),
        started("b-young", "2020-05-01T10:00:07.500Z"),
        started("c-ahead", "2020-05-01T11:00:00.000Z"),
        started("d-odd", "yesterday"),
        task("e-none", 1),
    ]);
    let young = [("b-young", Some(2)), ("c-ahead", Some(0)), ("d-odd", None), ("e-none", None)];
    let young = young.map(|(task, age)| (task.to_owned(), age));
    assert_eq!(unchecked(json!({}), tasks.clone()), young);
    assert_eq!(unchecked(json!({"healthChecks": [{}]}), tasks.clone()), []);
    let all_ready = ["a-old", "b-young", "c-ahead", "d-odd", "e-none"].map(|it| json!({"taskId": it, "ready": true}));
    let ready = json!({"readinessChecks": [{}], "readinessCheckResults": all_ready});
    assert_eq!(unchecked(ready.clone(), tasks.clone()), young, "no deployment waits for readiness");
    assert_eq!(unchecked(with(ready, json!({"deployments": [{"id": "d"}]})), tasks), []);
}

#[test]
fn tasks_of_a_deployment_warm_up_until_ready() {
    let tasks = json!([
        task("asked", 1),
        task("ready", 2),
        task("not-ready", 3),
        with(task("older", 4), json!({"version": "2020-04-30T00:00:00.000Z"}))
    ]);
    let fields = json!({"readinessChecks": [{}], "deployments": [{"id": "d"}],
        "versionInfo": {"lastConfigChangeAt": "2020-04-30T00:00:00.000Z"},
        "readinessCheckResults": [{"taskId": "ready", "ready": true}, {"taskId": "not-ready", "ready": false}]});
    let deploying = with(app("/a", 1000, tasks), fields);
    check(
        json!([deploying.clone()]),
        expect![[r#"
            1000/tcp /a
              asked 10.0.0.9 1 Warming 500
              not-ready 10.0.0.9 3 Warming 500
              older 10.0.0.9 4 Active 500
              ready 10.0.0.9 2 Active 500
        "#]],
    );
    check(
        json!([with(deploying, json!({"deployments": [], "readinessCheckResults": []}))]),
        expect![[r#"
            1000/tcp /a
              asked 10.0.0.9 1 Active 500
              not-ready 10.0.0.9 3 Active 500
              older 10.0.0.9 4 Active 500
              ready 10.0.0.9 2 Active 500
        "#]],
    );
}

#[test]
fn task_keeps_ports_and_labels_of_its_version() {
    let old = |id, version, ports: Value| with(task(id, 0), json!({"version": version, "ports": ports}));
    let tasks = json!([
        task("new", 31000),
        old("old", "2020-01-01T00:00:00.000Z", json!([31001, 31002])),
        old("older", "2019-01-01T00:00:00.000Z", json!([31003])),
    ]);
    let apps = json!([app("/a", 1000, tasks)]);
    let versions = ["2019-01-01T00:00:00.000Z", "2020-01-01T00:00:00.000Z"];
    let definitions: Vec<_> = required_lookups(&listing(apps.clone())).definitions.into_iter().collect();
    assert_eq!(definitions, versions.map(|version| ("/a".to_owned(), version.to_owned())));
    check(
        apps,
        expect![[r#"
            900/tcp /a
              old 10.0.0.9 31001 Active 500
            901/tcp /a
              old 10.0.0.9 31002 Active 7
            1000/tcp /a
              new 10.0.0.9 31000 Active 500
            /a: the definition of version 2019-01-01T00:00:00.000Z cannot be read: http://h/v does not exist there; the ports of the tasks that still run it are not known, so they get no new connections
        "#]],
    );
}

#[test]
fn version_of_a_scaled_app_is_looked_up_during_a_deployment() {
    let is_current = |changed: &str, version: &str, deployments: Value| {
        let tasks = json!([with(task("t", 1), json!({"version": version}))]);
        let more = json!({"versionInfo": {"lastConfigChangeAt": changed}, "deployments": deployments});
        required_lookups(&listing(json!([with(app("/a", 1, tasks), more)]))).definitions.is_empty()
    };
    let changed = "2020-04-30T00:00:00.000Z";
    for (version, settled, deployed) in [
        ("2020-04-30T00:00:00.000Z", true, true),
        ("2020-05-01T00:00:00.000Z", true, false),
        ("2020-05-01T10:00:00.000Z", true, true),
        ("2020-04-29T23:59:59.999Z", false, false),
        ("2020-05-02T00:00:00.000Z", false, false),
    ] {
        assert_eq!(is_current(changed, version, json!([])), settled, "{version}");
        assert_eq!(is_current(changed, version, json!([{"id": "d"}])), deployed, "{version} during a deployment");
    }
    assert!(!is_current("", "2020-04-30T00:00:00.001Z", json!([])));
}

#[test]
fn host_is_an_address_or_a_name_or_a_warning() {
    let on = |id: &str, host: &str| with(task(id, 31000), json!({"host": host}));
    let tasks = json!([
        on("a", "192.0.2.1"),
        on("b", "fd01::1"),
        on("c", "[fd01::2]"),
        on("d", "a1.lan"),
        on("e", "gone.lan"),
        on("f", ""),
        with(on("g", "ended.lan"), json!({"state": "TASK_KILLED"}))
    ]);
    let apps = json!([app("/a", 1000, tasks)]);
    assert_eq!(required_lookups(&listing(apps.clone())).hosts, ["a1.lan", "gone.lan"].map(String::from).into());
    check(
        apps,
        expect![[r#"
            1000/tcp /a
              a 192.0.2.1 31000 Active 500
              b fd01::1 31000 Active 500
              c fd01::2 31000 Active 500
              d 10.0.0.1 31000 Active 500
            e: its host "gone.lan" has no known address: no such name (app /a)
            f: its host is missing, so its address is not known (app /a)
        "#]],
    );
}

#[test]
fn apps_on_one_port_share_it_with_a_warning_unless_labelled() {
    let label = json!({"labels": {"com.meltwater.proxymatic.port.0.servicePort": 1000,
        "com.meltwater.proxymatic.port.0.weight": "50", "com.meltwater.proxymatic.port.0.maxconn": 9}});
    let canary = with(app("/web-canary", 10_007, json!([task("c1", 31001)])), label);
    let web = app("/web", 1000, json!([task("w1", 31000)]));
    check(
        json!([canary.clone(), web.clone()]),
        expect![[r#"
            1000/tcp /web
              c1 10.0.0.9 31001 Active 50 maxconn 9
              w1 10.0.0.9 31000 Active 500
        "#]],
    );
    check(
        json!([web, app("/other", 1000, json!([task("o1", 31002)])), canary]),
        expect![[r#"
            1000/tcp /other
              c1 10.0.0.9 31001 Active 50 maxconn 9
              o1 10.0.0.9 31002 Active 500
              w1 10.0.0.9 31000 Active 500
            /other: service port 1000/tcp is claimed by /other and /web; their tasks share it; if that is intended, add the label com.meltwater.proxymatic.port.<index>.servicePort=1000
        "#]],
    );
}

#[test]
fn body_without_apps_is_an_error() {
    for body in [
        "",
        "<html>",
        "[]",
        "{}",
        r#"{"apps":null}"#,
        r#"{"apps":{}}"#,
        r#"{"tasks":[]}"#,
        r#"{"apps":[]"#,
        r#"{"message":"no"}"#,
        r#"{"apps":[]} x"#,
    ] {
        assert!(parse(body.as_bytes()).is_err(), "{body}");
    }
    assert!(parse(br#"{"apps":[],"more":1}"#).is_ok());
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(listing) = parse(&bytes) {
            convert(&listing, &Lookups::default(), &NonZeroU32::MIN.into());
        }
    }

    #[test]
    fn any_json_is_converted(
        apps in prop::collection::vec(prop_oneof![any_json(), any_app(), any_legacy_app()], 0..4),
        pods in prop::collection::vec(prop_oneof![any_json(), any_pod()], 0..3),
    ) {
        let mut listing = listing(apps.into());
        listing.pods = serde_json::from_value(pods.into()).unwrap();
        required_lookups(&listing);
        let snapshot = convert(&listing, &lookups(), &NonZeroU32::MIN.into());
        for service in snapshot.services.values() {
            let identities: Vec<_> = service.backends.iter().map(|it| (&it.task, it.address, it.port)).collect();
            prop_assert!(identities.is_sorted_by(|a, b| a < b));
            prop_assert!(service.backends.iter().all(|backend| backend.port > 0));
            prop_assert!(service.backends.iter().all(|backend| backend.weight.get() > 0 || backend.state == State::Draining));
        }
        prop_assert!(snapshot.warnings.is_sorted_by(|a, b| a < b));
    }
}
