//! The cluster without I/O: apps, ports and versions in listings.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::super::view;
use super::super::{Cluster, Dialect, Mode, Place, ShortApp, TaskState, Timestamp};
use super::told_as;

pub(super) fn cluster() -> Cluster {
    Cluster::new("m1.sim:8080")
}

pub(super) fn create(cluster: &mut Cluster, app: ShortApp) -> Vec<String> {
    let (definition, places) = app.expand();
    cluster.create(definition, &places).unwrap()
}

pub(super) fn web() -> ShortApp {
    ShortApp::new("/shop/web", 1234).task("10.0.0.1", 8001)
}

/// The app as `/v2/apps/{id}` shows it.
pub(super) fn app(cluster: &Cluster, id: &str) -> Value {
    serde_json::to_value(view::app(Dialect::D18, id, cluster.app(id).unwrap())).unwrap()["app"].take()
}

pub(super) fn told(cluster: &mut Cluster) -> Vec<String> {
    cluster.take_events().iter().map(|event| told_as(event.kind, &event.data)).collect()
}

#[test]
fn app_is_shown_with_defaults_counts_and_tasks() {
    let mut cluster = cluster();
    let tasks = create(&mut cluster, web().checked().label("team", "shop"));
    let app = app(&cluster, "/shop/web");
    assert_eq!(app["networks"], json!([{"mode": "host"}]));
    assert_eq!(app["portDefinitions"], json!([{"port": 1234, "protocol": "tcp", "name": "default"}]));
    assert_eq!(app["instances"], 1);
    assert_eq!(app["requirePorts"], false);
    assert_eq!(app["labels"], json!({"team": "shop"}));
    assert_eq!(app["healthChecks"][0]["intervalSeconds"], 60);
    assert_eq!([&app["tasksRunning"], &app["tasksHealthy"], &app["tasksUnhealthy"], &app["tasksStaged"]], [1, 1, 0, 0]);
    let task = &app["tasks"][0];
    assert_eq!(task["id"], json!(tasks[0]));
    assert!(tasks[0].starts_with("shop_web.instance-") && tasks[0].ends_with("._app.1"), "{}", tasks[0]);
    assert_eq!(task["appId"], "/shop/web");
    assert_eq!(task["ports"], json!([8001]));
    assert_eq!(task["servicePorts"], json!([]));
    assert_eq!(task["state"], "TASK_RUNNING");
    assert_eq!(task["version"], app["version"]);
    assert_eq!(task["healthCheckResults"][0]["alive"], true);
    assert_eq!(task["ipAddresses"], json!([{"ipAddress": "10.0.0.1", "protocol": "IPv4"}]));
}

#[test]
fn task_list_alone_has_service_ports_of_the_current_app() {
    let mut cluster = cluster();
    create(&mut cluster, web());
    cluster.update(json!({"id": "/shop/web", "portDefinitions": [{"port": 4321}]})).unwrap();
    let tasks = serde_json::to_value(view::tasks(&cluster, view::Status::default())).unwrap();
    assert_eq!(tasks["tasks"][0]["servicePorts"], json!([4321]));
    assert_eq!(app(&cluster, "/shop/web")["tasks"][0]["servicePorts"], json!([]));
}

#[test]
fn task_list_filters_by_status() {
    let mut cluster = cluster();
    create(&mut cluster, web().place(Place::new("b", 1).state(TaskState::TaskStaging)));
    for (running, staging, ports) in
        [(false, false, vec![8001, 1]), (true, false, vec![8001]), (false, true, vec![1]), (true, true, vec![8001, 1])]
    {
        let tasks = serde_json::to_value(view::tasks(&cluster, view::Status { running, staging })).unwrap();
        let shown: Vec<&Value> = tasks["tasks"].as_array().unwrap().iter().map(|task| &task["ports"][0]).collect();
        assert_eq!(shown, ports, "running {running}, staging {staging}");
    }
}

#[test]
fn service_port_zero_is_assigned_once_for_all_versions() {
    let mut cluster = cluster();
    for id in ["/a", "/b"] {
        create(&mut cluster, ShortApp::new(id, 0));
    }
    assert_eq!(app(&cluster, "/a")["portDefinitions"][0]["port"], 10_000);
    assert_eq!(app(&cluster, "/b")["portDefinitions"][0]["port"], 10_001);
    let two = json!([{"port": 0, "name": "x"}, {"port": 0, "name": "y"}]);
    cluster.update(json!({"id": "/a", "portDefinitions": two})).unwrap();
    let ports = app(&cluster, "/a")["portDefinitions"].take();
    assert_eq!([&ports[0]["port"], &ports[1]["port"]], [10_000, 10_002]);
}

#[test]
fn explicit_service_ports_may_collide() {
    let mut cluster = cluster();
    for id in ["/a", "/b"] {
        create(&mut cluster, ShortApp::new(id, 1234));
    }
    assert_eq!(app(&cluster, "/b")["portDefinitions"][0]["port"], 1234);
}

#[test]
fn task_ports_belong_to_mappings_with_a_host_port() {
    let mut cluster = cluster();
    let definition = json!({"id": "/mixed", "networks": [{"mode": "container", "name": "ov"}], "container": {
        "type": "DOCKER", "portMappings": [
            {"containerPort": 80, "hostPort": 0},
            {"containerPort": 81},
            {"containerPort": 53, "hostPort": 0, "protocol": "tcp,udp"}]}});
    let place = Place::with_ports("a7.lan", &[31_000, 31_001]).ip("9.0.0.5".parse().unwrap());
    cluster.create(definition, &[place, Place::new("a8.lan", 1)]).expect_err("two host ports, one given");
    assert!(cluster.app("/mixed").is_none(), "a refused command changes nothing");

    let definition = json!({"id": "/mixed", "networks": [{"mode": "container", "name": "ov"}], "container": {
        "type": "DOCKER", "portMappings": [
            {"containerPort": 80, "hostPort": 0},
            {"containerPort": 81},
            {"containerPort": 53, "hostPort": 0, "protocol": "tcp,udp"}]}});
    let place = Place::with_ports("a7.lan", &[31_000, 31_001]).ip("9.0.0.5".parse().unwrap());
    cluster.create(definition, &[place]).unwrap();
    let app = app(&cluster, "/mixed");
    let mappings = &app["container"]["portMappings"];
    assert_eq!(
        [&mappings[0]["servicePort"], &mappings[1]["servicePort"], &mappings[2]["servicePort"]],
        [10_000, 10_001, 10_002]
    );
    assert_eq!([mappings[0].get("hostPort"), mappings[1].get("hostPort")], [Some(&json!(0)), None]);
    assert_eq!(mappings[2]["protocol"], "udp,tcp");
    assert_eq!(app.get("portDefinitions"), None);
    assert_eq!(app["tasks"][0]["ports"], json!([31_000, 31_001]));
    assert_eq!(app["tasks"][0]["ipAddresses"], json!([{"ipAddress": "9.0.0.5", "protocol": "IPv4"}]));
}

#[test]
fn short_form_supports_bridge_and_container_mode() {
    let mut cluster = cluster();
    create(&mut cluster, ShortApp::new("/bridge", 1).mode(Mode::Bridge).protocol("udp").task("10.0.0.1", 31_005));
    let bridge = app(&cluster, "/bridge");
    assert_eq!(
        bridge["container"]["portMappings"],
        json!([{"containerPort": 80, "hostPort": 0, "servicePort": 1, "protocol": "udp", "name": "default", "labels": {}}])
    );
    assert_eq!(bridge["tasks"][0]["ports"], json!([31_005]));
    assert!(bridge["tasks"][0]["ipAddresses"][0]["ipAddress"].as_str().unwrap().starts_with("172.17."));

    create(&mut cluster, ShortApp::new("/own", 2).mode(Mode::Container).task("fd00::5", 8001));
    let own = app(&cluster, "/own");
    assert_eq!(
        own["container"]["portMappings"],
        json!([{"containerPort": 8001, "servicePort": 2, "protocol": "tcp", "name": "default", "labels": {}}])
    );
    assert_eq!(own["tasks"][0]["ports"], json!([]));
    assert_eq!(own["tasks"][0]["ipAddresses"], json!([{"ipAddress": "fd00::5", "protocol": "IPv6"}]));
    let wrong = cluster.launch("/own", &[Place::new("fd00::6", 8002)]).unwrap_err();
    assert!(wrong.to_string().contains("8001"), "{wrong}");
}

#[test]
fn host_ports_not_given_come_from_offers_or_the_app() {
    let mut cluster = cluster();
    let place = Place { host: "a".into(), ..Place::default() };
    create(&mut cluster, ShortApp::new("/a", 1).place(place.clone()).place(place.clone()));
    let tasks = app(&cluster, "/a")["tasks"].take();
    assert_eq!([&tasks[0]["ports"], &tasks[1]["ports"]], [&json!([31_000]), &json!([31_001])]);

    cluster.create(json!({"id": "/b", "requirePorts": true, "portDefinitions": [{"port": 80}]}), &[place]).unwrap();
    assert_eq!(app(&cluster, "/b")["tasks"][0]["ports"], json!([80]));
}

#[test]
fn update_makes_a_version_that_no_old_task_has() {
    let mut cluster = cluster();
    create(&mut cluster, web());
    let before = app(&cluster, "/shop/web");
    let version = cluster.update(json!({"id": "/shop/web", "labels": {"new": "yes"}})).unwrap();
    let after = app(&cluster, "/shop/web");
    assert_eq!(after["version"], json!(version));
    assert_eq!(after["tasks"][0]["version"], before["version"]);
    assert_ne!(after["version"], before["version"]);

    let app = cluster.app("/shop/web").unwrap();
    let names = serde_json::to_value(view::versions(app)).unwrap();
    assert_eq!(names["versions"], json!([after["version"], before["version"]]));
    let old = view::version(Dialect::D18, app, before["version"].as_str().unwrap()).unwrap();
    assert_eq!((&old["labels"], old.get("tasks"), old.get("tasksRunning")), (&json!({}), None, None));
}

#[test]
fn scaling_makes_a_version_but_no_new_configuration() {
    let mut cluster = cluster();
    create(&mut cluster, web());
    let before = app(&cluster, "/shop/web");
    let id = cluster.launch("/shop/web", &[Place::new("10.0.0.2", 8002)]).unwrap().remove(0);
    let after = app(&cluster, "/shop/web");
    assert_eq!(after["instances"], 2);
    assert_ne!(after["version"], before["version"]);
    assert_eq!(after["versionInfo"]["lastConfigChangeAt"], before["versionInfo"]["lastConfigChangeAt"]);
    assert_eq!(after["versionInfo"]["lastScalingAt"], after["version"]);
    assert_eq!(after["tasks"][1]["id"], json!(id));
    assert_eq!(after["tasks"][1]["version"], after["version"]);
}

#[test]
fn fifty_old_versions_are_kept_and_those_that_tasks_run() {
    let mut cluster = cluster();
    create(&mut cluster, web());
    let first = app(&cluster, "/shop/web")["version"].take();
    let second = cluster.update(json!({"id": "/shop/web"})).unwrap();
    for _ in 0..100 {
        cluster.update(json!({"id": "/shop/web"})).unwrap();
    }
    let app = cluster.app("/shop/web").unwrap();
    assert_eq!(app.versions().len(), 51);
    assert!(view::version(Dialect::D18, app, first.as_str().unwrap()).is_some());
    assert!(view::version(Dialect::D18, app, &second.to_string()).is_none());
}

#[test]
fn versions_grow_even_if_the_clock_goes_back() {
    let mut cluster = cluster();
    let mut seen = BTreeSet::new();
    for millis in [5, 1_600_000_000_000, 1_600_000_000_000, 7] {
        cluster.tick(Timestamp::from_millis(millis));
        create(&mut cluster, web());
        let version = cluster.app("/shop/web").unwrap().current().stamp;
        assert!(seen.last().is_none_or(|last| *last < version));
        seen.insert(version);
    }
}

#[test]
fn invalid_app_is_refused_with_the_expected_form() {
    for (definition, word) in [
        (json!("web"), "JSON object"),
        (json!({"id": "web"}), "absolute path"),
        (json!({"id": "/Web"}), "absolute path"),
        (json!({"id": "/a//b"}), "absolute path"),
        (json!({"id": "/a/tasks"}), "versions"),
        (json!({"id": "/a", "ports": [1]}), "portDefinitions"),
        (json!({"id": "/a", "container": 7}), "object"),
        (json!({"id": "/a", "networks": [{"mode": "host"}, {"mode": "container"}]}), "container/bridge"),
        (json!({"id": "/a", "networks": [{"mode": "weird"}]}), "container/bridge"),
        (json!({"id": "/a", "portDefinitions": [{"port": 70_000}]}), "u16"),
        (json!({"id": "/a", "portDefinitions": [{"protocol": "sctp"}]}), "udp,tcp"),
        (json!({"id": "/a", "container": {"portMappings": [{}]}}), "portDefinitions only"),
        (json!({"id": "/a", "healthChecks": {}}), "array"),
    ] {
        let wrong = cluster().create(definition.clone(), &[]).unwrap_err();
        assert!(wrong.to_string().contains(word), "{definition}: {wrong}");
    }
    cluster().create(json!({"id": "/a", "container": null, "portDefinitions": []}), &[]).unwrap();
}
