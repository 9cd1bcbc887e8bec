//! Wrong responses on purpose.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;

use super::super::{Fault, FaultKind, Options, ShortApp, Sim, StatusCode};
use super::{Stream, command, fetch, get, response, start};

async fn with_app() -> Sim {
    let sim = start().await;
    sim.create(ShortApp::new("/a", 1).task("10.0.0.1", 1)).unwrap();
    sim
}

#[tokio::test]
async fn status_fault_lasts_until_it_is_cleared() {
    let sim = with_app().await;
    sim.fault(Fault::status(StatusCode::BAD_GATEWAY));
    let answer = response(&sim, "/v2/apps").await;
    assert_eq!((answer.status().as_u16(), answer.headers().get("x-marathon-leader")), (502, None));
    assert_eq!(answer.text().await.unwrap(), "Could not determine the current leader");
    let events = get(&sim, "/v2/events").header("Accept", "text/event-stream").send().await.unwrap();
    assert_eq!(events.status(), 502);
    assert_eq!(response(&sim, "/ping").await.status(), 200);
    assert_eq!(fetch(&sim, "/sim/state").await.1["fault"]["kind"], "status");
    sim.fault(Fault::new(FaultKind::None));
    assert_eq!(fetch(&sim, "/v2/apps").await.0, 200);
}

#[tokio::test]
async fn fault_can_be_limited_to_paths() {
    let sim = with_app().await;
    sim.fault(Fault::status(StatusCode::NOT_FOUND).on("/v2/apps/a/versions/"));
    assert_eq!(response(&sim, "/v2/apps/a/versions/2020-05-01T10:00:00.000Z").await.status(), 404);
    assert_eq!(response(&sim, "/v2/apps/a/versions").await.status(), 200);
}

#[tokio::test]
async fn page_and_garbage_faults_have_status_200() {
    let sim = with_app().await;
    sim.fault(Fault::new(FaultKind::Html));
    let page = response(&sim, "/v2/apps").await;
    assert!(page.status() == 200 && page.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
    sim.fault(Fault::new(FaultKind::Garbage));
    let garbage = response(&sim, "/v2/apps").await;
    assert!(garbage.status() == 200 && garbage.headers()["content-type"] == "application/json");
    garbage.json::<serde_json::Value>().await.expect_err("this must not be JSON");
}

#[tokio::test]
async fn truncated_response_announces_its_full_length() {
    let sim = with_app().await;
    let whole = response(&sim, "/v2/apps").await.bytes().await.unwrap();
    sim.fault(Fault::new(FaultKind::Truncate));
    for encoding in ["identity", "gzip"] {
        let mut cut = get(&sim, "/v2/apps").header("Accept-Encoding", encoding).send().await.unwrap();
        let announced: usize = cut.headers()["content-length"].to_str().unwrap().parse().unwrap();
        let mut read = 0;
        let ended = loop {
            match cut.chunk().await {
                Ok(Some(chunk)) => read += chunk.len(),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        ended.expect_err("a client must notice");
        assert_eq!(read, announced / 2, "{encoding}");
        assert!(encoding == "gzip" || announced == whole.len());
    }
}

#[tokio::test]
async fn empty_lists_are_well_formed() {
    let sim = with_app().await;
    sim.fault(Fault::new(FaultKind::Empty));
    assert_eq!(fetch(&sim, "/v2/apps?embed=apps.tasks").await, (200, json!({"apps": []})));
    assert_eq!(fetch(&sim, "/v2/tasks").await, (200, json!({"tasks": []})));
    assert_eq!(fetch(&sim, "/v2/apps/a").await.1["app"]["id"], "/a");
}

#[tokio::test]
async fn refuse_events_fault_ends_streams_only() {
    let sim = with_app().await;
    let mut stream = Stream::attach(&sim).await;
    sim.fault(Fault::new(FaultKind::RefuseEvents));
    assert_eq!(stream.next().await, None);
    let again = get(&sim, "/v2/events").header("Accept", "text/event-stream").send().await.unwrap();
    assert_eq!(again.status(), 502);
    assert_eq!(fetch(&sim, "/v2/apps").await.0, 200);
}

#[tokio::test]
async fn silent_stream_sends_no_heartbeat() {
    let options = Options { heartbeat: Duration::from_millis(5), ..Options::default() };
    let sim = Sim::start_with(options).await.unwrap();
    let mut before = Stream::attach(&sim).await;
    sim.fault(Fault::new(FaultKind::SilentEvents));
    let mut since = Stream::open(&sim, "/v2/events").await;
    sim.create(ShortApp::new("/a", 1)).unwrap();
    // Silence for the time of ten heartbeats, which no other condition can show.
    let heard = timeout(Duration::from_millis(50), since.response.chunk()).await;
    assert!(heard.is_err(), "{heard:?}");
    sim.fault(Fault::new(FaultKind::None));
    sim.delete_app("/a").unwrap();
    assert_eq!(since.kind().await, "deployment_info");
    assert_eq!(before.kind().await, "deployment_info");
}

#[tokio::test]
async fn faults_are_set_by_commands() {
    let sim = with_app().await;
    for kind in ["html", "truncate", "empty", "garbage", "refuse-events", "silent-events", "none"] {
        assert_eq!(command(&sim, "/sim/fault", json!({"kind": kind})).await, (200, json!({})));
        assert_eq!(sim.state()["fault"]["kind"], kind);
    }
    command(&sim, "/sim/fault", json!({"kind": "status", "code": 503, "body": "no", "paths": "/v2/t"})).await;
    assert_eq!(response(&sim, "/v2/tasks").await.text().await.unwrap(), "no");
    let (status, wrong) = command(&sim, "/sim/fault", json!({"kind": "flood"})).await;
    assert!(status == 400 && wrong["message"].as_str().unwrap().contains("silent-events"), "{wrong}");
    assert_eq!(command(&sim, "/sim/fault", json!({"kind": "html", "code": 500})).await.0, 400);
    assert_eq!(command(&sim, "/sim/fault", json!({"kind": "status", "code": 7})).await.0, 400);
}
