//! The owner of a port that several apps claim: the requests that decide it, and one wrong listing, which must not move it.

use marathon_sim::{Fault, FaultKind, ShortApp, Sim, StatusCode};
use proxymatic_user::{
    model::{Protocol, ServiceKey, Snapshot, State},
    source::{
        Source as _,
        marathon::{Config, run},
    },
};
use tokio::sync::mpsc;

use crate::watch::{PATIENCE, Source, backends, count, quick};

const KEY: ServiceKey = ServiceKey::host(1234, Protocol::Tcp);

/// Two apps of different groups to which Marathon assigned one port. The one that comes first by id is younger.
async fn contest() -> Sim {
    let sim = Sim::start().await.expect("a simulated Marathon");
    for (id, port) in [("/z/web", 8080), ("/a/evil", 6666)] {
        let before = sim.state();
        sim.create(ShortApp::new(id, 1234).task("10.0.0.1", port)).expect("an app");
        assert_ne!(sim.state(), before);
    }
    sim
}

fn owner(snapshot: &Snapshot) -> Option<&str> {
    snapshot.services[&KEY].owner.as_deref()
}

#[tokio::test]
async fn versions_are_requested_once_and_only_for_a_contested_port() {
    let sim = contest().await;
    sim.create(ShortApp::new("/other", 99).task("10.0.0.2", 1)).unwrap();
    let mut source = Source::of(&sim);
    let first = source.sees(1234, &[(8080, State::Active)]).await;
    assert_eq!((owner(&first), first.warnings.len()), (Some("/z/web"), 1));
    assert_eq!(first.warnings[0].app, "/a/evil");
    // A member of the owner's group causes further reads, and no request for versions.
    sim.create(ShortApp::new("/z/canary", 1234).task("10.0.0.3", 8081)).unwrap();
    let both = source.sees(1234, &[(8080, State::Active), (8081, State::Active)]).await;
    assert_eq!(owner(&both), Some("/z/web"));
    for app in ["/v2/apps/z/web/versions", "/v2/apps/a/evil/versions"] {
        assert_eq!(count(&sim, app), 1, "{app}");
    }
    assert_eq!(count(&sim, "/v2/apps/other"), 0);
}

#[tokio::test]
async fn port_goes_to_the_first_id_while_versions_are_not_listed() {
    for kind in [
        FaultKind::Garbage,
        FaultKind::Html,
        FaultKind::Truncate,
        FaultKind::Status(StatusCode::NOT_FOUND, String::new()),
    ] {
        let sim = contest().await;
        sim.fault(Fault::new(kind.clone()).on("/v2/apps/z/web/versions"));
        let mut source = Source::of(&sim);
        let snapshot = source.sees(1234, &[(6666, State::Active)]).await;
        assert_eq!(owner(&snapshot), None, "{kind:?}: the choice is made again");
        assert!(snapshot.warnings[0].reason.contains("while Marathon does not list the versions of both"));
    }
}

#[tokio::test]
async fn adopted_owner_stays_and_nothing_is_requested() {
    let sim = contest().await;
    let mut source = Source::of(&sim);
    let mut served = source.sees(1234, &[(8080, State::Active)]).await;
    drop(source);
    sim.clear_log();
    let service = std::sync::Arc::make_mut(served.services.get_mut(&KEY).unwrap());
    service.owner = Some("/a/evil".into());
    let mut config = Config::new(&[sim.url()], PATIENCE, std::num::NonZeroU32::MIN).unwrap();
    config.set_served(served);
    let (reports, mut received) = mpsc::channel(8);
    let task = tokio::spawn(run(Config { timing: quick(), ..config }, reports));
    let report = tokio::time::timeout(PATIENCE, received.recv()).await.unwrap().unwrap();
    let proxymatic_user::source::Report::Snapshot { snapshot, .. } = report else { panic!("{report:?}") };
    assert_eq!((owner(&snapshot), backends(&snapshot, 1234)), (Some("/a/evil"), vec![(6666, State::Active)]));
    assert_eq!(count(&sim, "/v2/apps/z/web/versions") + count(&sim, "/v2/apps/a/evil/versions"), 0);
    task.abort();
}

/// One listing lacks the owner: the other app does not get the port.
#[tokio::test]
async fn owner_that_is_missing_from_one_listing_keeps_its_port() {
    let sim = contest().await;
    let mut source = Source::of(&sim);
    source.sees(1234, &[(8080, State::Active)]).await;
    source.live(&[8080]);
    sim.fault(Fault::new(FaultKind::Empty).on("/v2/apps").times(1));
    sim.close_streams();
    let held = source.snapshot().await;
    assert_eq!((owner(&held), backends(&held, 1234)), (Some("/z/web"), vec![(8080, State::Active)]));
    loop {
        let snapshot = source.snapshot().await;
        assert_eq!((owner(&snapshot), backends(&snapshot, 1234)), (Some("/z/web"), vec![(8080, State::Active)]));
        if snapshot.warnings.len() == 1 && snapshot.warnings[0].app == "/a/evil" {
            break;
        }
    }
    // A second listing without the owner moves the port.
    source.live(&[]);
    sim.delete_app("/z/web").unwrap();
    assert_eq!(owner(&source.sees(1234, &[(6666, State::Active)]).await), Some("/a/evil"));
}
