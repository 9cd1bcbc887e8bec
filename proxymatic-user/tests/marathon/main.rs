//! The Marathon source against the simulated Marathon: a real server, real events, real faults. Needs no root.
//!
//! `current` has failures of the event stream and of listings, `absence` a Marathon that is away, `access` credentials and
//! TLS.

mod absence;
mod access;
mod current;
mod ownership;
mod watch;

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use marathon_sim::{
    self as sim, Delivery, Fault, FaultKind, Options, Place, PodPlace, ShortApp, Sim, StatusCode, TaskState,
};
use proxymatic_user::{
    model::{Start, State},
    source::{Report, marathon::Timing},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
    time::timeout,
};

use crate::watch::{MS, PATIENCE, Source, backends, count, quick};

#[tokio::test]
async fn first_snapshot_is_whole_and_read_once() {
    let sim = Sim::start().await.unwrap();
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080).task("10.0.0.2", 8081)).unwrap();
    sim.create(ShortApp::new("/dns", 53).protocol("udp,tcp").task("10.0.0.1", 5353)).unwrap();
    sim.create(ShortApp::new("/slow", 99).checked().place(Place::new("10.0.0.1", 1).alive(None))).unwrap();
    let before = Instant::now();
    let mut source = Source::of(&sim);
    let Report::Snapshot { source: id, snapshot, at } = source.next().await else { panic!() };
    assert_eq!(id.to_string(), "marathon");
    assert!(at >= before && at <= Instant::now());
    assert_eq!(backends(&snapshot, 1234), [(8080, State::Active), (8081, State::Active)]);
    assert_eq!(backends(&snapshot, 99), [(1, State::Warming)]);
    let keys: Vec<_> = snapshot.services.iter().map(|(key, service)| format!("{key} {}", service.name)).collect();
    assert_eq!(keys, ["53/tcp /dns", "53/udp /dns", "99/tcp /slow", "1234/tcp /web"]);
    assert_eq!(snapshot.warnings, []);

    let log = sim.log();
    assert_eq!(log.len(), 3, "{log:?}");
    assert_eq!((log[0].path.as_str(), log[0].accept.as_deref()), ("/v2/events", Some("text/event-stream")));
    let filter = log[0].query.as_deref().unwrap();
    assert!(filter.contains("event_type=status_update_event&") && filter.contains("event_type=event_stream_attached"));
    let listing = (log[1].path.as_str(), log[1].query.as_deref());
    assert_eq!(listing, ("/v2/apps", Some("embed=apps.tasks&embed=apps.readiness")));
    assert_eq!(log[2].path, "/v2/pods/::status");
}

#[tokio::test]
async fn new_task_without_a_check_has_a_start_by_marathons_clock() {
    let sim = Sim::start().await.unwrap();
    let task = sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap().remove(0);
    sim.create(ShortApp::new("/checked", 99).checked().task("10.0.0.1", 1)).unwrap();
    let created = Instant::now();
    let mut source = Source::of(&sim);
    let snapshot = source.snapshot().await;
    let unchecked: Vec<_> = snapshot.services.values().flat_map(|it| &it.unchecked).collect();
    let [(id, Start::At(start))] = unchecked[..] else { panic!("{unchecked:?}") };
    assert_eq!(id, &task);
    // The header `Date` has whole seconds, so the task may look younger by one.
    assert!(*start <= created + Duration::from_secs(1) + created.elapsed(), "{start:?} after {created:?}");
    // A task that starts is published before any listing has its start.
    let next = sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap().remove(0);
    loop {
        let snapshot = source.snapshot().await;
        let mut unchecked = snapshot.services.values().flat_map(|it| &it.unchecked);
        if unchecked.any(|(id, _)| *id == next) {
            break;
        }
        assert_eq!(backends(&snapshot, 1234), [(8080, State::Active)], "the task is served without its start");
    }
}

#[tokio::test]
async fn task_changes_are_seen_without_a_poll() {
    let sim = Sim::start().await.unwrap();
    let first = sim.create(ShortApp::new("/web", 1234).checked().task("10.0.0.1", 8080)).unwrap().remove(0);
    let mut source = Source::of(&sim);
    source.sees(1234, &[(8080, State::Active)]).await;
    let second = sim.launch("/web", &[Place::new("10.0.0.2", 8081).alive(None)]).unwrap().remove(0);
    source.sees(1234, &[(8080, State::Active), (8081, State::Warming)]).await;
    sim.set_health(&second, Some(true)).unwrap();
    source.sees(1234, &[(8080, State::Active), (8081, State::Active)]).await;
    sim.set_health(&first, Some(false)).unwrap();
    source.sees(1234, &[(8080, State::Draining), (8081, State::Active)]).await;
    sim.set_state(&first, TaskState::TaskKilling).unwrap();
    sim.set_state(&first, TaskState::TaskKilled).unwrap();
    source.sees(1234, &[(8081, State::Active)]).await;
    sim.delete_app("/web").unwrap();
    while !source.snapshot().await.services.is_empty() {}
}

#[tokio::test]
async fn task_that_is_being_killed_drains_before_any_read() {
    let sim = Sim::start().await.unwrap();
    let app = ShortApp::new("/web", 1234).task("10.0.0.1", 8080).task("10.0.0.2", 8081);
    let first = sim.create(app).unwrap().remove(0);
    // Longer than the test waits for anything.
    let wait = 2 * PATIENCE;
    let mut source = Source::new(&[sim.url()], Timing { quiet: wait, at_most: wait, ..quick() });
    source.sees(1234, &[(8080, State::Active), (8081, State::Active)]).await;
    let reads = count(&sim, "/v2/apps");
    sim.set_state(&first, TaskState::TaskKilling).unwrap();
    source.sees(1234, &[(8080, State::Draining), (8081, State::Active)]).await;
    assert_eq!(count(&sim, "/v2/apps"), reads, "it drains before anything is read");
}

#[tokio::test]
async fn started_task_is_served_before_any_read() {
    let sim = Sim::start().await.unwrap();
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
    // The task that is staging is read after this time.
    let wait = Duration::from_secs(5);
    let mut source = Source::new(&[sim.url()], Timing { quiet: wait, at_most: wait, ..quick() });
    source.sees(1234, &[(8080, State::Active)]).await;
    let staging = Place::new("10.0.0.2", 8081).state(TaskState::TaskStaging);
    let second = sim.launch("/web", &[staging]).unwrap().remove(0);
    source.sees(1234, &[(8080, State::Active), (8081, State::Warming)]).await;
    let reads = count(&sim, "/v2/apps");
    sim.set_state(&second, TaskState::TaskRunning).unwrap();
    source.sees(1234, &[(8080, State::Active), (8081, State::Active)]).await;
    sim.set_state(&second, TaskState::TaskKilled).unwrap();
    source.sees(1234, &[(8080, State::Active)]).await;
    assert_eq!(count(&sim, "/v2/apps"), reads, "it came and went before anything was read");
}

#[tokio::test]
async fn storm_of_events_causes_few_reads() {
    let sim = Sim::start().await.unwrap();
    let mut source = Source::of(&sim);
    source.snapshot().await;
    let begin = Instant::now();
    sim.create(ShortApp::new("/web", 1234)).unwrap();
    let mut clock = tokio::time::interval(MS);
    // On a slow machine the storm has pauses, and after each of them a read is right.
    let (mut last, mut pauses) = (begin, 0);
    for port in 8000..8200 {
        clock.tick().await;
        pauses += u128::from(last.elapsed() >= quick().quiet / 2);
        last = Instant::now();
        sim.launch("/web", &[Place::new("10.0.0.1", port)]).unwrap();
    }
    let all: Vec<_> = (8000..8200).map(|port| (port, State::Active)).collect();
    source.sees(1234, &all).await;
    let (reads, took) = (count(&sim, "/v2/apps"), begin.elapsed());
    let most = 3 + pauses + took.as_millis() / quick().at_most.as_millis();
    assert!(reads as u128 <= most, "{reads} reads in {took:?} with {pauses} pauses");
}

#[tokio::test]
async fn new_leader_without_health_results_removes_no_backend() {
    let sim = Sim::start().await.unwrap();
    let app = ShortApp::new("/web", 1234).checked().task("10.0.0.1", 8080).task("10.0.0.2", 8081);
    let tasks = sim.create(app).unwrap();
    let both = [(8080, State::Active), (8081, State::Active)];
    let mut source = Source::of(&sim);
    source.sees(1234, &both).await;
    sim.change_leader(None);
    assert_eq!(backends(&source.snapshot().await, 1234), both);
    sim.set_health(&tasks[0], Some(false)).unwrap();
    source.sees(1234, &[(8080, State::Draining), (8081, State::Active)]).await;
}

#[tokio::test]
async fn incomplete_response_is_a_failure_and_never_a_snapshot() {
    let sim = Sim::start().await.unwrap();
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
    let mut source = Source::of(&sim);
    source.sees(1234, &[(8080, State::Active)]).await;
    let garbage = "the JSON is not complete";
    for (port, kind, says) in [
        (1u16, FaultKind::Status(StatusCode::BAD_GATEWAY, "no".into()), "Marathon has no leader"),
        (2, FaultKind::Status(StatusCode::UNAUTHORIZED, "no".into()), "requires credentials"),
        (
            3,
            FaultKind::Status(StatusCode::OK, r#"{"message":"odd"}"#.into()),
            "answered JSON of another kind (missing field `apps`",
        ),
        (4, FaultKind::Status(StatusCode::OK, "pong".into()), "did not answer JSON"),
        (5, FaultKind::Status(StatusCode::OK, String::new()), "sent an empty response"),
        (6, FaultKind::Status(StatusCode::IM_A_TEAPOT, r#"{"message":"short and stout"}"#.into()), "short and stout"),
        (7, FaultKind::Html, "answered an HTML page, not JSON; is this Marathon?"),
        (8, FaultKind::Truncate, "broke off in the middle of its response"),
        (9, FaultKind::Garbage, garbage),
    ] {
        sim.fault(Fault::new(kind).on("/v2/apps"));
        sim.launch("/web", &[Place::new("10.0.0.2", port)]).unwrap();
        let (url, reason) = source.failure(port.into()).await;
        assert_eq!(url, format!("{}/v2/apps", sim.url()));
        assert!(reason.starts_with(&url) && reason.contains(says), "{says:?} is not in: {reason}");
        sim.fault(Fault::new(FaultKind::None));
        let mut expected: Vec<_> = (1..=port).map(|port| (port, State::Active)).collect();
        expected.push((8080, State::Active));
        source.sees(1234, &expected).await;
    }
}

#[tokio::test]
async fn failures_are_reported_once_and_then_rarely() {
    let sim = Sim::start().await.unwrap();
    sim.fault(Fault::status(StatusCode::BAD_GATEWAY));
    let timing = Timing { retry_first: MS, retry_most: MS, ..quick() };
    let mut source = Source::new(&[sim.url()], timing);
    let mut attempts = Vec::new();
    while attempts.len() < 6 {
        let Report::Failed { attempt, again_in, .. } = source.next().await else { panic!() };
        assert!(again_in <= MS);
        attempts.push(attempt);
    }
    assert_eq!(attempts, [1, 2, 4, 8, 16, 32]);
}

#[tokio::test]
async fn marathon_that_starts_late_is_found() {
    // Nobody listens on this socket yet, but nobody else can get its port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let mut source = Source::new(&[format!("http://{address}")], quick());
    let (url, reason) = source.failure(0).await;
    assert_eq!(reason, format!("{url} refused the connection; does Marathon run there?"));
    let sim = sim::serve(socket.listen(16).unwrap(), Options::default()).unwrap();
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
    source.sees(1234, &[(8080, State::Active)]).await;
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, State::Active), (8081, State::Active)]).await;
}

#[tokio::test]
async fn marathon_that_returns_is_read_and_followed_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    // The waits after failures have grown: Marathon has been away for a long time.
    let long = Duration::from_secs(600);
    let timing = Timing { retry_first: long, retry_most: long, blind: 20 * MS, ..quick() };
    let mut source = Source::new(&[format!("http://{address}")], timing);
    source.failure(0).await;
    let sim = sim::serve(TcpListener::bind(address).await.unwrap(), Options::default()).unwrap();
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
    source.sees(1234, &[(8080, State::Active)]).await;
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, State::Active), (8081, State::Active)]).await;
    let opened = async {
        while count(&sim, "/v2/events") == 0 {
            tokio::time::sleep(MS).await;
        }
    };
    timeout(PATIENCE, opened).await.expect("the first read that succeeds opens the stream");
}

#[tokio::test]
async fn changes_are_read_soon_while_there_is_no_stream() {
    let sim = Sim::start().await.unwrap();
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
    sim.fault(Fault::new(FaultKind::RefuseEvents));
    let long = Duration::from_secs(600);
    let timing = Timing { retry_first: long, retry_most: long, blind: 20 * MS, ..quick() };
    let mut source = Source::new(&[sim.url()], timing);
    source.sees(1234, &[(8080, State::Active)]).await;
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, State::Active), (8081, State::Active)]).await;
}

#[tokio::test]
async fn announced_end_drains_a_task_before_any_read() {
    let sim = Sim::start().await.unwrap();
    let app = ShortApp::new("/web", 1234).task("10.0.0.1", 8080).task("10.0.0.2", 8081);
    let first = sim.create(app).unwrap().remove(0);
    let wait = 2 * PATIENCE;
    let mut source = Source::new(&[sim.url()], Timing { quiet: wait, at_most: wait, ..quick() });
    source.sees(1234, &[(8080, State::Active), (8081, State::Active)]).await;
    let reads = count(&sim, "/v2/apps");
    sim.kill(&first).unwrap();
    source.sees(1234, &[(8080, State::Draining), (8081, State::Active)]).await;
    assert_eq!(count(&sim, "/v2/apps"), reads, "Mesos has not stopped it, and nothing was read");
}

/// Marathon lists a task that comes back under its instance with the results of the task before it, and sends no event
/// when its own check passes.
#[tokio::test]
async fn restarted_task_warms_until_its_own_check_passes() {
    let sim = Sim::start().await.unwrap();
    let app = json!({"id": "/web", "networks": [{"mode": "host"}], "portDefinitions": [{"port": 1234}],
        "healthChecks": [{"protocol": "TCP", "intervalSeconds": 1}]});
    let first = sim.create_full(app, &[Place::new("10.0.0.1", 8080), Place::new("10.0.0.2", 8081)]).unwrap().remove(0);
    let mut source = Source::of(&sim);
    source.sees(1234, &[(8080, State::Active), (8081, State::Active)]).await;
    let again = sim.restart(&first, &Place::new("10.0.0.1", 8082).alive(None)).unwrap();
    assert_eq!(again.strip_suffix("_app.2"), first.strip_suffix("_app.1"));
    source.sees(1234, &[(8081, State::Active), (8082, State::Warming)]).await;
    sim.deliver(Delivery { lost: true, ..Delivery::default() });
    sim.set_health(&again, Some(true)).unwrap();
    source.sees(1234, &[(8081, State::Active), (8082, State::Active)]).await;
}

#[tokio::test]
async fn silent_stream_is_closed_and_missed_changes_are_read() {
    let options = Options { heartbeat: 50 * MS, ..Options::default() };
    let sim = Sim::start_with(options).await.unwrap();
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
    let mut round = Instant::now();
    let mut source = Source::new(&[sim.url()], Timing { silence: 2000 * MS, attached: 1000 * MS, ..quick() });
    source.sees(1234, &[(8080, State::Active)]).await;
    // While this machine stalls, the simulator sends nothing either: then the source may attach and read once more.
    let stalled = |round: Instant| usize::from(round.elapsed() >= 500 * MS);
    let mut stalls = stalled(round);
    // Heartbeats keep the stream open for longer than the longest silence.
    let begin = Instant::now();
    while begin.elapsed() < 2500 * MS {
        round = Instant::now();
        let is_quiet = timeout(100 * MS, source.reports.recv()).await.is_err();
        stalls += stalled(round);
        assert!(is_quiet || stalls > 0, "there is nothing to report");
        assert!(count(&sim, "/v2/events") <= 1 + stalls);
    }
    let before = count(&sim, "/v2/events");
    sim.fault(Fault::new(FaultKind::SilentEvents));
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, State::Active), (8081, State::Active)]).await;
    assert!(count(&sim, "/v2/events") > before);
}

#[tokio::test]
async fn polling_continues_without_events() {
    let sim = Sim::start().await.unwrap();
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
    sim.fault(Fault::new(FaultKind::RefuseEvents));
    let mut source = Source::new(&[sim.url()], Timing { refresh: 50 * MS, ..quick() });
    source.sees(1234, &[(8080, State::Active)]).await;
    let (url, reason) = source.failure(0).await;
    assert_eq!(url, format!("{}/v2/events", sim.url()));
    assert!(reason.contains("no leader") && reason.ends_with("changes are seen only by polling"), "{reason}");
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, State::Active), (8081, State::Active)]).await;
}

#[tokio::test]
async fn tasks_keep_the_ports_of_their_version() {
    let sim = Sim::start().await.unwrap();
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
    let ports = json!([{"port": 1234, "protocol": "tcp"}, {"port": 1235, "protocol": "tcp"}]);
    sim.update_app(json!({"id": "/web", "portDefinitions": ports})).unwrap();
    sim.launch("/web", &[Place::with_ports("10.0.0.2", &[9000, 9001])]).unwrap();
    let mut source = Source::of(&sim);
    let snapshot = source.sees(1234, &[(8080, State::Active), (9000, State::Active)]).await;
    assert_eq!(backends(&snapshot, 1235), [(9001, State::Active)]);
    assert_eq!(snapshot.warnings, []);
    sim.launch("/web", &[Place::with_ports("10.0.0.3", &[9100, 9101])]).unwrap();
    source.sees(1235, &[(9001, State::Active), (9101, State::Active)]).await;
    assert_eq!(count(&sim, "/v2/apps/web/versions/"), 1);
}

#[tokio::test]
async fn missing_version_costs_only_its_tasks() {
    let sim = Sim::start().await.unwrap();
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
    let mut source = Source::of(&sim);
    source.sees(1234, &[(8080, State::Active)]).await;
    sim.fault(Fault::status(StatusCode::INTERNAL_SERVER_ERROR).on("/v2/apps/web/versions"));
    sim.update_app(json!({"id": "/web", "cmd": "newer"})).unwrap();
    let mut fresh = Source::of(&sim);
    let (url, reason) = fresh.failure(0).await;
    assert!(url.contains("/v2/apps/web/versions/") && reason.contains("answered 500"), "{reason}");
    sim.fault(Fault::status(StatusCode::NOT_FOUND).on("/v2/apps/web/versions"));
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    // The source that has seen the version as the present one needs no request.
    source.sees(1234, &[(8080, State::Active), (8081, State::Active)]).await;
    let snapshot = fresh.sees(1234, &[(8081, State::Active)]).await;
    assert_eq!(snapshot.warnings.len(), 1);
    assert!(snapshot.warnings[0].reason.contains("cannot be read"), "{:?}", snapshot.warnings);
}

/// A user may not see pods, and the request for pods may fail alone.
#[tokio::test]
async fn pods_stay_as_they_were_while_their_request_fails() {
    for status in [StatusCode::FORBIDDEN, StatusCode::INTERNAL_SERVER_ERROR] {
        let sim = Sim::start().await.unwrap();
        sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
        let labels = json!({"com.meltwater.proxymatic.servicePort": "700"});
        let endpoints =
            json!([{"name": "e", "containerPort": 7, "hostPort": 0, "protocol": ["tcp"], "labels": labels}]);
        let pod = json!({"id": "/pod", "networks": [{"mode": "container", "name": "ov"}],
            "containers": [{"name": "c", "endpoints": endpoints}]});
        let place = PodPlace { host: "10.0.0.5".into(), ip: [9, 0, 0, 5].into(), ports: Some(vec![31000]) };
        sim.create_pod(pod, &[place]).unwrap();
        let denied = || Fault::status(status).on("/v2/pods");
        sim.fault(denied());
        let mut source = Source::of(&sim);
        let first = source.sees(1234, &[(8080, State::Active)]).await;
        assert_eq!(backends(&first, 700), []);
        assert_eq!(first.warnings.len(), 1, "{:?}", first.warnings);
        let reason = &first.warnings[0].reason;
        assert!(reason.contains(status.as_str()) && reason.ends_with("until it does, no pod is served"), "{reason}");

        sim.fault(Fault::new(FaultKind::None));
        sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
        sim.elect(None);
        source.sees(700, &[(31000, State::Active)]).await;
        sim.fault(denied());
        sim.create(ShortApp::new("/other", 1235).task("10.0.0.3", 8082)).unwrap();
        let last = source.sees(1235, &[(8082, State::Active)]).await;
        assert_eq!(backends(&last, 700), [(31000, State::Active)]);
        let reasons: Vec<_> = last.warnings.iter().map(|it| it.reason.as_str()).collect();
        assert!(reasons.len() == 1 && reasons[0].ends_with("pods are served as they were last known"), "{reasons:?}");
    }
}

#[tokio::test]
async fn next_marathon_is_tried_if_one_fails() {
    let (broken, good) = (Sim::start().await.unwrap(), Sim::start().await.unwrap());
    for sim in [&broken, &good] {
        sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
    }
    broken.fault(Fault::new(FaultKind::Html));
    let mut source = Source::new(&[format!("{}, {}/", broken.url(), good.url())], quick());
    let Report::Snapshot { snapshot, .. } = source.next().await else { panic!() };
    assert_eq!(backends(&snapshot, 1234), [(8080, State::Active)]);
    let asked = broken.log().len();
    good.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, State::Active), (8081, State::Active)]).await;
    assert_eq!(broken.log().len(), asked, "the one that answered is asked first");
    good.fault(Fault::status(StatusCode::BAD_GATEWAY));
    good.create(ShortApp::new("/other", 1235)).unwrap();
    let (_, reason) = source.failure(0).await;
    assert!(reason.contains("no leader") && reason.contains("; http") && reason.contains("HTML page"), "{reason}");
}

/// Starts a server that sends one response to each request. Returns its address, and the requests so far.
async fn canned(answer: impl Fn(&str) -> String + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (mut request, mut buffer) = (String::new(), [0; 4096]);
            while !request.contains("\r\n\r\n") {
                let Ok(n @ 1..) = socket.read(&mut buffer).await else { break };
                request.push_str(&String::from_utf8_lossy(&buffer[..n]));
            }
            let answer = answer(&request);
            log.lock().expect("no panic while locked").push(request.to_ascii_lowercase());
            // The client may be gone.
            let _ = socket.write_all(answer.as_bytes()).await;
        }
    });
    (address, requests)
}

fn answer(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}", body.len())
}

#[tokio::test]
async fn credentials_go_only_to_configured_hosts() {
    let (stranger, at_stranger) = canned(|_| answer("401 Unauthorized", "", "")).await;
    let to_stranger = format!("Location: http://{stranger}/v2/events\r\n");
    let (leader, at_leader) = canned(move |request| match request.split([' ', '?']).nth(1) {
        Some("/base/v2/apps") => answer("200 OK", "Content-Type: application/json\r\n", r#"{"apps":[]}"#),
        Some("/base/v2/pods/::status") => answer("200 OK", "Content-Type: application/json\r\n", "[]"),
        _ => answer("302 Found", &to_stranger, ""),
    })
    .await;
    let to_leader = format!("Location: http://evil:evil@{leader}/base/v2/events?event_type=x\r\n");
    let (standby, at_standby) = canned(move |_| answer("302 Found", &to_leader, "")).await;
    // "me:%40" and "you:2" in base64.
    let urls = [format!("http://me:%40@{standby}"), format!("http://you:2@{leader}/base/")];
    let mut source = Source::new(&urls, Timing { retry_first: 200 * MS, ..quick() });
    assert!(source.snapshot().await.services.is_empty());
    let (url, reason) = source.failure(0).await;
    assert_eq!(url, format!("http://{stranger}/v2/events"));
    assert!(reason.contains("credentials go only to the hosts of --marathon"), "{reason}");
    let all = |log: &Mutex<Vec<String>>, wanted: &str| log.lock().unwrap().iter().all(|it| it.contains(wanted));
    assert!(all(&at_standby, "authorization: basic bwu6qa=="));
    assert!(all(&at_leader, "authorization: basic ew91oji="));
    assert!(all(&at_leader, "user-agent: proxymatic/"));
    let stranger = at_stranger.lock().unwrap().clone();
    assert!(!stranger.is_empty() && stranger.iter().all(|request| !request.contains("authorization")));

    let (round, at_round) = canned(|request| {
        let here = request.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        answer("302 Found", &format!("Location: http://{here}/again\r\n"), "")
    })
    .await;
    // The events are not requested a second time while the first read fails.
    let once = Timing { retry_first: 2 * PATIENCE, retry_most: 2 * PATIENCE, ..quick() };
    let mut source = Source::new(&[format!("http://{round}")], once);
    let (_, reason) = source.failure(0).await;
    assert!(reason.contains("answered 302") && reason.contains("not followed"), "{reason}");
    drop(source);
    let events = at_round.lock().unwrap().iter().filter(|it| !it.contains("get /v2/apps")).count();
    assert_eq!(events, 3);
}

#[tokio::test]
async fn source_ends_with_its_receiver() {
    let sim = Sim::start().await.unwrap();
    let mut source = Source::of(&sim);
    source.snapshot().await;
    source.reports.close();
    timeout(PATIENCE, &mut source.task).await.unwrap().unwrap();
}
