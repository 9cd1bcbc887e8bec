//! The Marathon source against the dialects of all Marathon versions: the same cluster has the same snapshot in each.

use std::{collections::BTreeMap, net::IpAddr, num::NonZeroU32, time::Duration};

use marathon_sim::{Dialect, Mode, Options, Place, PodPlace, ShortApp, Sim, TaskState};
use proxymatic_user::{
    model::{Snapshot, State},
    source::{
        Report,
        marathon::{self, ClaimRules, Config, Timing},
    },
};
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};

const MS: Duration = Duration::from_millis(1);

/// Returns short durations, but no poll that could hide a missed event.
fn quick() -> Timing {
    Timing { refresh: Duration::from_secs(600), quiet: 20 * MS, at_most: 200 * MS, ..Timing::default() }
}

/// Starts a source and returns its reports.
fn source(sim: &Sim) -> mpsc::Receiver<Report> {
    let (send, reports) = mpsc::channel(64);
    let config = Config::new(&[sim.url()], Duration::from_secs(60), NonZeroU32::MIN).expect("a good URL");
    let vip_networks = vec!["192.0.2.0/24".parse().expect("a network")];
    let claims = ClaimRules { vip_networks, ..ClaimRules::default() };
    tokio::spawn(marathon::run(Config { timing: quick(), seed: 1, claims, ..config }, send));
    reports
}

/// Returns the services with their backends. The names of tasks are left out, because they differ between dialects.
type Seen = BTreeMap<String, Vec<(IpAddr, u16, State)>>;

fn seen(snapshot: &Snapshot) -> Seen {
    let service = |service: &proxymatic_user::model::Service| {
        let mut backends: Vec<_> = service.backends.iter().map(|it| (it.address, it.port, it.state)).collect();
        backends.sort_unstable();
        backends
    };
    snapshot.services.iter().map(|(key, it)| (format!("{key} {}", it.name), service(it))).collect()
}

/// Waits for the expected snapshot.
async fn sees(reports: &mut mpsc::Receiver<Report>, what: &str, wanted: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let mut last = None;
    let look = async {
        while let Some(report) = reports.recv().await {
            if let Report::Snapshot { snapshot, .. } = &report
                && wanted(snapshot)
            {
                return Some(snapshot.clone());
            }
            last = Some(report);
        }
        None
    };
    match timeout(Duration::from_secs(30), look).await {
        Ok(Some(snapshot)) => snapshot,
        _ => panic!("{what}: not seen; last: {last:?}"),
    }
}

/// Creates an app in each network mode, a canary, a check that fails and a check without a result.
fn fill(sim: &Sim) {
    let host = ShortApp::new("/host", 1000).protocol("udp,tcp").task("10.0.0.1", 31000).task("10.0.0.2", 31001);
    let bridge = ShortApp::new("/bridge", 1001).mode(Mode::Bridge).task("10.0.0.1", 31002);
    let own = Place::new("10.0.0.3", 80).ip([9, 0, 0, 5].into());
    let overlay = ShortApp::new("/overlay", 1002).mode(Mode::Container).place(own);
    let checked = ShortApp::new("/checked", 1003)
        .checked()
        .place(Place::new("10.0.0.1", 31003))
        .place(Place::new("10.0.0.2", 31004).alive(Some(false)))
        .place(Place::new("10.0.0.3", 31005).alive(None));
    let canary = ShortApp::new("/canary", 0)
        .label("com.meltwater.proxymatic.port.0.servicePort", "1001")
        .label("com.meltwater.proxymatic.port.0.weight", "50")
        .task("10.0.0.9", 31006);
    for app in [host, bridge, overlay, checked, canary] {
        sim.create(app).expect("an app");
    }
}

fn expected() -> Seen {
    let at = |last, port, state| (IpAddr::from([10, 0, 0, last]), port, state);
    let host = vec![at(1, 31000, State::Active), at(2, 31001, State::Active)];
    let checked = vec![at(1, 31003, State::Active), at(2, 31004, State::Draining), at(3, 31005, State::Warming)];
    [
        ("1000/tcp /host", host.clone()),
        ("1000/udp /host", host),
        ("1001/tcp /bridge", vec![at(1, 31002, State::Active), at(9, 31006, State::Active)]),
        ("1002/tcp /overlay", vec![([9, 0, 0, 5].into(), 80, State::Active)]),
        ("1003/tcp /checked", checked),
    ]
    .map(|(name, backends)| (name.to_owned(), backends))
    .into()
}

/// Checks that the cluster has the same snapshot in a dialect, before and after changes.
async fn speaks(dialect: Dialect) {
    let sim = Sim::start_with(Options { dialect, ..Options::default() }).await.expect("a simulator");
    fill(&sim);
    let mut reports = source(&sim);
    let first = sees(&mut reports, "the first snapshot", |_| true).await;
    assert_eq!(seen(&first), expected(), "{dialect:?}");
    assert_eq!(first.warnings, [], "{dialect:?}");

    let third = sim.launch("/host", &[Place::new("10.0.0.3", 31007)]).expect("taken by the simulator").remove(0);
    let has = |snapshot: &Snapshot, port| seen(snapshot)["1000/tcp /host"].iter().any(|it| it.1 == port);
    sees(&mut reports, "a task that has come", |snapshot| has(snapshot, 31007)).await;
    sim.set_state(&third, TaskState::TaskKilled).expect("taken by the simulator");
    let last = sees(&mut reports, "a task that is gone", |snapshot| !has(snapshot, 31007)).await;
    assert_eq!(seen(&last), expected(), "{dialect:?}");
    // Tasks of an earlier version keep its ports, which the source requests in the same dialect.
    let ports = json!([{"port": 1000, "protocol": "udp,tcp"}, {"port": 1010, "protocol": "tcp"}]);
    sim.update_app(json!({"id": "/host", "portDefinitions": ports})).expect("taken by the simulator");
    let grown = |snapshot: &Snapshot| seen(snapshot).contains_key("1010/tcp /host");
    let grown = sees(&mut reports, "another definition", grown).await;
    let mut wanted = expected();
    wanted.insert("1010/tcp /host".into(), Vec::new());
    assert_eq!(seen(&grown), wanted, "{dialect:?}");
    assert_eq!(grown.warnings, [], "{dialect:?}");
}

#[tokio::test]
async fn marathon_1_3_has_the_same_snapshot() {
    speaks(Dialect::D13).await;
}

#[tokio::test]
async fn marathon_1_4_has_the_same_snapshot() {
    speaks(Dialect::D14).await;
}

#[tokio::test]
async fn marathon_1_5_has_the_same_snapshot() {
    speaks(Dialect::D15).await;
}

#[tokio::test]
async fn marathon_1_8_has_the_same_snapshot() {
    speaks(Dialect::D18).await;
}

#[tokio::test]
async fn upgrade_of_marathon_removes_nothing() {
    let sim = Sim::start_with(Options { dialect: Dialect::D13, ..Options::default() }).await.unwrap();
    fill(&sim);
    let mut reports = source(&sim);
    sees(&mut reports, "the first snapshot", |snapshot| seen(snapshot) == expected()).await;
    for (dialect, port) in ["1.3", "1.4", "1.5", "1.8"].into_iter().zip(32_000..) {
        sim.command("dialect", json!({ "dialect": dialect })).unwrap();
        let new = sim.launch("/host", &[Place::new("10.0.0.3", port)]).unwrap().remove(0);
        let came = |snapshot: &Snapshot| seen(snapshot)["1000/tcp /host"].len() == 3;
        sees(&mut reports, "a task that has come", came).await;
        sim.set_state(&new, TaskState::TaskKilled).unwrap();
        sees(&mut reports, "a task that is gone", |snapshot| seen(snapshot) == expected()).await;
    }
}

#[tokio::test]
async fn task_addresses_of_ipv6_are_read() {
    let sim = Sim::start().await.unwrap();
    let own: IpAddr = "fd01::5".parse().unwrap();
    let overlay = ShortApp::new("/overlay", 1002).mode(Mode::Container).place(Place::new("a3", 80).ip(own));
    sim.create(overlay).unwrap();
    let snapshot = sees(&mut source(&sim), "the first snapshot", |_| true).await;
    assert_eq!(seen(&snapshot)["1002/tcp /overlay"], [(own, 80, State::Active)]);
}

/// A pod of two containers: `web`, checked and on a port of its host, and `dns` at its own address.
fn pod(labels: serde_json::Value) -> serde_json::Value {
    json!({"id": "/pod", "networks": [{"mode": "container", "name": "ov"}], "containers": [
        {"name": "c1", "healthCheck": {"tcp": {"endpoint": "web"}}, "endpoints": [
            {"name": "web", "containerPort": 80, "hostPort": 0, "protocol": ["tcp"], "labels": labels}]},
        {"name": "c2", "endpoints": [{"name": "dns", "containerPort": 53, "protocol": ["udp"],
            "labels": {"VIP_0": "192.0.2.53:53"}}]}]})
}

#[tokio::test]
async fn pods_are_served_by_label_and_follow_their_containers() {
    for dialect in [Dialect::D14, Dialect::D15, Dialect::D18] {
        let sim = Sim::start_with(Options { dialect, ..Options::default() }).await.unwrap();
        let place = |last, port| PodPlace {
            host: format!("10.0.0.{last}"),
            ip: [9, 0, 0, last].into(),
            ports: Some(vec![port]),
        };
        let labels = json!({"com.meltwater.proxymatic.servicePort": "1000"});
        let ids = sim.create_pod(pod(labels), &[place(1, 31000), place(2, 31001)]).unwrap();
        let mut reports = source(&sim);
        let at = |last, port, state| (IpAddr::from([10, 0, 0, last]), port, state);
        let web = |snapshot: &Snapshot| seen(snapshot).get("1000/tcp /pod").cloned().unwrap_or_default();
        let both = vec![at(1, 31000, State::Active), at(2, 31001, State::Active)];
        let first = sees(&mut reports, "two instances", |snapshot| web(snapshot) == both).await;
        let dns = [1, 2].map(|last| (IpAddr::from([9, 0, 0, last]), 53, State::Active));
        assert_eq!(seen(&first)["192.0.2.53:53/udp /pod"], dns);
        let failing = vec![at(1, 31000, State::Draining), at(2, 31001, State::Active)];
        sim.set_container(&ids[0], "c1", TaskState::TaskRunning, Some(false)).unwrap();
        let snapshot = sees(&mut reports, "a check that fails", |snapshot| web(snapshot) == failing).await;
        let all: Vec<_> = seen(&snapshot)["192.0.2.53:53/udp /pod"].iter().map(|it| it.2).collect();
        assert_eq!(all, [State::Active; 2], "the other container of the instance");
        // A new leader has no results, so the last results stay.
        sim.change_leader(None);
        sim.set_container(&ids[0], "c1", TaskState::TaskRunning, Some(true)).unwrap();
        sees(&mut reports, "health carried over", |snapshot| web(snapshot) == both).await;
        // Instances of an earlier version keep its labels.
        sim.create_pod(pod(json!({"com.meltwater.proxymatic.servicePort": "2000"})), &[place(3, 31002)]).unwrap();
        let new = |snapshot: &Snapshot| seen(snapshot).get("2000/tcp /pod").map(Vec::len) == Some(1);
        let snapshot = sees(&mut reports, "another version", new).await;
        assert_eq!(web(&snapshot), both);
        sim.set_container(&ids[1], "c1", TaskState::TaskKilled, None).unwrap();
        let one = vec![at(1, 31000, State::Active)];
        sees(&mut reports, "a container that has ended", |snapshot| web(snapshot) == one).await;
    }
}

#[tokio::test]
async fn marathon_without_pods_is_not_a_failure() {
    let sim = Sim::start_with(Options { dialect: Dialect::D13, ..Options::default() }).await.unwrap();
    sim.create(ShortApp::new("/web", 1234).task("10.0.0.1", 8080)).unwrap();
    let mut reports = source(&sim);
    let report = timeout(Duration::from_secs(30), reports.recv()).await.unwrap().unwrap();
    assert!(matches!(report, Report::Snapshot { .. }), "{report:?}");
}
