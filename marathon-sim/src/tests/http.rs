//! Each endpoint of the API, over HTTP.

use serde_json::{Value, json};

use super::super::{Place, ShortApp};
use super::{SOON, client, fetch, get, response, start};

#[tokio::test]
async fn ping_answers_pong_in_the_accepted_type() {
    let sim = start().await;
    let plain = response(&sim, "/ping").await;
    assert_eq!((plain.status().as_u16(), plain.text().await.unwrap()), (200, "pong".into()));
    let json = get(&sim, "/ping").header("Accept", "application/json").send().await.unwrap();
    assert_eq!(json.text().await.unwrap(), "\"pong\"");
    let other = get(&sim, "/ping").header("Accept", "image/png").send().await.unwrap();
    assert_eq!(other.status(), 204);
}

#[tokio::test]
async fn info_and_leader_name_the_leader() {
    let sim = start().await;
    let addr = sim.addr.to_string();
    let (status, info) = fetch(&sim, "/v2/info").await;
    assert_eq!((status, &info["elected"], &info["leader"]), (200, &json!(true), &json!(addr)));
    assert!(info["version"].is_string() && info["marathon_config"]["features"].is_array());
    assert_eq!(fetch(&sim, "/v2/leader").await, (200, json!({"leader": addr})));
}

#[tokio::test]
async fn apps_always_have_counts_and_tasks_when_embedded() {
    let sim = start().await;
    sim.create(ShortApp::new("/shop/web", 1234).task("10.0.0.1", 8001)).unwrap();
    let (_, plain) = fetch(&sim, "/v2/apps").await;
    assert_eq!((&plain["apps"][0]["tasksRunning"], plain["apps"][0].get("tasks")), (&json!(1), None));
    for embed in ["apps.tasks", "app.tasks", "group.apps.tasks", "tasks"] {
        let (_, embedded) = fetch(&sim, &format!("/v2/apps?embed={embed}&embed=apps.nonsense")).await;
        assert_eq!(embedded["apps"][0]["tasks"][0]["ports"], json!([8001]), "{embed}");
    }
    let (_, none) = fetch(&sim, "/v2/apps?id=nowhere").await;
    assert_eq!(none, json!({"apps": []}));
    assert_eq!(fetch(&sim, "/v2/apps?label=a").await.0, 400);
}

#[tokio::test]
async fn app_is_found_by_any_spelling_of_its_path() {
    let sim = start().await;
    sim.create(ShortApp::new("/shop/web", 1234).task("10.0.0.1", 8001)).unwrap();
    for path in ["/v2/apps/shop/web", "/v2/apps//shop/web", "/v2/apps/shop%2Fweb", "/v2/apps/shop/web/"] {
        let (status, app) = fetch(&sim, path).await;
        assert_eq!((status, &app["app"]["tasks"][0]["host"]), (200, &json!("10.0.0.1")), "{path}");
    }
    assert_eq!(fetch(&sim, "/v2/apps/shop").await, (404, json!({"message": "App '/shop' does not exist"})));
    let (_, group) = fetch(&sim, "/v2/apps/shop/*?embed=apps.tasks").await;
    assert_eq!(group["*"][0]["id"], "/shop/web");
    let (_, tasks) = fetch(&sim, "/v2/apps/shop/web/tasks").await;
    assert_eq!((&tasks["tasks"][0]["ports"], &tasks["tasks"][0]["servicePorts"]), (&json!([8001]), &json!([])));
    assert_eq!(fetch(&sim, "/v2/apps/x/tasks").await.1["message"], "App '/x' does not exist");
}

#[tokio::test]
async fn versions_are_listed_and_read_bare() {
    let sim = start().await;
    sim.create(ShortApp::new("/shop/web", 1234).task("10.0.0.1", 8001)).unwrap();
    let new = sim.update_app(json!({"id": "/shop/web", "labels": {"a": "b"}})).unwrap();
    let (_, versions) = fetch(&sim, "/v2/apps/shop/web/versions").await;
    let versions: Vec<&str> = versions["versions"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!((versions.len(), versions[0]), (2, &new[..]));
    let (_, old) = fetch(&sim, &format!("/v2/apps/shop/web/versions/{}", versions[1])).await;
    assert_eq!((&old["id"], &old["labels"], old.get("tasks")), (&json!("/shop/web"), &json!({}), None));
    assert_eq!(
        fetch(&sim, "/v2/apps/shop/web/versions/1999-01-01T00:00:00.000Z").await,
        (404, json!({"message": "App '/shop/web' does not exist in version 1999-01-01T00:00:00.000Z"}))
    );
    assert_eq!(fetch(&sim, "/v2/apps/x/versions").await.0, 404);
}

#[tokio::test]
async fn tasks_are_json_only() {
    let sim = start().await;
    sim.create(ShortApp::new("/shop/web", 1234).task("10.0.0.1", 8001)).unwrap();
    let (_, tasks) = fetch(&sim, "/v2/tasks?status=running").await;
    assert_eq!(tasks["tasks"][0]["servicePorts"], json!([1234]));
    assert_eq!(fetch(&sim, "/v2/tasks?status[]=staging").await.1, json!({"tasks": []}));
    let text = get(&sim, "/v2/tasks").header("Accept", "text/plain").send().await.unwrap();
    assert_eq!(text.status(), 406);
}

#[tokio::test]
async fn empty_lists_are_arrays_and_unknown_paths_return_500() {
    let sim = start().await;
    for path in ["/v2/deployments", "/v2/pods", "/v2/pods/::status"] {
        assert_eq!(fetch(&sim, path).await, (200, json!([])), "{path}");
    }
    for path in ["/v2/nothing", "/v2/events/"] {
        assert_eq!(fetch(&sim, path).await, (500, json!({"message": "URI not found"})), "{path}");
    }
}

#[tokio::test]
async fn every_response_names_the_leader_and_forbids_caching() {
    let sim = start().await;
    for path in ["/ping", "/v2/apps", "/v2/apps/x", "/v2/nothing"] {
        let answer = response(&sim, path).await;
        assert_eq!(answer.headers()["x-marathon-leader"], format!("http://{}", sim.addr), "{path}");
        assert_eq!(answer.headers()["cache-control"], "no-cache, no-store, must-revalidate");
    }
    sim.change_leader(Some("other.sim:8080"));
    assert_eq!(response(&sim, "/ping").await.headers()["x-marathon-leader"], "http://other.sim:8080");
}

#[tokio::test]
async fn abdicating_leader_exits_and_another_leads_after_seconds() {
    let sim = start().await;
    let other = sim.node().await.unwrap();
    let ask = async |url: &str| {
        client().timeout(SOON).build().unwrap().get(format!("{url}/v2/apps?embed=tasks")).send().await
    };
    sim.create(ShortApp::new("/a", 1).checked().task("10.0.0.1", 8001)).unwrap();
    assert!(sim.abdicate(SOON));
    assert_eq!(ask(&other.url()).await.unwrap().status(), 502);
    while let Ok(response) = ask(&sim.url()).await {
        // A connection may have been accepted before the listener ended.
        assert_eq!(response.status(), 502);
    }
    sim.elect(Some(&other.addr.to_string()));
    let listing: Value = ask(&other.url()).await.unwrap().json().await.unwrap();
    assert_eq!(listing["apps"][0]["tasks"][0]["healthCheckResults"], json!([]));
    assert!(!sim.abdicate(SOON), "there is no other node");
}

#[tokio::test]
async fn only_node_exits_after_it_has_abdicated() {
    let sim = start().await;
    let response = client().build().unwrap().delete(format!("{}/v2/leader", sim.url())).send().await.unwrap();
    assert_eq!(response.json::<Value>().await.unwrap(), json!({"message": "Leadership abdicated"}));
    tokio::time::timeout(SOON, sim.exits()).await.unwrap();
}

#[tokio::test]
async fn listings_are_compressed_on_request_and_streams_are_not() {
    let sim = start().await;
    sim.create(ShortApp::new("/a", 1)).unwrap();
    let ask = |path: &str| get(&sim, path).header("Accept-Encoding", "gzip");
    let listing = ask("/v2/apps").send().await.unwrap();
    assert_eq!(listing.headers()["content-encoding"], "gzip");
    let stream = ask("/v2/events").header("Accept", "text/event-stream").send().await.unwrap();
    assert_eq!(stream.headers().get("content-encoding"), None);
    assert_eq!(stream.headers()["content-type"], "text/event-stream;charset=utf-8");
}

#[tokio::test]
async fn thousands_of_tasks_are_listed() {
    let sim = start().await;
    let places: Vec<Place> = (0..100).map(|n| Place::new("10.0.0.1", 31_000 + n)).collect();
    for n in 0..40 {
        let app = ShortApp { tasks: places.clone(), ..ShortApp::new(&format!("/group/app-{n}"), 10_000 + n) };
        sim.create(app.checked()).unwrap();
    }
    let (_, listing) = fetch(&sim, "/v2/apps?embed=apps.tasks").await;
    let tasks = listing["apps"].as_array().unwrap().iter().map(|app| app["tasks"].as_array().unwrap().len());
    assert_eq!(tasks.sum::<usize>(), 4000);
}
