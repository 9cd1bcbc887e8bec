//! The cluster without I/O: how tasks start, change and end, and the order of the events.

use serde_json::{Value, json};

use super::super::{Place, ShortApp, TaskState, view};
use super::cluster::{app, cluster, create, told, web};

#[test]
fn staged_task_has_no_start_address_or_health() {
    let mut cluster = cluster();
    let place = Place::new("10.0.0.1", 1).state(TaskState::TaskStaging);
    let id = create(&mut cluster, ShortApp::new("/a", 1).checked().place(place)).remove(0);
    let task = app(&cluster, "/a")["tasks"][0].take();
    assert_eq!((task.get("startedAt"), &task["ipAddresses"]), (None, &json!([])));
    assert_eq!(task["healthCheckResults"], json!([]));
    assert_eq!(app(&cluster, "/a")["tasksStaged"], 1);

    cluster.set_state(&id, TaskState::TaskRunning).unwrap();
    let task = app(&cluster, "/a")["tasks"][0].take();
    assert!(task["startedAt"].is_string());
    assert_eq!(task["ipAddresses"][0]["ipAddress"], "10.0.0.1");
}

#[test]
fn health_is_an_empty_list_until_the_first_result() {
    let mut cluster = cluster();
    let place = Place::new("10.0.0.1", 8001).alive(None);
    let id = create(&mut cluster, ShortApp::new("/a", 1).checked().place(place)).remove(0);
    assert_eq!(app(&cluster, "/a")["tasks"][0]["healthCheckResults"], json!([]));
    assert_eq!(app(&cluster, "/a")["tasksHealthy"], 0);
    told(&mut cluster);

    cluster.set_health(&id, None, Some(false)).unwrap();
    let result = app(&cluster, "/a")["tasks"][0]["healthCheckResults"][0].take();
    assert_eq!((&result["alive"], &result["consecutiveFailures"]), (&json!(false), &json!(1)));
    assert_eq!((result.get("lastSuccess"), result["lastFailure"].is_string()), (None, true));
    assert_eq!(
        told(&mut cluster),
        [
            "status_update_event TASK_RUNNING",
            "health_status_changed_event false",
            "instance_health_changed_event false"
        ]
    );

    cluster.set_health(&id, None, Some(true)).unwrap();
    let result = app(&cluster, "/a")["tasks"][0]["healthCheckResults"][0].take();
    assert_eq!((&result["alive"], &result["consecutiveFailures"]), (&json!(true), &json!(0)));
    assert!(result["lastSuccess"].as_str() > result["lastFailure"].as_str(), "{result}");

    told(&mut cluster);
    cluster.set_health(&id, None, None).unwrap();
    assert_eq!(app(&cluster, "/a")["tasks"][0]["healthCheckResults"], json!([]));
    assert_eq!(told(&mut cluster), ["instance_health_changed_event null"]);
}

#[test]
fn task_with_one_of_two_checks_failing_is_unhealthy() {
    let mut cluster = cluster();
    let checks = json!([{"protocol": "HTTP"}, {"protocol": "MESOS_TCP"}]);
    let id = cluster.create(json!({"id": "/a", "healthChecks": checks}), &[Place::new("a", 1)]).unwrap().remove(0);
    told(&mut cluster);
    cluster.set_health(&id, Some(0), Some(false)).unwrap();
    let app = app(&cluster, "/a");
    let results = app["tasks"][0]["healthCheckResults"].as_array().unwrap();
    assert_eq!([&results[0]["alive"], &results[1]["alive"]], [false, true]);
    assert_eq!([&app["tasksHealthy"], &app["tasksUnhealthy"]], [0, 1]);
    assert_eq!(told(&mut cluster), ["health_status_changed_event false", "instance_health_changed_event false"]);
    let wrong = cluster.set_health(&id, Some(2), Some(true)).unwrap_err();
    assert!(wrong.to_string().contains("2 health checks"), "{wrong}");
}

#[test]
fn health_of_an_app_without_checks_is_refused() {
    let mut cluster = cluster();
    let id = create(&mut cluster, web()).remove(0);
    let wrong = cluster.set_health(&id, None, Some(true)).unwrap_err();
    assert!(wrong.to_string().contains("no health checks"), "{wrong}");
}

#[test]
fn launch_sends_events_from_post_to_deployment_end() {
    let mut cluster = cluster();
    create(&mut cluster, web().checked());
    assert_eq!(
        told(&mut cluster),
        [
            "api_post_event",
            "deployment_info",
            "group_change_success",
            "instance_changed_event Scheduled",
            "instance_changed_event Provisioned",
            "status_update_event TASK_STARTING",
            "instance_changed_event Starting",
            "status_update_event TASK_RUNNING",
            "instance_changed_event Running",
            "status_update_event TASK_RUNNING",
            "health_status_changed_event true",
            "instance_health_changed_event true",
            "deployment_step_success",
            "deployment_success",
        ]
    );
}

#[test]
fn scheduled_instance_has_no_host() {
    let mut cluster = cluster();
    create(&mut cluster, web());
    let events = cluster.take_events();
    let changes: Vec<&Value> =
        events.iter().filter(|event| event.kind == "instance_changed_event").map(|event| &event.data).collect();
    assert_eq!((&changes[0]["host"], &changes[0]["agentId"]), (&Value::Null, &Value::Null));
    assert_eq!(changes[1]["host"], "10.0.0.1");
}

#[test]
fn kill_begins_with_a_second_running_event() {
    let mut cluster = cluster();
    let id = create(&mut cluster, web()).remove(0);
    told(&mut cluster);
    cluster.set_state(&id, TaskState::TaskKilling).unwrap();
    assert_eq!(app(&cluster, "/shop/web")["tasks"][0]["state"], "TASK_KILLING");
    cluster.set_state(&id, TaskState::TaskKilled).unwrap();
    assert_eq!(app(&cluster, "/shop/web")["tasks"], json!([]));
    assert_eq!(
        told(&mut cluster),
        [
            "instance_changed_event Running",
            "status_update_event TASK_KILLING",
            "instance_changed_event Killing",
            "status_update_event TASK_KILLED",
            "instance_changed_event Killed",
        ]
    );
    cluster.set_state(&id, TaskState::TaskRunning).expect_err("it is gone");
}

#[test]
fn failed_task_has_no_kill_event() {
    for (state, told_state, condition) in [
        (TaskState::TaskFailed, "TASK_FAILED", "Failed"),
        (TaskState::TaskLost, "TASK_LOST", "Gone"),
        (TaskState::TaskGoneByOperator, "TASK_GONE_BY_OPERATOR", "Gone"),
    ] {
        let mut cluster = cluster();
        let id = create(&mut cluster, web()).remove(0);
        told(&mut cluster);
        cluster.set_state(&id, state).unwrap();
        assert_eq!(app(&cluster, "/shop/web")["tasks"], json!([]));
        assert_eq!(
            told(&mut cluster),
            [format!("status_update_event {told_state}"), format!("instance_changed_event {condition}")]
        );
    }
}

/// An `unreachableStrategy` that keeps an unreachable task for a while.
fn patient() -> Value {
    json!({"inactiveAfterSeconds": 60, "expungeAfterSeconds": 120})
}

#[test]
fn unreachable_task_leaves_the_listing_by_default() {
    let mut cluster = cluster();
    let id = create(&mut cluster, web()).remove(0);
    told(&mut cluster);
    cluster.set_state(&id, TaskState::TaskUnreachable).unwrap();
    assert_eq!(app(&cluster, "/shop/web")["tasks"], json!([]));
    assert_eq!(
        told(&mut cluster),
        ["status_update_event TASK_UNREACHABLE", "instance_changed_event UnreachableInactive"]
    );
}

#[test]
fn withdrawn_deployment_restores_the_version_before_it() {
    let mut cluster = cluster();
    let (mut definition, places) = web().expand();
    definition["instances"] = json!(1);
    cluster.create(definition, &places).unwrap();
    let before = app(&cluster, "/shop/web");
    assert!(cluster.withdraw("/shop/web").unwrap_err().to_string().contains("only one version"));
    let withdrawn = cluster.update(json!({"id": "/shop/web", "labels": {"a": "b"}})).unwrap();
    let task = cluster.start("/shop/web", &Place::new("10.0.0.9", 31_009)).unwrap();
    told(&mut cluster);
    cluster.withdraw("/shop/web").unwrap();
    let after = app(&cluster, "/shop/web");
    assert_eq!((&after["version"], &after["versionInfo"]), (&before["version"], &before["versionInfo"]));
    assert_eq!(after["labels"], before["labels"]);
    let tasks = after["tasks"].as_array().unwrap();
    let runs = tasks.iter().find(|it| it["id"] == json!(task)).unwrap();
    assert_eq!(runs["version"], json!(withdrawn));
    let versions = serde_json::to_value(view::versions(cluster.app("/shop/web").unwrap())).unwrap();
    assert_eq!(versions["versions"], json!([withdrawn, before["version"]]));
    assert_eq!(told(&mut cluster), ["deployment_failed", "deployment_info", "group_change_success"]);
}

#[test]
fn killed_task_is_announced_unless_announcements_are_off() {
    let mut cluster = cluster();
    let ids = create(&mut cluster, web().task("10.0.0.2", 31_002));
    told(&mut cluster);
    cluster.kill(&ids[0]).unwrap();
    assert_eq!(told(&mut cluster), ["instance_changed_event Running"]);
    cluster.announce(false);
    cluster.kill(&ids[1]).unwrap();
    cluster.set_state(&ids[1], TaskState::TaskKilling).unwrap();
    assert_eq!(told(&mut cluster), ["status_update_event TASK_KILLING", "instance_changed_event Killing"]);
}

#[test]
fn unreachable_task_may_stay_listed_and_return() {
    let mut cluster = cluster();
    let (mut definition, places) = web().expand();
    definition["unreachableStrategy"] = patient();
    let id = cluster.create(definition, &places).unwrap().remove(0);
    cluster.set_state(&id, TaskState::TaskUnreachable).unwrap();
    assert_eq!(app(&cluster, "/shop/web")["tasks"][0]["state"], "TASK_UNREACHABLE");
    assert_eq!(app(&cluster, "/shop/web")["tasksRunning"], 0);
    cluster.set_state(&id, TaskState::TaskRunning).unwrap();
    assert_eq!(app(&cluster, "/shop/web")["tasksRunning"], 1);
}

#[test]
fn deleted_app_terminates_after_its_last_task() {
    let mut cluster = cluster();
    create(&mut cluster, web());
    told(&mut cluster);
    cluster.delete("/shop/web").unwrap();
    assert_eq!(cluster.apps().count(), 0);
    assert_eq!(
        told(&mut cluster),
        [
            "deployment_info",
            "group_change_success",
            "instance_changed_event Running",
            "status_update_event TASK_KILLED",
            "instance_changed_event Killed",
            "app_terminated_event",
            "deployment_step_success",
            "deployment_success",
        ]
    );
}

#[test]
fn replacement_starts_new_tasks_before_it_stops_old_ones() {
    let mut cluster = cluster();
    let old = create(&mut cluster, web());
    told(&mut cluster);
    let new = cluster.replace("/shop/web", &[Place::new("10.0.0.9", 8009), Place::new("10.0.0.8", 8008)]).unwrap();
    assert!(new.iter().all(|id| !old.contains(id)));
    let app = app(&cluster, "/shop/web");
    let shown: Vec<&str> = app["tasks"].as_array().unwrap().iter().map(|task| task["id"].as_str().unwrap()).collect();
    assert_eq!(shown, new);
    let told = told(&mut cluster);
    let at = |line: &str| told.iter().rposition(|told| told == line).unwrap();
    assert!(at("instance_changed_event Provisioned") < at("status_update_event TASK_KILLED"), "{told:?}");
}

#[test]
fn new_leader_has_no_health_but_all_versions() {
    let mut cluster = cluster();
    create(&mut cluster, web().checked());
    let before = app(&cluster, "/shop/web");
    assert_eq!(cluster.change_leader(None), "marathon-2.sim:8080");
    assert_eq!(cluster.change_leader(Some("m3:1".into())), "m3:1");
    let after = app(&cluster, "/shop/web");
    assert_eq!(after["tasks"][0]["healthCheckResults"], json!([]));
    assert_eq!(after["version"], before["version"]);
    assert_eq!(view::leader(&cluster), json!({"leader": "m3:1"}));
}

#[test]
fn readiness_is_shown_on_request_while_it_lasts() {
    let mut cluster = cluster();
    let definition = json!({"id": "/a", "readinessChecks": [{"name": "up"}]});
    let id = cluster.create(definition, &[Place::new("a", 1)]).unwrap().remove(0);
    told(&mut cluster);
    cluster.set_ready(&id, Some(false)).unwrap();
    assert_eq!(told(&mut cluster), [""; 0]);
    let list = |embed| serde_json::to_value(view::apps(&cluster, embed, &|_, _| true)).unwrap()["apps"][0].take();
    assert_eq!(list(view::Embed::default()).get("readinessCheckResults"), None);
    let shown = list(view::Embed::default().with("apps.readiness"));
    assert_eq!(shown["readinessCheckResults"], json!([{"name": "up", "taskId": id, "ready": false}]));
    assert_eq!(shown["deployments"].as_array().unwrap().len(), 1);

    cluster.set_ready(&id, None).unwrap();
    assert_eq!(told(&mut cluster), ["deployment_step_success", "deployment_success"]);
    assert_eq!(app(&cluster, "/a").get("readinessCheckResults"), Some(&json!([])));
    assert_eq!(app(&cluster, "/a")["deployments"], json!([]));
}
