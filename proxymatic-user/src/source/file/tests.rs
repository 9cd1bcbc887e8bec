//! A file with the name of a host, and a name server that does as it is told.

use std::{net::IpAddr, time::Duration};

use tokio::time::timeout;

use super::*;
use crate::source::resolve::server::server;

async fn addresses(reports: &mut mpsc::Receiver<Report>) -> Vec<IpAddr> {
    let report = timeout(Duration::from_secs(20), reports.recv()).await.expect("no report within 20 s").unwrap();
    let Report::Snapshot { snapshot, .. } = report else { panic!("{report:?}") };
    snapshot.services.values().flat_map(|service| &service.backends).map(|backend| backend.address).collect()
}

/// Takes five seconds: no address is asked for again sooner.
#[tokio::test]
async fn an_address_that_changes_is_reported_though_the_file_stays_as_it_is() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.json");
    let content =
        r#"{"services": [{"name": "db", "port": 5432, "backends": [{"address": "db.example.", "port": 1}]}]}"#;
    std::fs::write(&path, content).unwrap();
    let says = |says| *server.says.lock().unwrap() = says;
    says(Some(Some(([192, 0, 2, 1], 0))));
    let (send, mut reports) = mpsc::channel(8);
    let config = Config { every: Duration::from_millis(20), ..Config::new(&path).unwrap() };
    tokio::spawn(follow(config, server.resolver(), send));
    assert_eq!(addresses(&mut reports).await, [IpAddr::from([192, 0, 2, 1])]);
    says(Some(Some(([192, 0, 2, 2], 60))));
    assert_eq!(addresses(&mut reports).await, [IpAddr::from([192, 0, 2, 2])]);
}

/// A second is a hundred looks.
#[tokio::test]
async fn a_file_that_stays_as_it_is_is_told_once_and_one_that_changes_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.json");
    let write = |address: &str| {
        let backend = format!(r#"{{"address": "{address}", "port": 1}}"#);
        let services = format!(r#"{{"services": [{{"name": "db", "port": 5432, "backends": [{backend}]}}]}}"#);
        std::fs::write(&path, services).unwrap();
    };
    write("192.0.2.1");
    let (send, mut reports) = mpsc::channel(8);
    let config = Config { every: Duration::from_millis(10), ..Config::new(&path).unwrap() };
    tokio::spawn(follow(config, Resolver::default(), send));
    assert_eq!(addresses(&mut reports).await, [IpAddr::from([192, 0, 2, 1])]);
    let more = timeout(Duration::from_secs(1), reports.recv()).await;
    assert!(more.is_err(), "told again: {more:?}");
    write("192.0.2.2");
    assert_eq!(addresses(&mut reports).await, [IpAddr::from([192, 0, 2, 2])]);
}
