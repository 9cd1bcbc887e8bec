//! The registrator source with a real etcd, by each of its two APIs.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use proxymatic_user::{
    model::{ServiceKey, Snapshot},
    source::{
        Report,
        registrator::{self, Config},
    },
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};

const MS: Duration = Duration::from_millis(1);
const LONG: Duration = Duration::from_secs(20);

/// An etcd of our own on free ports of 127.0.0.1. Ends with its guard.
struct Etcd {
    process: Child,
    port: u16,
    v2: bool,
    folder: TempDir,
    peer: u16,
    http: reqwest::Client,
}

impl Etcd {
    async fn start(v2: bool) -> Self {
        let (port, peer) = (free_port(), free_port());
        let folder = tempfile::tempdir().unwrap();
        let process = spawn(folder.path(), port, peer, v2);
        // Plain HTTP, but the type wants to know by whom it would be encrypted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
        let etcd = Self { process, port, v2, folder, peer, http };
        etcd.is_up().await;
        etcd
    }

    async fn is_up(&self) {
        let deadline = Instant::now() + LONG;
        while !matches!(self.http.get(self.at("/health")).send().await, Ok(answer) if answer.status().is_success()) {
            assert!(Instant::now() < deadline, "etcd is not up after {LONG:?}");
            tokio::time::sleep(20 * MS).await;
        }
    }

    fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// The same again, with what it knew.
    async fn restart(&mut self) {
        self.process = spawn(self.folder.path(), self.port, self.peer, self.v2);
        self.is_up().await;
    }

    fn at(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    async fn put(&self, key: &str, value: &str) {
        let answer = if self.v2 {
            let url = reqwest::Url::parse_with_params(&self.at(&format!("/v2/keys{key}")), [("value", value)]).unwrap();
            self.http.put(url).send().await.unwrap()
        } else {
            self.v3("/v3/kv/put", json!({ "key": encoded(key), "value": encoded(value) })).await
        };
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    async fn delete(&self, key: &str) {
        let answer = if self.v2 {
            self.http.delete(self.at(&format!("/v2/keys{key}"))).send().await.unwrap()
        } else {
            self.v3("/v3/kv/deleterange", json!({ "key": encoded(key) })).await
        };
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }

    async fn v3(&self, path: &str, body: Value) -> reqwest::Response {
        self.http.post(self.at(path)).json(&body).send().await.unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(folder: &Path, port: u16, peer: u16, v2: bool) -> Child {
    let (client, peer) = (format!("http://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    let etcd = Command::new("etcd")
        .args([&format!("--enable-v2={v2}"), "--data-dir"])
        .arg(folder)
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    etcd.expect("etcd must be there: apt-get install etcd-server")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn encoded(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}

struct Source(mpsc::Receiver<Report>);

impl Source {
    /// Without a poll that could hide a change that was missed.
    fn of(url: &str) -> Self {
        let (send, reports) = mpsc::channel(64);
        let config = Config { first_wait: 20 * MS, ..Config::new(url, Duration::from_secs(3600)).unwrap() };
        tokio::spawn(registrator::run(config, send));
        Self(reports)
    }

    async fn next(&mut self) -> Report {
        timeout(LONG, self.0.recv()).await.expect("no report").unwrap()
    }

    async fn snapshot(&mut self) -> Snapshot {
        loop {
            if let Report::Snapshot { snapshot, .. } = self.next().await {
                return snapshot;
            }
        }
    }

    /// The next snapshot with these services and backends.
    async fn sees(&mut self, expected: &[&str]) -> Snapshot {
        let mut last = Vec::new();
        let deadline = Instant::now() + LONG;
        while Instant::now() < deadline {
            let snapshot = timeout(LONG, self.snapshot()).await;
            let Ok(snapshot) = snapshot else { break };
            last = shown(&snapshot);
            if last == expected {
                return snapshot;
            }
        }
        panic!("not seen: {expected:?}; last: {last:?}");
    }

    async fn trouble(&mut self) -> String {
        loop {
            if let Report::Trouble { reason, .. } = self.next().await {
                return reason;
            }
        }
    }
}

fn shown(snapshot: &Snapshot) -> Vec<String> {
    let line = |(key, service): (&ServiceKey, &proxymatic_user::model::Service)| {
        let backends: Vec<_> = service.backends.iter().map(|it| format!("{}:{}", it.address, it.port)).collect();
        format!("{} {key} {}", service.name, backends.join(" "))
    };
    snapshot.services.iter().map(line).collect()
}

async fn follows_changes(v2: bool) {
    let etcd = Etcd::start(v2).await;
    let mut source = Source::of(&format!("etcd://127.0.0.1:{}/services", etcd.port));
    assert!(source.snapshot().await.services.is_empty(), "nothing was ever written: known to be empty");
    etcd.put("/services/web/h1:web.1:80", "10.0.0.1:31000").await;
    source.sees(&["web 80/tcp 10.0.0.1:31000"]).await;
    etcd.put("/services/web/h2:web.2:80", "10.0.0.2:31000").await;
    etcd.put("/services/dns/h1:dns.1:53:udp", "localhost:31001").await;
    etcd.put("/services/odd/own-id", "10.0.0.1:31002").await;
    let both = ["dns 53/udp 127.0.0.1:31001", "web 80/tcp 10.0.0.1:31000 10.0.0.2:31000"];
    source.sees(&both).await;
    // The key that is none comes with the others or just after them.
    etcd.put("/services/web/h2:web.2:80", "10.0.0.2:31009").await;
    let snapshot = source.sees(&["dns 53/udp 127.0.0.1:31001", "web 80/tcp 10.0.0.1:31000 10.0.0.2:31009"]).await;
    assert_eq!(snapshot.complaints.len(), 1, "{:?}", snapshot.complaints);
    assert_eq!(snapshot.complaints[0].app, "/services/odd/own-id");
    etcd.delete("/services/web/h1:web.1:80").await;
    etcd.delete("/services/web/h2:web.2:80").await;
    source.sees(&both[..1]).await;
}

async fn outlives_etcd(v2: bool) {
    let mut etcd = Etcd::start(v2).await;
    etcd.put("/services/web/h1:web.1:80", "10.0.0.1:31000").await;
    let nobody = free_port();
    let mut source = Source::of(&format!("etcd://127.0.0.1:{nobody},127.0.0.1:{}/services", etcd.port));
    source.sees(&["web 80/tcp 10.0.0.1:31000"]).await;
    etcd.stop();
    let said = source.trouble().await;
    assert!(
        said.contains("refused the connection") || said.contains("cannot be watched") || said.contains("watch"),
        "{said}"
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
async fn an_etcd_v2_that_comes_back_is_followed_again() {
    outlives_etcd(true).await;
}

#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn an_etcd_v3_that_comes_back_is_followed_again() {
    outlives_etcd(false).await;
}

/// etcd v2 remembers 1,000 events of all keys together.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn a_watch_outlives_more_events_elsewhere_than_v2_remembers() {
    let etcd = Etcd::start(true).await;
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

/// The two stores of one etcd are apart: what is only in v3 is found though v2 is there.
#[tokio::test]
#[ignore = "needs etcd: cargo xtask test etcd"]
async fn a_folder_that_only_v3_has_is_found_beside_v2() {
    let etcd = Etcd::start(true).await;
    let body = json!({ "key": encoded("/services/web/h:c:80"), "value": encoded("10.0.0.1:31000") });
    assert!(etcd.v3("/v3/kv/put", body).await.status().is_success());
    let mut source = Source::of(&format!("etcd://127.0.0.1:{}/services", etcd.port));
    source.sees(&["web 80/tcp 10.0.0.1:31000"]).await;
}

/// Needs no etcd: whoever answers is none.
#[tokio::test]
async fn a_server_that_is_no_etcd_is_trouble_and_never_an_empty_folder() {
    for (status, body, expected) in [
        ("404 Not Found", "404 page not found", "has neither /v2/keys nor /v3/kv; is that etcd?"),
        ("404 Not Found", r#"{"errorCode":101}"#, "has neither /v2/keys nor /v3/kv; is that etcd?"),
        ("200 OK", "<html></html>", "did not answer as etcd does"),
        ("200 OK", r#"{"node":{"dir":true}}"#, "did not answer as etcd does"),
        ("500 Internal Server Error", r#"{"message":"URI not found"}"#, "answered 500 Internal Server Error"),
        ("401 Unauthorized", "", "wants credentials"),
    ] {
        let port = serving(move |_| answer(status, body)).await;
        let mut source = Source::of(&format!("etcd://127.0.0.1:{port}/services"));
        match source.next().await {
            Report::Trouble { reason, .. } => {
                assert!(reason.starts_with("http://127.0.0.1") && reason.contains(expected), "{reason}");
            }
            Report::Snapshot { snapshot, .. } => panic!("{status} {body}: {snapshot:?}"),
        }
    }
}

/// Needs no etcd: the answers are recorded ones.
#[tokio::test]
async fn a_watch_that_begins_before_what_etcd_remembers_means_that_the_folder_is_read_again() {
    let listing = r#"{"action":"get","node":{"key":"/s","dir":true,"nodes":[{"key":"/s/web","dir":true,"nodes":[{"key":"/s/web/h:c:80","value":"10.0.0.1:31000"}]}]}}"#;
    let cleared = r#"{"errorCode":401,"message":"The event in requested index is outdated and cleared","cause":"the requested history has been cleared [1007/8]","index":2006}"#;
    let port = serving(move |request| {
        if request.contains("wait=true") { answer("400 Bad Request", cleared) } else { answer("200 OK", listing) }
    });
    let mut source = Source::of(&format!("etcd://127.0.0.1:{}/s", port.await));
    for _ in 0..3 {
        match source.next().await {
            Report::Snapshot { snapshot, .. } => assert_eq!(shown(&snapshot), ["web 80/tcp 10.0.0.1:31000"]),
            Report::Trouble { reason, .. } => panic!("{reason}"),
        }
    }
}

fn answer(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nX-Etcd-Index: 7\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

/// A server on a free port that answers each request as it is told to.
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
