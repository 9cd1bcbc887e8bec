//! The registrator source with a real etcd, by each of its two APIs.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

mod access;
mod etcd;
mod loss_guard;
mod watch;

use proxymatic_user::source::Report;
use serde_json::json;

use crate::{
    etcd::{Etcd, encoded},
    watch::{Source, shown},
};

async fn follows_changes(v2: bool) {
    let etcd = Etcd::start(v2, false).await;
    let mut source = Source::of(&format!("etcd://127.0.0.1:{}/services", etcd.port));
    assert!(source.snapshot().await.services.is_empty(), "a folder without any key is empty");
    etcd.put("/services/web/h1:web.1:80", "10.0.0.1:31000").await;
    source.sees(&["web 80/tcp 10.0.0.1:31000"]).await;
    etcd.put("/services/web/h2:web.2:80", "10.0.0.2:31000").await;
    etcd.put("/services/dns/h1:dns.1:53:udp", "localhost:31001").await;
    etcd.put("/services/odd/own-id", "10.0.0.1:31002").await;
    let both = ["dns 53/udp 127.0.0.1:31001", "web 80/tcp 10.0.0.1:31000 10.0.0.2:31000"];
    source.sees(&both).await;
    // The invalid key comes with the others or just after them.
    etcd.put("/services/web/h2:web.2:80", "10.0.0.2:31009").await;
    let snapshot = source.sees(&["dns 53/udp 127.0.0.1:31001", "web 80/tcp 10.0.0.1:31000 10.0.0.2:31009"]).await;
    assert_eq!(snapshot.warnings.len(), 1, "{:?}", snapshot.warnings);
    assert_eq!(snapshot.warnings[0].app, "/services/odd/own-id");
    etcd.delete("/services/web/h1:web.1:80").await;
    etcd.delete("/services/web/h2:web.2:80").await;
    source.sees(&both[..1]).await;
}

async fn survives_restart(v2: bool) {
    let mut etcd = Etcd::start(v2, false).await;
    etcd.put("/services/web/h1:web.1:80", "10.0.0.1:31000").await;
    // Nobody listens on this socket, and nobody else can get its port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let unused = socket.local_addr().unwrap().port();
    let mut source = Source::of(&format!("etcd://127.0.0.1:{unused},127.0.0.1:{}/services", etcd.port));
    source.sees(&["web 80/tcp 10.0.0.1:31000"]).await;
    etcd.stop();
    let reason = source.failure().await;
    assert!(
        reason.contains("refused the connection") || reason.contains("cannot be watched") || reason.contains("watch"),
        "{reason}"
    );
    etcd.restart().await;
    etcd.put("/services/web/h2:web.2:80", "10.0.0.2:31000").await;
    source.sees(&["web 80/tcp 10.0.0.1:31000 10.0.0.2:31000"]).await;
    etcd.put("/services/web/h3:web.3:80", "10.0.0.3:31000").await;
    source.sees(&["web 80/tcp 10.0.0.1:31000 10.0.0.2:31000 10.0.0.3:31000"]).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn changes_in_v2_are_followed() {
    follows_changes(true).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn changes_in_v3_are_followed() {
    follows_changes(false).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn restarted_etcd_v2_is_followed_again() {
    survives_restart(true).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn restarted_etcd_v3_is_followed_again() {
    survives_restart(false).await;
}

/// etcd v2 keeps 1,000 events of all keys together.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn watch_survives_more_events_elsewhere_than_v2_keeps() {
    let etcd = Etcd::start(true, false).await;
    etcd.put("/services/web/h1:web.1:80", "10.0.0.1:31000").await;
    let mut source = Source::of(&format!("etcd://127.0.0.1:{}/services", etcd.port));
    source.sees(&["web 80/tcp 10.0.0.1:31000"]).await;
    for n in 0..1100 {
        etcd.put("/elsewhere/key", &n.to_string()).await;
    }
    etcd.put("/services/web/h2:web.2:80", "10.0.0.2:31000").await;
    source.sees(&["web 80/tcp 10.0.0.1:31000 10.0.0.2:31000"]).await;
    let mut late = Source::of(&format!("etcd://127.0.0.1:{}/services", etcd.port));
    late.sees(&["web 80/tcp 10.0.0.1:31000 10.0.0.2:31000"]).await;
}

/// The two stores of one etcd are separate: a folder only in v3 is found although v2 exists.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn folder_that_only_v3_has_is_found_beside_v2() {
    let etcd = Etcd::start(true, false).await;
    let body = json!({ "key": encoded("/services/web/h:c:80"), "value": encoded("10.0.0.1:31000") });
    etcd.v3("/v3/kv/put", body).await;
    let mut source = Source::of(&format!("etcd://127.0.0.1:{}/services", etcd.port));
    source.sees(&["web 80/tcp 10.0.0.1:31000"]).await;
}

/// Needs no etcd: a server of the test responds.
#[tokio::test]
async fn server_that_is_not_etcd_is_never_an_empty_folder() {
    for (status, body, expected) in [
        ("404 Not Found", "404 page not found", "has neither /v2/keys nor /v3/kv; is that etcd?"),
        ("404 Not Found", r#"{"errorCode":101}"#, "has neither /v2/keys nor /v3/kv; is that etcd?"),
        ("200 OK", "<html></html>", "did not answer as etcd does"),
        ("200 OK", r#"{"node":{"dir":true}}"#, "did not answer as etcd does"),
        ("500 Internal Server Error", r#"{"message":"URI not found"}"#, "answered 500 Internal Server Error"),
        (
            "401 Unauthorized",
            "",
            "requires credentials (401 Unauthorized); give them with --registrator-credentials-file",
        ),
    ] {
        let port = serving(move |_| answer(status, body)).await;
        let mut source = Source::of(&format!("etcd://127.0.0.1:{port}/services"));
        match source.next().await {
            Report::Failed { reason, .. } => {
                assert!(reason.starts_with("http://127.0.0.1") && reason.contains(expected), "{reason}");
            }
            Report::Snapshot { snapshot, .. } => panic!("{status} {body}: {snapshot:?}"),
        }
    }
}

/// Needs no etcd: the responses are recorded.
#[tokio::test]
async fn watch_before_the_kept_events_reads_the_folder_again() {
    let listing = r#"{"action":"get","node":{"key":"/s","dir":true,"nodes":[{"key":"/s/web","dir":true,"nodes":[{"key":"/s/web/h:c:80","value":"10.0.0.1:31000"}]}]}}"#;
    let cleared = r#"{"errorCode":401,"message":"The event in requested index is outdated and cleared","cause":"the requested history has been cleared [1007/8]","index":2006}"#;
    let port = serving(move |request| {
        if request.contains("wait=true") { answer("400 Bad Request", cleared) } else { answer("200 OK", listing) }
    });
    let mut source = Source::of(&format!("etcd://127.0.0.1:{}/s", port.await));
    for _ in 0..3 {
        match source.next().await {
            Report::Snapshot { snapshot, .. } => assert_eq!(shown(&snapshot), ["web 80/tcp 10.0.0.1:31000"]),
            Report::Failed { reason, .. } => panic!("{reason}"),
        }
    }
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nX-Etcd-Index: 7\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

/// Starts a server on a free port that sends the response of `answer` to each request. Returns the port.
async fn serving(answer: impl Fn(&str) -> String + Send + 'static) -> u16 {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let length = stream.read(&mut request).await.unwrap_or_default();
            let answer = answer(&String::from_utf8_lossy(&request[..length]));
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}
