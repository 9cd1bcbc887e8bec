//! Staying current: the failures that others have had with Marathon, each staged, and in each no live backend is lost.

use std::time::{Duration, Instant};

use marathon_sim::{Delivery, Dialect, Fault, FaultKind, Options, Place, ShortApp, Sim, StatusCode, TaskState};
use proxymatic_user::{
    model::State::{Active, Draining},
    source::{Report, marathon::Timing},
};

use crate::watch::{MS, Source, backends, count, quick};

const LONG: Duration = Duration::from_secs(600);

/// A cluster with one app on 1234 with these tasks, and their ids.
async fn cluster(ports: &[u16]) -> (Sim, Vec<String>) {
    let sim = Sim::start().await.expect("a simulator");
    let app = ports.iter().fold(ShortApp::new("/web", 1234), |app, port| app.task("10.0.0.1", *port));
    let tasks = sim.create(app).expect("an app");
    sim.create(ShortApp::new("/other", 99).task("10.0.0.9", 9)).expect("an app");
    (sim, tasks)
}

/// A source that has seen these tasks, which live.
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
async fn leader_change_wipes_health_and_the_cluster_answers_502_but_every_backend_stays() {
    let sim = Sim::start().await.unwrap();
    let app = ShortApp::new("/web", 1234).checked().task("10.0.0.1", 8080).task("10.0.0.2", 8081);
    sim.create(app).unwrap();
    let mut source = watching(&sim, &[8080, 8081], quick()).await;
    sim.lose_leader(StatusCode::BAD_GATEWAY);
    let (_, reason) = source.trouble(2).await;
    assert!(reason.contains("no leader"), "{reason}");
    sim.elect(None);
    let snapshot = source.snapshot().await;
    assert_eq!(backends(&snapshot, 1234), [(8080, Active), (8081, Active)]);
}

#[tokio::test]
async fn no_leader_503_502_or_500_keeps_the_state_however_long() {
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
async fn sse_hangs_without_an_error_and_what_it_missed_is_seen() {
    let sim = Sim::start_with(Options { heartbeat: 50 * MS, ..Options::default() }).await.unwrap();
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
    let mut source = watching(&sim, &[8080], Timing { silence: 400 * MS, attached: 100 * MS, ..quick() }).await;
    sim.fault(Fault::new(FaultKind::SilentEvents));
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
}

#[tokio::test]
async fn events_that_are_missing_are_made_up_for_by_polling() {
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
async fn events_that_are_doubled_late_and_in_the_wrong_order_take_no_live_task() {
    let (sim, tasks) = cluster(&[8080, 8081]).await;
    let mut source = watching(&sim, &[8080, 8081], quick()).await;
    source.live(&[8081]);
    sim.deliver(Delivery { held: true, ..Delivery::default() });
    sim.set_state(&tasks[0], TaskState::TaskKilling).unwrap();
    sim.set_state(&tasks[0], TaskState::TaskKilled).unwrap();
    // Its address goes to another task at once.
    sim.launch("/web", &[Place::new("10.0.0.1", 8080)]).unwrap();
    sim.deliver(Delivery { reversed: true, twice: true, ..Delivery::default() });
    sim.launch("/web", &[Place::new("10.0.0.3", 8083)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active), (8083, Active)]).await;
    source.live(&[8080, 8081, 8083]);
    sim.launch("/web", &[Place::new("10.0.0.4", 8084)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active), (8083, Active), (8084, Active)]).await;
}

#[tokio::test]
async fn a_late_end_of_an_earlier_task_does_not_touch_the_next_one_of_its_instance() {
    let (sim, tasks) = cluster(&[8080, 8081]).await;
    let mut source = watching(&sim, &[8080, 8081], quick()).await;
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
async fn events_that_marathon_up_to_1_7_drops_for_a_slow_reader_are_made_up_for_by_polling() {
    let (sim, _) = cluster(&[8080]).await;
    sim.speak(Dialect::D15);
    let mut source = watching(&sim, &[8080], Timing { refresh: 50 * MS, ..quick() }).await;
    sim.deliver(Delivery { outstanding: Some(0), ..Delivery::default() });
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    assert_eq!((sim.streams(), count(&sim, "/v2/events")), (1, 1), "the stream has held");
}

#[tokio::test]
async fn a_slow_reader_that_marathon_disconnects_reads_what_it_missed() {
    let (sim, _) = cluster(&[8080]).await;
    let mut source = watching(&sim, &[8080], quick()).await;
    sim.deliver(Delivery { outstanding: Some(0), ..Delivery::default() });
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    sim.deliver(Delivery::default());
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    assert_eq!(count(&sim, "/v2/events"), 2);
}

#[tokio::test]
async fn an_event_of_an_unknown_type_takes_nothing_whatever_it_says() {
    let (sim, tasks) = cluster(&[8080, 8081]).await;
    let mut source = watching(&sim, &[8080, 8081], quick()).await;
    // Each says of the task that it was killed.
    sim.deliver(Delivery { strange: true, ..Delivery::default() });
    for task in &tasks {
        sim.set_state(task, TaskState::TaskRunning).unwrap();
    }
    sim.launch("/web", &[Place::new("10.0.0.3", 8082)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active), (8082, Active)]).await;
    assert_eq!(count(&sim, "/v2/events"), 1, "the stream has held");
}

#[tokio::test]
async fn a_listing_that_lags_behind_deployment_info_is_read_again() {
    let (sim, _) = cluster(&[8080]).await;
    let mut source = watching(&sim, &[8080], quick()).await;
    source.live(&[8080]);
    sim.hold_root(true);
    let before = listings(&sim);
    sim.create(ShortApp::new("/new", 4321).task("10.0.0.3", 9090)).unwrap();
    // Its task is told of, and the listing that is read for it does not have the app.
    let behind = source.snapshot().await;
    assert!(backends(&behind, 4321).is_empty() && listings(&sim) > before, "{behind:?}");
    sim.hold_root(false);
    source.sees(4321, &[(9090, Active)]).await;
}

#[tokio::test]
async fn a_reconnect_reads_what_happened_in_between() {
    let (sim, _) = cluster(&[8080]).await;
    let mut source = watching(&sim, &[8080], quick()).await;
    sim.deliver(Delivery { lost: true, ..Delivery::default() });
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    sim.deliver(Delivery::default());
    sim.close_streams();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
}

#[tokio::test]
async fn reload_storms_do_not_happen_as_events_of_one_app_read_that_app_only() {
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
async fn an_app_that_answers_404_is_gone_only_when_a_listing_says_so() {
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
async fn a_503_on_scale_down_does_not_happen_as_a_task_that_ends_leaves_before_anything_is_read() {
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
async fn what_events_announced_is_no_shrinkage_that_waits_for_a_second_answer() {
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
async fn an_empty_listing_for_a_moment_takes_nothing() {
    let (sim, _) = cluster(&[8080, 8081]).await;
    let mut source = watching(&sim, &[8080, 8081], quick()).await;
    let before = listings(&sim);
    sim.fault(Fault::new(FaultKind::Empty).on("/v2/apps").times(1));
    sim.close_streams();
    let doubted = source.snapshot().await;
    assert_eq!(doubted.warnings.len(), 1, "{:?}", doubted.warnings);
    assert!(doubted.warnings[0].reason.contains("and 1 others lost more than half"), "{:?}", doubted.warnings);
    while !source.snapshot().await.warnings.is_empty() {}
    assert!(listings(&sim) >= before + 2);
}

#[tokio::test]
async fn an_empty_listing_that_stays_is_believed_by_the_second_answer() {
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
async fn an_empty_listing_as_the_first_answer_is_doubted_too() {
    let (sim, _) = cluster(&[8080]).await;
    sim.fault(Fault::new(FaultKind::Empty).on("/v2/apps").times(1));
    let mut source = Source::of(&sim);
    let (_, reason) = source.trouble(0).await;
    assert!(reason.contains("has no app with a service port; that is believed if it says so again"), "{reason}");
    assert_eq!(backends(&source.snapshot().await, 1234), [(8080, Active)]);
}

#[tokio::test]
async fn a_listing_that_lost_60_percent_of_its_tasks_takes_none_until_a_second_one_has() {
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
async fn a_truncated_answer_about_one_app_takes_nothing() {
    let (sim, _) = cluster(&[8080]).await;
    let mut source = watching(&sim, &[8080], quick()).await;
    sim.fault(Fault::new(FaultKind::Truncate).on("/v2/apps").times(3));
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    let (_, reason) = source.trouble(1).await;
    assert!(reason.contains("broke off"), "{reason}");
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
}

#[tokio::test]
async fn frames_in_single_bytes_and_lines_beyond_64_kib_still_say_what_happened() {
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
async fn the_leader_is_asked_first_where_it_is_configured_and_a_standby_where_it_fails() {
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
    // The other one leads now.
    sim.elect(Some(&standby.addr.to_string()));
    sim.launch("/web", &[Place::new("10.0.0.3", 8082)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active), (8082, Active)]).await;
    sim.clear_log();
    sim.launch("/web", &[Place::new("10.0.0.4", 8083)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active), (8082, Active), (8083, Active)]).await;
    assert!(sim.log().iter().all(|request| request.node == standby.addr.to_string()), "{:?}", sim.log());
}

#[tokio::test]
async fn a_standby_that_is_the_only_one_leads_on_to_the_leader_for_events() {
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
async fn a_standby_up_to_1_6_that_passes_the_events_on_is_enough() {
    let (sim, _) = cluster(&[8080]).await;
    sim.speak(Dialect::D15);
    let standby = sim.node().await.unwrap();
    let mut source = Source::new(&[standby.url()], quick());
    source.sees(1234, &[(8080, Active)]).await;
    sim.launch("/web", &[Place::new("10.0.0.2", 8081)]).unwrap();
    source.sees(1234, &[(8080, Active), (8081, Active)]).await;
    assert!(sim.log().iter().all(|request| request.node == standby.addr.to_string()), "{:?}", sim.log());
}
