//! A file with the name of a host, and a name server with answers that a test sets.

use std::{net::IpAddr, time::Duration};

use tokio::time::timeout;

use super::*;
use crate::source::resolve::server::server;

async fn addresses(reports: &mut mpsc::Receiver<Report>) -> Vec<IpAddr> {
    let report = timeout(Duration::from_secs(60), reports.recv()).await.expect("no report within 60 s").unwrap();
    let Report::Snapshot { snapshot, .. } = report else { panic!("{report:?}") };
    snapshot.services.values().flat_map(|service| &service.backends).map(|backend| backend.address).collect()
}

/// Takes five seconds, the shortest time between two queries for an address.
#[tokio::test]
async fn changed_address_is_reported_although_the_file_is_unchanged() {
    let server = server().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.json");
    let content =
        r#"{"services": [{"name": "db", "port": 5432, "backends": [{"address": "db.example.", "port": 1}]}]}"#;
    std::fs::write(&path, content).unwrap();
    let answer = |reply| *server.reply.lock().unwrap() = reply;
    answer(Some(Some(([192, 0, 2, 1], 0))));
    let (send, mut reports) = mpsc::channel(8);
    let config = Config { every: Duration::from_millis(20), ..Config::new(&path).unwrap() };
    tokio::spawn(follow(config, server.resolver(), send));
    assert_eq!(addresses(&mut reports).await, [IpAddr::from([192, 0, 2, 1])]);
    answer(Some(Some(([192, 0, 2, 2], 60))));
    assert_eq!(addresses(&mut reports).await, [IpAddr::from([192, 0, 2, 2])]);
}

/// A second is a hundred reads.
#[tokio::test]
async fn unchanged_file_is_reported_once() {
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
    assert!(more.is_err(), "reported again: {more:?}");
    write("192.0.2.2");
    assert_eq!(addresses(&mut reports).await, [IpAddr::from([192, 0, 2, 2])]);
}
