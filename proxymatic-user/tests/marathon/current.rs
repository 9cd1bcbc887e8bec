//! Known failures of other programs with Marathon. Each test stages one, and no live backend may be lost.

use std::time::{Duration, Instant};

use marathon_sim::{Delivery, Dialect, Fault, FaultKind, Options, Place, ShortApp, Sim, StatusCode, TaskState};
use proxymatic_user::{
    model::State::{Active, Draining},
    source::{Report, marathon::Timing},
};

use crate::watch::{MS, Source, backends, count, quick};

const LONG: Duration = Duration::from_secs(600);

/// Returns a cluster with one app on port 1234 with these tasks, and their ids.
async fn cluster(ports: &[u16]) -> (Sim, Vec<String>) {
    let sim = Sim::start().await.expect("a simulator");
    let app = ports.iter().fold(ShortApp::new("/web", 1234), |app, port| app.task("10.0.0.1", *port));
    let tasks = sim.create(app).expect("an app");
    sim.create(ShortApp::new("/other", 99).task("10.0.0.9", 9)).expect("an app");
    (sim, tasks)
}

/// Returns a source that has seen these tasks, which must stay active.
async fn watching(sim: &Sim, ports: &[u16], timing: Timing) -> Source {
    let mut source = Source::new(&[sim.url()], timing);
    let all: Vec<_> = ports.iter().map(|port| (*port, Active)).collect();
    source.sees(1234, &all).await;
    source.live(ports);
    source
}

fn listings(sim: &Sim) -> usize {
    sim.log().iter().filter(|request| request.path == "/v2/apps").count()
}

#[tokio::test]
async fn leader_change_without_health_and_with_502_keeps_backends() {
    let sim = Sim::start().await.unwrap();
    let app = ShortApp::new("/web", 1234).checked().task("10.0.0.1", 8080).task("10.0.0.2", 8081);
    sim.create(app).unwrap();
    let mut source = watching(&sim, &[8080, 8081], quick()).await;
    sim.lose_leader(StatusCode::BAD_GATEWAY);
    let (_, reason) = source.failure(2).await;
    assert!(reason.contains("no leader"), "{reason}");
    sim.elect(None);
    let snapshot = source.snapshot().await;
    assert_eq!(backends(&snapshot, 1234), [(8080, Active), (8081, Active)]);
}

#[tokio::test]
async fn leader_that_exits_costs_no_backend() {
    let sim = Sim::start().await.unwrap();
    sim.create(ShortApp::new("/web", 1234).checked().task("10.0.0.1", 8080).task("10.0.0.2", 8081)).unwrap();
    let standby = sim.node().await.unwrap();
    let mut source = Source::new(&[sim.url(), standby.url()], quick());
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    source.live(&[8080, 8081]);
    // The process of the leader ends, the other one has no leader for a while, and then no health result.
    assert!(sim.abdicate(LONG));
    source.failure(2).await;
    sim.elect(Some(&standby.addr.to_string()));
    sim.launch("/web", &[Place::new("10.0.0.3", 8082)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active), (8082, Active)]).await;
}

#[tokio::test]
async fn status_500_502_or_503_keeps_the_state() {
    for code in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::BAD_GATEWAY, StatusCode::INTERNAL_SERVER_ERROR] {
        let (sim, _) = cluster(&[8080]).await;
        let mut source = watching(&sim, &[8080], Timing { retry_first: MS, retry_most: MS, ..quick() }).await;
        sim.lose_leader(code);
        let mut attempts = 0;
        while attempts < 64 {
            match source.next().await {
                Report::Failed { attempt, .. } => attempts = attempt,
                Report::Snapshot { .. } => panic!("a snapshot while nobody leads"),
            }
        }
        sim.elect(None);
        sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
        source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    }
}

#[tokio::test]
async fn hanging_stream_is_replaced_and_missed_changes_are_read() {
    let sim = Sim::start_with(Options { heartbeat: 50 * MS, ..Options::default() }).await.unwrap();
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
    let mut source = watching(&sim, &[8080], Timing { silence: 400 * MS, attached: 100 * MS, ..quick() }).await;
    sim.fault(Fault::new(FaultKind::SilentEvents));
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
}

#[tokio::test]
async fn lost_events_are_replaced_by_polling() {
    let (sim, tasks) = cluster(&[8080, 8081]).await;
    let mut source = watching(&sim, &[8080, 8081], Timing { refresh: 50 * MS, ..quick() }).await;
    sim.deliver(Delivery { lost: true, ..Delivery::default() });
    source.live(&[8081]);
    sim.set_state(&tasks[0], TaskState::TaskKilled).unwrap();
    source.sees(1234, &[(8081, Active)]).await;
    sim.launch("/web", &[Place::new("10.0.0.2", 8082)]).unwrap();
    source.sees(1234, &[(8081, Active), (8082, Active)]).await;
}

#[tokio::test]
async fn duplicate_late_and_reordered_events_keep_live_tasks() {
    let (sim, tasks) = cluster(&[8080, 8081]).await;
    let mut source = watching(&sim, &[8080, 8081], quick()).await;
    source.live(&[8081]);
    sim.deliver(Delivery { held: true, ..Delivery::default() });
    sim.set_state(&tasks[0], TaskState::TaskKilling).unwrap();
    sim.set_state(&tasks[0], TaskState::TaskKilled).unwrap();
    // Another task gets its address at once.
    sim.launch("/web", &[Place::new("10.0.0.1", 8080)]).unwrap();
    sim.deliver(Delivery { reversed: true, twice: true, ..Delivery::default() });
    sim.launch("/web", &[Place::new("10.0.0.3", 8083)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active), (8083, Active)]).await;
    source.live(&[8080, 8081, 8083]);
    sim.launch("/web", &[Place::new("10.0.0.4", 8084)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active), (8083, Active), (8084, Active)]).await;
}

#[tokio::test]
async fn late_end_of_a_task_keeps_the_next_task_of_its_instance() {
    let (sim, tasks) = cluster(&[8080, 8081]).await;
    // The announcements of the next streams are held too.
    let mut source = watching(&sim, &[8080, 8081], Timing { attached: 100 * MS, ..quick() }).await;
    sim.deliver(Delivery { held: true, ..Delivery::default() });
    sim.set_state(&tasks[0], TaskState::TaskFailed).unwrap();
    source.live(&[8081]);
    let before = listings(&sim);
    sim.close_streams();
    source.sees(1234, &[(8081, Active)]).await;
    sim.launch("/web", &[Place::new("10.0.0.1", 8080)]).unwrap();
    sim.close_streams();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    source.live(&[8080, 8081]);
    sim.deliver(Delivery::default());
    sim.launch("/web", &[Place::new("10.0.0.1", 8082)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active), (8082, Active)]).await;
    assert!(listings(&sim) >= before + 2);
}

#[tokio::test]
async fn events_dropped_for_a_slow_reader_are_replaced_by_polling() {
    let (sim, _) = cluster(&[8080]).await;
    sim.speak(Dialect::D15);
    let mut source = watching(&sim, &[8080], Timing { refresh: 50 * MS, ..quick() }).await;
    sim.deliver(Delivery { outstanding: Some(0), ..Delivery::default() });
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    assert_eq!((sim.streams(), count(&sim, "/v2/events")), (1, 1), "the stream has held");
}

#[tokio::test]
async fn disconnected_slow_reader_reads_missed_changes() {
    let (sim, _) = cluster(&[8080]).await;
    let mut source = watching(&sim, &[8080], quick()).await;
    sim.deliver(Delivery { outstanding: Some(0), ..Delivery::default() });
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    sim.deliver(Delivery::default());
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    assert_eq!(count(&sim, "/v2/events"), 2);
}

#[tokio::test]
async fn event_of_an_unknown_type_removes_nothing() {
    let (sim, tasks) = cluster(&[8080, 8081]).await;
    let mut source = watching(&sim, &[8080, 8081], quick()).await;
    // Each event says that the task was killed.
    sim.deliver(Delivery { strange: true, ..Delivery::default() });
    for task in &tasks {
        sim.set_state(task, TaskState::TaskRunning).unwrap();
    }
    sim.launch("/web", &[Place::new("10.0.0.3", 8082)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active), (8082, Active)]).await;
    assert_eq!(count(&sim, "/v2/events"), 1, "the stream has held");
}

#[tokio::test]
async fn listing_that_lags_behind_its_event_is_read_again() {
    let (sim, _) = cluster(&[8080]).await;
    let mut source = watching(&sim, &[8080], quick()).await;
    source.live(&[8080]);
    sim.hold_root(true);
    let before = listings(&sim);
    sim.create(ShortApp::new("/new", 4321).task("10.0.0.3", 9090)).unwrap();
    // The event names its task, and the response that is read after the event does not have the app.
    let behind = source.snapshot().await;
    assert!(backends(&behind, 4321).is_empty() && count(&sim, "/v2/apps/new") > 0, "{behind:?}");
    assert_eq!(listings(&sim), before, "the event names the app");
    sim.hold_root(false);
    source.sees(4321, &[(9090, Active)]).await;
}

#[tokio::test]
async fn reconnect_reads_missed_changes() {
    let (sim, _) = cluster(&[8080]).await;
    let mut source = watching(&sim, &[8080], quick()).await;
    sim.deliver(Delivery { lost: true, ..Delivery::default() });
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    sim.deliver(Delivery::default());
    sim.close_streams();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
}

#[tokio::test]
async fn deployment_reads_only_what_it_names() {
    let (sim, _) = cluster(&[8080]).await;
    // No deployment was announced before the stream was attached.
    let timing = Timing { unannounced: Duration::ZERO, ..quick() };
    let mut source = watching(&sim, &[8080], timing).await;
    let before = listings(&sim);
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    sim.create(ShortApp::new("/new", 4321).task("10.0.0.3", 9090)).unwrap();
    source.sees(4321, &[(9090, Active)]).await;
    assert_eq!(listings(&sim), before, "the deployments name their apps");
}

/// A user may see some apps only, but the events of all of them.
#[tokio::test]
async fn event_of_a_hidden_app_is_no_failure() {
    let (sim, _) = cluster(&[8080]).await;
    // No deployment was announced before the stream was attached.
    let timing = Timing { unannounced: Duration::ZERO, ..quick() };
    let mut source = watching(&sim, &[8080], timing).await;
    sim.fault(Fault::status(StatusCode::FORBIDDEN).on("/v2/apps/hidden"));
    sim.create(ShortApp::new("/hidden", 4321).task("10.0.0.3", 9090)).unwrap();
    loop {
        match source.next().await {
            Report::Failed { reason, .. } => panic!("{reason}"),
            Report::Snapshot { snapshot, .. } if backends(&snapshot, 4321) == [(9090, Active)] => break,
            Report::Snapshot { .. } => {}
        }
    }
}

#[tokio::test]
async fn event_of_one_app_reads_only_that_app() {
    let sim = Sim::start().await.unwrap();
    let app = ShortApp::new("/web", 1234).checked().task("10.0.0.1", 8080).task("10.0.0.2", 8081);
    let tasks = sim.create(app).unwrap();
    let mut source = watching(&sim, &[8080, 8081], quick()).await;
    let before = listings(&sim);
    source.live(&[8080]);
    sim.set_health(&tasks[1], Some(false)).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Draining)]).await;
    sim.set_health(&tasks[1], Some(true)).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    assert_eq!(listings(&sim), before);
    assert!(count(&sim, "/v2/apps/web") >= 2);
}

#[tokio::test]
async fn app_with_404_is_gone_only_after_a_listing() {
    let sim = Sim::start().await.unwrap();
    let app = ShortApp::new("/web", 1234).checked().task("10.0.0.1", 8080).task("10.0.0.2", 8081);
    let tasks = sim.create(app).unwrap();
    let mut source = watching(&sim, &[8080, 8081], quick()).await;
    source.live(&[8080]);
    let before = listings(&sim);
    sim.fault(Fault::status(StatusCode::NOT_FOUND).on("/v2/apps/web"));
    sim.set_health(&tasks[1], Some(false)).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Draining)]).await;
    assert_eq!(listings(&sim), before + 1);
}

#[tokio::test]
async fn ended_task_leaves_before_the_next_read() {
    let (sim, tasks) = cluster(&[8080, 8081, 8082]).await;
    let mut source = watching(&sim, &[8080, 8081, 8082], quick()).await;
    source.live(&[8082]);
    sim.fault(Fault::status(StatusCode::BAD_GATEWAY).on("/v2/apps"));
    sim.set_state(&tasks[0], TaskState::TaskKilling).unwrap();
    source.sees(1234, &[(8080, Draining), (8081, Active), (8082, Active)]).await;
    sim.set_state(&tasks[0], TaskState::TaskKilled).unwrap();
    sim.set_state(&tasks[1], TaskState::TaskFailed).unwrap();
    source.sees(1234, &[(8082, Active)]).await;
}

#[tokio::test]
async fn loss_that_events_announced_needs_no_second_response() {
    let (sim, tasks) = cluster(&[8080, 8081, 8082, 8083]).await;
    let mut source = watching(&sim, &[8080, 8081, 8082, 8083], Timing { confirm: LONG, ..quick() }).await;
    source.live(&[8083]);
    for task in &tasks[..3] {
        sim.set_state(task, TaskState::TaskKilled).unwrap();
    }
    source.sees(1234, &[(8083, Active)]).await;
    let snapshot = source.snapshot().await;
    assert_eq!((backends(&snapshot, 1234), snapshot.warnings), (vec![(8083, Active)], vec![]), "read again");
}

#[tokio::test]
async fn empty_listing_for_a_moment_removes_nothing() {
    let (sim, _) = cluster(&[8080, 8081]).await;
    let mut source = watching(&sim, &[8080, 8081], quick()).await;
    let before = listings(&sim);
    sim.fault(Fault::new(FaultKind::Empty).on("/v2/apps").times(1));
    sim.close_streams();
    let first = source.snapshot().await;
    assert_eq!(first.warnings.len(), 1, "{:?}", first.warnings);
    assert!(first.warnings[0].reason.contains("and 1 others lost more than half"), "{:?}", first.warnings);
    while !source.snapshot().await.warnings.is_empty() {}
    assert!(listings(&sim) >= before + 2);
}

#[tokio::test]
async fn empty_listing_counts_after_a_second_response() {
    let (sim, _) = cluster(&[8080]).await;
    let mut source = Source::of(&sim);
    source.sees(1234, &[(8080, Active)]).await;
    let begin = Instant::now();
    sim.fault(Fault::new(FaultKind::Empty).on("/v2/apps"));
    sim.close_streams();
    while !source.snapshot().await.services.is_empty() {}
    assert!(begin.elapsed() >= quick().confirm);
}

#[tokio::test]
async fn empty_first_listing_needs_a_second_response() {
    let (sim, _) = cluster(&[8080]).await;
    sim.fault(Fault::new(FaultKind::Empty).on("/v2/apps").times(1));
    let mut source = Source::of(&sim);
    let (_, reason) = source.failure(0).await;
    assert!(
        reason.contains("has no app with a service port; this counts if a second response confirms it"),
        "{reason}"
    );
    assert_eq!(backends(&source.snapshot().await, 1234), [(8080, Active)]);
}

#[tokio::test]
async fn loss_of_60_percent_needs_a_second_response() {
    let ports: Vec<u16> = (8080..8090).collect();
    let (sim, _) = cluster(&ports).await;
    let mut source = watching(&sim, &ports, quick()).await;
    sim.fault(Fault::new(FaultKind::LoseTasks(60)).on("/v2/apps").times(1));
    sim.close_streams();
    assert_eq!(source.snapshot().await.warnings.len(), 1);
    while !source.snapshot().await.warnings.is_empty() {}
    source.live(&[]);
    sim.fault(Fault::new(FaultKind::LoseTasks(60)).on("/v2/apps"));
    sim.close_streams();
    let left: Vec<_> = ports[..4].iter().map(|port| (*port, Active)).collect();
    source.sees(1234, &left).await;
}

#[tokio::test]
async fn truncated_response_about_one_app_removes_nothing() {
    let (sim, _) = cluster(&[8080]).await;
    let mut source = watching(&sim, &[8080], quick()).await;
    sim.fault(Fault::new(FaultKind::Truncate).on("/v2/apps").times(3));
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    let (_, reason) = source.failure(1).await;
    assert!(reason.contains("broke off"), "{reason}");
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
}

#[tokio::test]
async fn frames_in_single_bytes_and_long_lines_are_read() {
    let (sim, tasks) = cluster(&[8080, 8081]).await;
    let mut source = watching(&sim, &[8080, 8081], quick()).await;
    source.live(&[8081]);
    sim.deliver(Delivery { pieces: Some(1), ..Delivery::default() });
    sim.set_state(&tasks[0], TaskState::TaskKilling).unwrap();
    source.sees(1234, &[(8080, Draining), (8081, Active)]).await;
    sim.deliver(Delivery { padding: 100 << 10, ..Delivery::default() });
    sim.set_state(&tasks[0], TaskState::TaskKilled).unwrap();
    source.sees(1234, &[(8081, Active)]).await;
    assert_eq!(count(&sim, "/v2/events"), 1, "the stream has held");
}

#[tokio::test]
async fn leader_is_tried_first_and_a_standby_if_it_fails() {
    let (sim, _) = cluster(&[8080]).await;
    let standby = sim.node().await.unwrap();
    let mut source = Source::new(&[standby.url(), sim.url()], quick());
    source.sees(1234, &[(8080, Active)]).await;
    source.live(&[8080]);
    sim.clear_log();
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    let leader = sim.addr.to_string();
    assert!(sim.log().iter().all(|request| request.node == leader), "{:?}", sim.log());
    // The other Marathon leads now.
    sim.elect(Some(&standby.addr.to_string()));
    sim.launch("/web", &[Place::new("10.0.0.3", 8082)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active), (8082, Active)]).await;
    sim.clear_log();
    sim.launch("/web", &[Place::new("10.0.0.4", 8083)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active), (8082, Active), (8083, Active)]).await;
    assert!(sim.log().iter().all(|request| request.node == standby.addr.to_string()), "{:?}", sim.log());
}

#[tokio::test]
async fn single_standby_redirects_to_the_leader_for_events() {
    let (sim, _) = cluster(&[8080]).await;
    let standby = sim.node().await.unwrap();
    let mut source = Source::new(&[standby.url()], quick());
    source.sees(1234, &[(8080, Active)]).await;
    source.live(&[8080]);
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    let events: Vec<_> = sim.log().into_iter().filter(|it| it.path == "/v2/events").map(|it| it.node).collect();
    assert_eq!(events, [standby.addr.to_string(), sim.addr.to_string()]);
}

#[tokio::test]
async fn standby_of_marathon_1_6_forwards_events() {
    let (sim, _) = cluster(&[8080]).await;
    sim.speak(Dialect::D15);
    let standby = sim.node().await.unwrap();
    let mut source = Source::new(&[standby.url()], quick());
    source.sees(1234, &[(8080, Active)]).await;
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    assert!(sim.log().iter().all(|request| request.node == standby.addr.to_string()), "{:?}", sim.log());
}
