//! Differences of earlier Marathons, field by field.

use serde_json::{Value, json};
use tokio::time::timeout;

use super::super::{Dialect, Mode, Options, Place, PodPlace, ShortApp, Sim};
use super::{SOON, client, command, fetch};

async fn speaking(dialect: Dialect) -> Sim {
    let sim = Sim::start_with(Options { dialect, ..Options::default() }).await.unwrap();
    sim.create(ShortApp::new("/b", 1001).mode(Mode::Bridge).checked().task("a1", 31000)).unwrap();
    let own = Place::new("a2", 80).ip([9, 0, 0, 5].into());
    sim.create(ShortApp::new("/c", 1002).mode(Mode::Container).place(own)).unwrap();
    sim.create(ShortApp::new("/h", 1003).task("a3", 31001)).unwrap();
    sim
}

/// Returns the apps by id.
async fn apps(sim: &Sim) -> Vec<Value> {
    fetch(sim, "/v2/apps?embed=apps.tasks").await.1["apps"].as_array().unwrap().clone()
}

#[tokio::test]
async fn networks_before_1_5_are_in_docker_form() {
    for dialect in [Dialect::D13, Dialect::D14] {
        let sim = speaking(dialect).await;
        let [bridge, container, host] = &apps(&sim).await[..] else { panic!() };
        let docker = &bridge["container"]["docker"];
        assert_eq!((&docker["network"], &docker["portMappings"][0]["servicePort"]), (&json!("BRIDGE"), &json!(1001)));
        assert_eq!((&bridge["ports"], &bridge["portDefinitions"][0]["port"]), (&json!([1001]), &json!(1001)));
        let docker = &container["container"]["docker"];
        assert_eq!((&docker["network"], &docker["portMappings"][0]["hostPort"]), (&json!("USER"), &Value::Null));
        assert_eq!(container["ipAddress"]["networkName"], "dcos");
        assert_eq!(container.get("ports"), None);
        assert_eq!((&host["ports"], &host["container"]), (&json!([1003]), &Value::Null));
        for app in [bridge, container, host] {
            assert!(app.get("networks").is_none() && app["args"].is_null() && app.get("role").is_none(), "{app}");
        }
    }
}

#[tokio::test]
async fn tasks_and_health_results_use_old_names() {
    for (dialect, id, of) in [
        (Dialect::D13, "b.0", "taskId"),
        (Dialect::D14, "b.0", "instanceId"),
        (Dialect::D15, "b.0", "instanceId"),
        (Dialect::D18, "b.instance-0", "instanceId"),
    ] {
        let sim = speaking(dialect).await;
        let apps = apps(&sim).await;
        let task = &apps[0]["tasks"][0];
        assert!(task["id"].as_str().unwrap().starts_with(id), "{task}");
        let result = &task["healthCheckResults"][0];
        assert!(result["alive"] == json!(true) && result[of].is_string(), "{result}");
        assert_eq!(apps[2]["tasks"][0].get("healthCheckResults").is_none(), dialect < Dialect::D18);
        let (_, info) = fetch(&sim, "/v2/info").await;
        assert_eq!(info["version"], dialect.version());
    }
}

#[tokio::test]
async fn dialect_change_adds_pods() {
    let sim = speaking(Dialect::D13).await;
    assert_eq!(super::response(&sim, "/v2/pods/::status").await.status(), 404);
    let (status, _) = command(&sim, "/sim/dialect", json!({"dialect": "1.8"})).await;
    assert_eq!(status, 200);
    assert_eq!(apps(&sim).await[0]["networks"], json!([{"mode": "container/bridge"}]));
    assert_eq!(fetch(&sim, "/v2/pods/::status").await.1, json!([]));
    let (status, refused) = command(&sim, "/sim/dialect", json!({"dialect": "2.0"})).await;
    assert!(status == 400 && refused["message"].as_str().unwrap().contains("1.4"), "{refused}");
}

#[tokio::test]
async fn pods_have_a_status_and_versions() {
    let sim = Sim::start().await.unwrap();
    let spec = json!({"id": "/p", "networks": [{"mode": "container", "name": "ov"}], "containers": [
        {"name": "c", "healthCheck": {"tcp": {"endpoint": "e"}}, "endpoints": [
            {"name": "e", "containerPort": 80, "hostPort": 0}, {"name": "f", "containerPort": 81}]}]});
    let place = PodPlace { host: "a1".into(), ip: [9, 0, 1, 2].into(), ports: None };
    let id = sim.create_pod(spec, &[place]).unwrap().remove(0);
    let (_, all) = fetch(&sim, "/v2/pods/::status").await;
    let instance = &all[0]["instances"][0];
    assert_eq!((&all[0]["status"], &instance["status"]), (&json!("STABLE"), &json!("STABLE")));
    assert_eq!(instance["networks"], json!([{"name": "ov", "addresses": ["9.0.1.2"]}]));
    let endpoints = json!([{"name": "e", "allocatedHostPort": 31000, "healthy": true}, {"name": "f"}]);
    assert_eq!(instance["containers"][0]["endpoints"], endpoints);
    let (status, spec) = fetch(&sim, instance["specReference"].as_str().unwrap()).await;
    assert_eq!((status, &spec["version"]), (200, &all[0]["spec"]["version"]));
    sim.change_leader(None);
    let (_, one) = fetch(&sim, "/v2/pods/p::status").await;
    let container = &one["instances"][0]["containers"][0];
    assert_eq!(one["instances"][0]["status"], "DEGRADED");
    assert_eq!(container["conditions"][0]["reason"], "health-unreported-by-mesos");
    let terminal = json!({"instance": id, "container": "c", "state": "TASK_FAILED"});
    assert_eq!(command(&sim, "/sim/pods/state", terminal).await.0, 200);
    assert_eq!(fetch(&sim, "/v2/pods/p::status").await.1["instances"][0]["containers"][0]["endpoints"], json!([]));
    assert_eq!(command(&sim, "/sim/pods/delete", json!({"id": "/p"})).await.0, 200);
    assert_eq!(super::response(&sim, "/v2/pods/p").await.status(), 404);
}

#[tokio::test]
async fn standby_proxies_the_stream_up_to_1_6_and_redirects_later() {
    for dialect in Dialect::ALL {
        let sim = speaking(dialect).await;
        let standby = sim.node().await.unwrap();
        let http = client().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        let events = http.get(format!("{}/v2/events", standby.url())).header("Accept", "text/event-stream");
        let mut answer = events.send().await.unwrap();
        if dialect == Dialect::D18 {
            assert_eq!(answer.status(), 302);
            assert_eq!(answer.headers()["location"], format!("{}/v2/events", sim.url()));
            continue;
        }
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["x-marathon-via"], format!("1.1 {}", standby.addr));
        let mut read = String::new();
        while !read.contains("event_stream_attached") {
            let bytes = timeout(SOON, answer.chunk()).await.expect("silence").unwrap().expect("the stream ended");
            read.push_str(std::str::from_utf8(&bytes).unwrap());
        }
    }
}

#[tokio::test]
async fn unknown_path_is_a_server_error_since_1_9() {
    for (dialect, status) in [(Dialect::D15, 404), (Dialect::D18, 500)] {
        let sim = speaking(dialect).await;
        assert_eq!(super::get(&sim, "/v3/quantum").send().await.unwrap().status(), status);
    }
}
