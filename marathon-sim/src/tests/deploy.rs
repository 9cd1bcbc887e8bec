//! Changes of apps by Marathon's own API.

use reqwest::Method;
use serde_json::{Value, json};

use super::super::{Place, Sim};
use super::{client, fetch, start};

async fn ask(sim: &Sim, method: Method, path: &str, body: Value) -> (u16, Value) {
    let request = client().build().unwrap().request(method, format!("{}{path}", sim.url())).json(&body);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

fn app(instances: u32) -> Value {
    json!({"id": "/shop/web", "instances": instances, "container": {"type": "DOCKER", "docker": {"image": "web"}}})
}

#[tokio::test]
async fn app_is_posted_once_put_repeatedly_and_deleted() {
    let sim = start().await;
    let (status, posted) = ask(&sim, Method::POST, "/v2/apps", app(2)).await;
    assert_eq!((status, &posted["app"]["id"], &posted["app"]["tasks"]), (201, &json!("/shop/web"), &json!([])));
    assert_eq!(ask(&sim, Method::POST, "/v2/apps", app(2)).await.0, 409);
    let (status, put) = ask(&sim, Method::PUT, "/v2/apps//shop/web?force=true", app(3)).await;
    assert!(status == 200 && put["version"].is_string() && put["deploymentId"].is_string(), "{put}");
    assert_eq!(fetch(&sim, "/v2/apps/shop/web").await.1["app"]["instances"], 3);
    assert_eq!(ask(&sim, Method::DELETE, "/v2/apps/shop/web", Value::Null).await.0, 200);
    assert_eq!(ask(&sim, Method::DELETE, "/v2/apps/shop/web", Value::Null).await.0, 404);
    assert_eq!(ask(&sim, Method::PUT, "/v2/apps/Shop", app(1)).await.0, 422);
}

#[tokio::test]
async fn version_with_other_instances_keeps_the_configuration() {
    let sim = start().await;
    let changed = async |app: Value| {
        ask(&sim, Method::PUT, "/v2/apps/shop/web", app).await;
        let (_, app) = fetch(&sim, "/v2/apps/shop/web").await;
        app["app"]["versionInfo"]["lastConfigChangeAt"].clone()
    };
    let first = changed(app(1)).await;
    assert_eq!((changed(app(1)).await, changed(app(5)).await), (first.clone(), first.clone()));
    let mut other = app(5);
    other["labels"] = json!({"a": "b"});
    assert_ne!(changed(other).await, first);
}

#[tokio::test]
async fn deleted_task_is_shown_until_it_is_stopped() {
    let sim = start().await;
    let ids = sim.create_full(app(1), &[Place::new("10.0.0.1", 8001)]).unwrap();
    assert_eq!(ask(&sim, Method::DELETE, &format!("/v2/apps/shop/web/tasks/{}", ids[0]), Value::Null).await.0, 200);
    assert_eq!(fetch(&sim, "/v2/apps/shop/web").await.1["app"]["tasksRunning"], 1);
    assert_eq!(ask(&sim, Method::DELETE, "/v2/apps/shop/web/tasks/nobody", Value::Null).await.0, 404);
}
