//! The root, which is switched a little after a deployment begins.

use serde_json::{Value, json};

use super::super::{Place, ShortApp};
use super::{Stream, fetch, start};

fn label(app: &Value) -> &Value {
    &app["labels"]["colour"]
}

#[tokio::test]
async fn new_app_is_in_no_listing_until_the_root_switches() {
    let sim = start().await;
    let mut stream = Stream::attach(&sim).await;
    sim.hold_root(true);
    sim.create(ShortApp::new("/a", 1).task("10.0.0.1", 1)).unwrap();
    assert_eq!(stream.kind().await, "deployment_info");
    assert_eq!(fetch(&sim, "/v2/apps").await.1, json!({"apps": []}));
    assert_eq!(fetch(&sim, "/v2/tasks").await.1, json!({"tasks": []}));
    for path in ["/v2/apps/a", "/v2/apps/a/tasks", "/v2/apps/a/versions"] {
        assert_eq!(fetch(&sim, path).await.0, 404, "{path}");
    }
    while stream.next().await.unwrap().1["condition"] != json!("Running") {}
    sim.hold_root(false);
    assert_eq!(
        stream.story(4).await,
        ["api_post_event", "group_change_success", "deployment_step_success", "deployment_success"]
    );
    assert_eq!(fetch(&sim, "/v2/apps/a").await.1["app"]["tasksRunning"], 1);
    assert_eq!(fetch(&sim, "/v2/tasks").await.1["tasks"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn changed_app_is_shown_as_before_until_the_root_switches() {
    let sim = start().await;
    sim.create(ShortApp::new("/a", 1).label("colour", "red").task("10.0.0.1", 1)).unwrap();
    sim.hold_root(true);
    for colour in ["green", "blue"] {
        sim.update_app(json!({"id": "/a", "labels": {"colour": colour}})).unwrap();
    }
    sim.launch("/a", &[Place::new("10.0.0.2", 2)]).unwrap();
    let (_, before) = fetch(&sim, "/v2/apps?embed=apps.tasks").await;
    let app = &before["apps"][0];
    assert_eq!((label(app), &app["tasks"][0]["version"]), (&json!("red"), &app["version"]));
    let new = app["tasks"][1]["version"].as_str().unwrap();
    assert_eq!(label(&fetch(&sim, &format!("/v2/apps/a/versions/{new}")).await.1), "blue");
    assert_eq!(label(&fetch(&sim, "/v2/apps/a").await.1["app"]), "red");
    sim.hold_root(false);
    let (_, after) = fetch(&sim, "/v2/apps?embed=apps.tasks").await;
    assert_eq!((label(&after["apps"][0]), &after["apps"][0]["version"]), (&json!("blue"), &json!(new)));
}
