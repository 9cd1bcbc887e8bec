//! The event stream: its listeners, its events, its end.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::{Delivery, Dialect, Options, Place, ShortApp, Sim, TaskState};
use super::{SOON, Stream, fetch, get, start};

/// Attaches by hand, to see the bytes or to leave them unread.
async fn attach_raw(sim: &Sim) -> TcpStream {
    let mut socket = TcpStream::connect(sim.addr).await.unwrap();
    socket.write_all(b"GET /v2/events HTTP/1.1\r\nHost: m\r\nAccept: text/event-stream\r\n\r\n").await.unwrap();
    read_until(&mut socket, "event_stream_attached\",").await;
    socket
}

async fn read_until(socket: &mut TcpStream, text: &str) -> String {
    let mut read = String::new();
    while !read.contains(text) {
        let mut bytes = [0; 4096];
        let n = timeout(SOON, socket.read(&mut bytes)).await.expect("silence").unwrap();
        assert_ne!(n, 0, "the stream ended before {text:?}: {read:?}");
        read.push_str(std::str::from_utf8(&bytes[..n]).unwrap());
    }
    read
}

async fn until_streams(sim: &Sim, count: usize) {
    let reached = async {
        while sim.streams() != count {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, reached).await.expect("the number of streams stays wrong");
}

#[tokio::test]
async fn only_the_exact_accept_header_attaches() {
    let sim = start().await;
    for accept in ["*/*", "text/event-stream, */*", "text/event-stream;q=0.9", "application/json"] {
        let answer = get(&sim, "/v2/events").header("Accept", accept).send().await.unwrap();
        assert_eq!(answer.status(), 405, "{accept}");
    }
    let twice = get(&sim, "/v2/events").header("Accept", "text/event-stream").header("Accept", "text/event-stream");
    assert_eq!(twice.send().await.unwrap().status(), 405);
    assert_eq!(sim.streams(), 0);
}

#[tokio::test]
async fn all_listeners_get_attach_and_detach_events() {
    let sim = start().await;
    let mut first = Stream::attach(&sim).await;
    let second = Stream::attach(&sim).await;
    let (kind, data) = first.next().await.unwrap();
    assert_eq!((&kind[..], &data["remoteAddress"]), ("event_stream_attached", &json!("127.0.0.1")));
    assert_eq!(sim.streams(), 2);
    drop(second);
    assert_eq!(first.kind().await, "event_stream_detached");
    assert_eq!(sim.streams(), 1);
}

#[tokio::test]
async fn launch_and_kill_events_are_in_marathons_order() {
    let sim = start().await;
    let mut stream = Stream::attach(&sim).await;
    let id = sim.create(ShortApp::new("/a", 1).checked().task("10.0.0.1", 1)).unwrap().remove(0);
    assert_eq!(
        stream.story(14).await,
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
    sim.set_state(&id, TaskState::TaskKilling).unwrap();
    sim.set_state(&id, TaskState::TaskKilled).unwrap();
    assert_eq!(
        stream.story(5).await,
        [
            "instance_changed_event Running",
            "status_update_event TASK_KILLING",
            "instance_changed_event Killing",
            "status_update_event TASK_KILLED",
            "instance_changed_event Killed",
        ]
    );
}

#[tokio::test]
async fn listing_after_an_event_shows_the_change() {
    let sim = start().await;
    sim.create(ShortApp::new("/a", 1)).unwrap();
    let mut stream = Stream::attach(&sim).await;
    for port in 1..20 {
        let id = sim.launch("/a", &[Place::new("10.0.0.1", port)]).unwrap().remove(0);
        while stream.next().await.unwrap().1["taskId"] != json!(id) {}
        let (_, tasks) = fetch(&sim, "/v2/tasks").await;
        assert!(tasks["tasks"].as_array().unwrap().iter().any(|task| task["id"] == json!(id)), "{id}");
    }
}

#[tokio::test]
async fn event_filter_passes_only_the_named_types() {
    let sim = start().await;
    let mut two = Stream::open(&sim, "/v2/events?event_type=status_update_event&event_type=deployment_success").await;
    let silent = Stream::open(&sim, "/v2/events?event_type=nobody_knows&plan-format=light").await;
    sim.create(ShortApp::new("/a", 1).task("10.0.0.1", 1)).unwrap();
    assert_eq!(
        two.story(3).await,
        ["status_update_event TASK_STARTING", "status_update_event TASK_RUNNING", "deployment_success"]
    );
    sim.close_streams();
    let Stream { mut response, .. } = silent;
    assert_eq!(response.chunk().await.unwrap(), None);
}

#[tokio::test]
async fn heartbeat_is_a_blank_line_in_two_chunks() {
    let options = Options { heartbeat: Duration::from_millis(20), ..Options::default() };
    let sim = Sim::start_with(options).await.unwrap();
    let mut socket = attach_raw(&sim).await;
    // Chunks of one byte each: a carriage return, then a line feed.
    read_until(&mut socket, "1\r\n\r\r\n1\r\n\n\r\n").await;
    let mut stream = Stream::attach(&sim).await;
    read_until(&mut socket, "event_stream_attached").await;
    sim.create(ShortApp::new("/a", 1)).unwrap();
    assert_eq!(stream.kind().await, "api_post_event");
}

#[tokio::test]
async fn leader_change_ends_the_stream_after_earlier_events() {
    let sim = start().await;
    let (mut definition, places) = ShortApp::new("/a", 1).checked().task("10.0.0.1", 1).expand();
    definition["unreachableStrategy"] = json!({"inactiveAfterSeconds": 60, "expungeAfterSeconds": 120});
    let id = sim.create_full(definition, &places).unwrap().remove(0);
    let mut stream = Stream::attach(&sim).await;
    sim.set_state(&id, TaskState::TaskUnreachable).unwrap();
    sim.change_leader(None);
    sim.set_state(&id, TaskState::TaskRunning).unwrap();
    assert_eq!(stream.story(2).await, ["status_update_event TASK_UNREACHABLE", "instance_changed_event Unreachable"]);
    assert_eq!(stream.next().await, None);
    assert_eq!(sim.streams(), 0);
    let (_, tasks) = fetch(&sim, "/v2/tasks").await;
    assert_eq!(tasks["tasks"][0]["healthCheckResults"], json!([]));
    Stream::attach(&sim).await;
}

#[tokio::test]
async fn slow_reader_is_disconnected() {
    let sim = start().await;
    let text = "x".repeat(64 * 1024);
    sim.create(ShortApp::new("/a", 1).label("long", &text)).unwrap();
    let mut socket = attach_raw(&sim).await;
    let mut updates = 0;
    while sim.streams() == 1 {
        sim.update_app(json!({"id": "/a"})).unwrap();
        updates += 1;
        assert!(updates < 5000, "still attached");
        tokio::task::yield_now().await;
    }
    let mut rest = Vec::new();
    // A reset or a regular end, either is fine.
    let _ = timeout(SOON, socket.read_to_end(&mut rest)).await.expect("the connection was left open");
}

#[tokio::test]
async fn slow_reader_up_to_1_7_loses_events_and_stays_connected() {
    const UPDATES: usize = 1000;
    let sim = Sim::start_with(Options { dialect: Dialect::D15, ..Options::default() }).await.unwrap();
    sim.create(ShortApp::new("/a", 1).label("long", &"x".repeat(64 * 1024))).unwrap();
    let mut socket = attach_raw(&sim).await;
    for _ in 0..UPDATES {
        sim.update_app(json!({"id": "/a"})).unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(sim.streams(), 1);
    let (mut told, mut line, mut bytes) = (0, Vec::new(), vec![0; 1 << 20]);
    while !line.starts_with(b"event: app_terminated_event") {
        // Once it reads again it gets events again. As long as it has much to read, it loses this one too.
        sim.delete_app("/a").unwrap();
        sim.create(ShortApp::new("/a", 1)).unwrap();
        let n = timeout(SOON, socket.read(&mut bytes)).await.expect("silence").unwrap();
        for part in bytes[..n].split_inclusive(|byte| *byte == b'\n') {
            line.extend_from_slice(part);
            told += usize::from(line == b"event: api_post_event\r\n");
            if line.starts_with(b"event: app_terminated_event") {
                break;
            }
            if part.ends_with(b"\n") {
                line.clear();
            }
        }
    }
    assert!(told > 0 && told < UPDATES, "{told} of {UPDATES}");
    assert_eq!(sim.streams(), 1);
}

#[tokio::test]
async fn slow_reader_limit_is_set_by_delivery() {
    for (dialect, streams) in [(Dialect::D15, 1), (Dialect::D18, 0)] {
        let sim = Sim::start_with(Options { dialect, ..Options::default() }).await.unwrap();
        let mut stream = Stream::attach(&sim).await;
        sim.deliver(Delivery { outstanding: Some(0), ..Delivery::default() });
        sim.create(ShortApp::new("/missed", 1)).unwrap();
        assert_eq!(sim.streams(), streams, "{dialect:?}");
        if streams == 1 {
            sim.deliver(Delivery::default());
            sim.create(ShortApp::new("/told", 2)).unwrap();
            let (kind, data) = stream.next().await.unwrap();
            assert_eq!((&kind[..], &data["appDefinition"]["id"]), ("api_post_event", &json!("/told")));
        }
    }
}

#[tokio::test]
async fn strange_events_ignore_the_filter_and_precede_each_event() {
    let sim = start().await;
    let id = sim.create(ShortApp::new("/a", 1).task("10.0.0.1", 1)).unwrap().remove(0);
    let mut stream = Stream::open(&sim, "/v2/events?event_type=status_update_event").await;
    until_streams(&sim, 1).await;
    sim.deliver(Delivery { strange: true, ..Delivery::default() });
    sim.set_state(&id, TaskState::TaskKilled).unwrap();
    let mut told = Vec::new();
    while told.len() < 4 {
        let (kind, data) = stream.next().await.unwrap();
        told.push((kind, data["taskId"] == json!(id)));
    }
    let [strange, update] = ["strange_event", "status_update_event"].map(String::from);
    // A goal, a status and a condition.
    assert_eq!(told, [(strange.clone(), false), (strange.clone(), true), (update, true), (strange, false)]);
}

#[tokio::test]
async fn large_change_disconnects_no_reader() {
    let sim = start().await;
    sim.create(ShortApp::new("/a", 1)).unwrap();
    let mut stream = Stream::attach(&sim).await;
    let places: Vec<Place> = (0..1000).map(|n| Place::new("10.0.0.1", 31_000 + n)).collect();
    sim.replace("/a", &places).unwrap();
    while stream.kind().await != "deployment_success" {}
    assert_eq!(sim.streams(), 1);
}

#[tokio::test]
async fn dropping_the_handle_ends_streams_and_stops_listening() {
    let sim = start().await;
    let addr = sim.addr;
    let mut stream = Stream::attach(&sim).await;
    drop(sim);
    assert_eq!(stream.next().await, None);
    let refused = async { while TcpStream::connect(addr).await.is_ok() {} };
    timeout(SOON, refused).await.expect("still listening");
}

#[tokio::test]
async fn disconnected_client_is_removed() {
    let sim = start().await;
    let socket = attach_raw(&sim).await;
    until_streams(&sim, 1).await;
    drop(socket);
    until_streams(&sim, 0).await;
}
