//! The control commands over HTTP.

use serde_json::{Value, json};

use super::{client, command, fetch, get, response, start};

#[tokio::test]
async fn commands_take_an_app_from_creation_to_deletion() {
    let sim = start().await;
    let short = json!({"id": "/shop/web", "servicePort": 1234, "protocol": "tcp", "mode": "host",
        "tasks": [{"host": "10.0.0.1", "port": 8001}], "healthChecks": false, "labels": {"a": "b"}});
    let (status, made) = command(&sim, "/sim/apps", short).await;
    assert_eq!((status, made["tasks"].as_array().unwrap().len()), (200, 1));
    let (_, more) = command(&sim, "/sim/tasks", json!({"app": "/shop/web", "host": "10.0.0.2", "port": 8002})).await;
    let task = more["task"].as_str().unwrap();
    command(&sim, "/sim/state", json!({"task": task, "state": "TASK_KILLING"})).await;
    let (_, tasks) = fetch(&sim, "/v2/tasks").await;
    assert_eq!([&tasks["tasks"][0]["state"], &tasks["tasks"][1]["state"]], ["TASK_RUNNING", "TASK_KILLING"]);

    let two = json!([{"host": "b", "port": 1}, {"host": "c", "port": 2}]);
    let (_, list) = command(&sim, "/sim/tasks", json!({"app": "/shop/web", "tasks": two})).await;
    assert_eq!(list["tasks"].as_array().unwrap().len(), 2);
    let (_, new) = command(&sim, "/sim/replace", json!({"app": "/shop/web", "tasks": two})).await;
    let (_, state) = fetch(&sim, "/sim/state").await;
    let ids: Vec<&Value> = state["apps"][0]["tasks"].as_array().unwrap().iter().map(|task| &task["id"]).collect();
    assert_eq!(json!(ids), new["tasks"]);

    let (_, version) = command(&sim, "/sim/app/update", json!({"app": {"id": "/shop/web", "cpus": 2}})).await;
    assert_eq!(fetch(&sim, "/v2/apps/shop/web").await.1["app"]["version"], version["version"]);
    assert_eq!(command(&sim, "/sim/leader", json!({})).await.1["leader"], "marathon-2.sim:8080");
    assert_eq!(command(&sim, "/sim/app/delete", json!({"id": "/shop/web"})).await, (200, json!({})));
    assert_eq!(fetch(&sim, "/v2/apps").await.1, json!({"apps": []}));
}

#[tokio::test]
async fn full_form_accepts_marathon_json_and_tasks() {
    let sim = start().await;
    let app = json!({"id": "/two", "portDefinitions": [{"port": 53, "protocol": "udp,tcp"}, {"port": 80}],
        "healthChecks": [{"protocol": "HTTP"}]});
    let tasks = json!([{"host": "a", "ports": [1, 2]}, {"host": "b", "ports": [3, 4], "alive": false}]);
    command(&sim, "/sim/apps", json!({"app": app, "tasks": tasks, "alive": null})).await;
    let (_, shown) = fetch(&sim, "/v2/apps/two").await;
    let tasks = &shown["app"]["tasks"];
    assert_eq!(tasks[0]["healthCheckResults"], json!([]));
    assert_eq!((&tasks[1]["ports"], &tasks[1]["healthCheckResults"][0]["alive"]), (&json!([3, 4]), &json!(false)));
    assert_eq!(command(&sim, "/sim/health", json!({"app": "/two", "alive": true})).await.0, 200);
    assert_eq!(fetch(&sim, "/v2/apps/two").await.1["app"]["tasksHealthy"], 2);
}

#[tokio::test]
async fn wrong_command_is_refused_with_the_accepted_form() {
    let sim = start().await;
    command(&sim, "/sim/apps", json!({"id": "/a", "tasks": [{"host": "h", "port": 1}]})).await;
    let id = sim.state()["apps"][0]["tasks"][0]["id"].clone();
    for (path, body, words) in [
        ("/sim/apps", json!({"id": "/b", "servicePor": 1}), ["servicePor", "servicePort"]),
        ("/sim/apps", json!({"id": "/b", "mode": "bridge"}), ["bridge", "container/bridge"]),
        ("/sim/apps", json!({"id": "/b", "tasks": [{"host": "h", "port": 1, "ports": [1]}]}), ["either", "not both"]),
        ("/sim/apps", json!([]), ["/sim/apps", "object"]),
        ("/sim/tasks", json!({"host": "h", "port": 1}), ["string", "\"app\""]),
        ("/sim/tasks", json!({"app": "/nope", "host": "h", "port": 1}), ["/nope", "POST /sim/apps"]),
        ("/sim/tasks", json!({"app": "/a", "host": "h", "ports": [1, 2]}), ["1 host port", "2 were"]),
        (
            "/sim/tasks",
            json!({"app": "/a", "host": "h", "port": 1, "state": "TASK_LOST"}),
            ["new task", "TASK_STAGING"],
        ),
        ("/sim/state", json!({"task": id, "state": "RUNNING"}), ["RUNNING", "TASK_UNREACHABLE"]),
        ("/sim/state", json!({"task": "x", "state": "TASK_LOST"}), ["\"x\"", "GET /sim/state"]),
        ("/sim/health", json!({"task": id}), ["alive", "null"]),
        ("/sim/health", json!({"alive": true}), ["task", "app"]),
        ("/sim/readiness", json!({"task": id, "ready": true}), ["readinessChecks", "full form"]),
        ("/sim/app/delete", json!({"app": "/a"}), ["app", "id"]),
        ("/sim/streams/close", json!({"all": true}), ["all", "{}"]),
        ("/sim/nonsense", json!({}), ["nonsense", "app/update"]),
    ] {
        let (status, answer) = command(&sim, path, body.clone()).await;
        let sentence = answer["message"].as_str().unwrap();
        assert!(status == 400 && words.iter().all(|word| sentence.contains(word)), "{path} {body}: {sentence}");
    }
    let not_json = client().build().unwrap().post(format!("{}/sim/apps", sim.url())).body("{").send().await.unwrap();
    assert_eq!(not_json.status(), 400);
}

#[tokio::test]
async fn log_holds_the_latest_client_requests() {
    let sim = start().await;
    get(&sim, "/v2/apps?embed=apps.tasks").header("Accept", "application/json").send().await.unwrap();
    let (_, log) = fetch(&sim, "/sim/log").await;
    assert_eq!(
        log,
        json!([{"method": "GET", "path": "/v2/apps", "query": "embed=apps.tasks", "accept": "application/json",
            "authorization": null, "node": sim.addr}])
    );
    let client = client().build().unwrap();
    for _ in 0..1005 {
        client.get(format!("{}/ping", sim.url())).send().await.unwrap();
    }
    let log = sim.log();
    assert_eq!((log.len(), &log[0].path[..]), (1000, "/ping"));
    client.delete(format!("{}/sim/log", sim.url())).send().await.unwrap();
    assert_eq!(sim.log(), []);
}

#[tokio::test]
async fn guard_and_delivery_are_set_by_commands() {
    let sim = start().await;
    let lets_in = async || response(&sim, "/v2/apps").await.status().as_u16();
    for (guard, status) in
        [(json!({"basic": "me:secret"}), 401), (json!({"account": {"uid": "a"}}), 401), (json!("open"), 200)]
    {
        assert_eq!(command(&sim, "/sim/guard", json!({"guard": guard})).await.0, 200);
        assert_eq!(lets_in().await, status, "{guard}");
    }
    assert_eq!(command(&sim, "/sim/delivery", json!({"lost": true, "pieces": 3})).await.0, 200);
    assert_eq!(command(&sim, "/sim/delivery", json!({"strange": true, "outstanding": 0})).await.0, 200);
    assert_eq!(command(&sim, "/sim/delivery", json!({"lots": true})).await.0, 400);
    assert_eq!(command(&sim, "/sim/root", json!({"held": true})).await.0, 200);
    command(&sim, "/sim/apps", json!({"id": "/a", "servicePort": 1})).await;
    assert_eq!(command(&sim, "/sim/leader", json!({"seconds": 3600, "code": 503})).await.0, 200);
    assert_eq!(lets_in().await, 503);
    assert_eq!(command(&sim, "/sim/leader", json!({"seconds": 0})).await.0, 200);
    assert_eq!(lets_in().await, 200);
    assert_eq!(fetch(&sim, "/v2/apps").await.1, json!({"apps": []}));
    assert_eq!(command(&sim, "/sim/root", json!({"held": false})).await.0, 200);
    assert_eq!(fetch(&sim, "/v2/apps").await.1["apps"][0]["id"], "/a");
    assert_eq!(command(&sim, "/sim/root", json!({})).await.0, 400);
}
