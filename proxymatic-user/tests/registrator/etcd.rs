//! A real etcd for tests, with or without TLS and users.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{self, Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use reqwest::RequestBuilder;
use serde_json::{Value, json};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(60);

/// The only user of an etcd of [`Etcd::close`], and the password.
pub(crate) const AGENT: (&str, &str) = ("agent", "a/s:e@c");
const ROOT: (&str, &str) = ("root", "of-all");

/// A process of etcd on free ports of 127.0.0.1. It ends with this value.
pub(crate) struct Etcd {
    process: Child,
    pub(crate) port: u16,
    peer: u16,
    v2: bool,
    tls: bool,
    /// Whether it requires credentials.
    closed: bool,
    pub(crate) folder: TempDir,
    http: reqwest::Client,
}

impl Etcd {
    pub(crate) async fn start(v2: bool, tls: bool) -> Self {
        let (port, peer) = (free_port(), free_port());
        let folder = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let own = reqwest::Certificate::from_der(made.cert.der()).unwrap();
        let http = reqwest::Client::builder().no_proxy().tls_certs_only([own]).build().unwrap();
        let process = spawn(&folder, port, peer, v2, tls);
        let etcd = Self { process, port, peer, v2, tls, closed: false, folder, http };
        etcd.is_up().await;
        etcd
    }

    /// Returns the path of its certificate.
    pub(crate) fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    async fn is_up(&self) {
        let deadline = Instant::now() + LONG;
        while !matches!(self.http.get(self.at("/health")).send().await, Ok(answer) if answer.status().is_success()) {
            assert!(Instant::now() < deadline, "etcd is not up after {LONG:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn stop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it again with the same data.
    pub(crate) async fn restart(&mut self) {
        self.process = spawn(&self.folder, self.port, self.peer, self.v2, self.tls);
        self.is_up().await;
    }

    fn at(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) async fn put(&self, key: &str, value: &str) {
        if self.v2 {
            let url = reqwest::Url::parse_with_params(&self.at(&format!("/v2/keys{key}")), [("value", value)]).unwrap();
            self.sent(self.http.put(url)).await;
        } else {
            self.v3("/v3/kv/put", json!({ "key": encoded(key), "value": encoded(value) })).await;
        }
    }

    pub(crate) async fn delete(&self, key: &str) {
        if self.v2 {
            self.sent(self.http.delete(self.at(&format!("/v2/keys{key}")))).await;
        } else {
            self.v3("/v3/kv/deleterange", json!({ "key": encoded(key) })).await;
        }
    }

    /// Requires credentials from now on, and lets [`AGENT`] only read `/services`.
    pub(crate) async fn close(&mut self) {
        let ((root, its), (agent, password)) = (ROOT, AGENT);
        if self.v2 {
            let read = json!({ "kv": { "read": ["/services*"], "write": [] } });
            for (path, body) in [
                ("users/root", json!({ "user": root, "password": its })),
                ("roles/reader", json!({ "role": "reader", "permissions": read })),
                ("users/agent", json!({ "user": agent, "password": password, "roles": ["reader"] })),
            ] {
                self.v2_auth(path, body).await;
            }
            self.v2_auth("enable", Value::Null).await;
            self.closed = true;
            let all = json!({ "kv": { "read": ["/*"], "write": ["/*"] } });
            self.v2_auth("roles/guest", json!({ "role": "guest", "revoke": all })).await;
        } else {
            let (key, range_end) = (encoded("/services/"), encoded("/services0"));
            let read = json!({ "permType": "READ", "key": key, "range_end": range_end });
            for (path, body) in [
                ("user/add", json!({ "name": root, "password": its })),
                ("role/add", json!({ "name": "root" })),
                ("user/grant", json!({ "user": root, "role": "root" })),
                ("role/add", json!({ "name": "reader" })),
                ("role/grant", json!({ "name": "reader", "perm": read })),
                ("user/add", json!({ "name": agent, "password": password })),
                ("user/grant", json!({ "user": agent, "role": "reader" })),
                ("enable", json!({})),
            ] {
                self.v3(&format!("/v3/auth/{path}"), body).await;
            }
            self.closed = true;
        }
    }

    async fn v2_auth(&self, path: &str, body: Value) {
        self.sent(self.http.put(self.at(&format!("/v2/auth/{path}"))).json(&body)).await;
    }

    pub(crate) async fn v3(&self, path: &str, body: Value) {
        self.sent(self.http.post(self.at(path)).json(&body)).await;
    }

    /// Sends a request, as root if there are users. It must succeed.
    async fn sent(&self, request: RequestBuilder) -> Value {
        let (name, password) = ROOT;
        let request = match (self.closed, self.v2) {
            (false, _) => request,
            (true, true) => request.basic_auth(name, Some(password)),
            (true, false) => {
                let body = json!({ "name": name, "password": password });
                let answer = self.http.post(self.at("/v3/auth/authenticate")).json(&body).send().await.unwrap();
                let answer: Value = answer.json().await.unwrap();
                request.header("Authorization", answer["token"].as_str().expect("a token"))
            }
        };
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{status}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(folder: &TempDir, port: u16, peer: u16, v2: bool, tls: bool) -> Child {
    let scheme = if tls { "https" } else { "http" };
    let (client, peer) = (format!("{scheme}://127.0.0.1:{port}"), format!("http://127.0.0.1:{peer}"));
    let mut etcd = Command::new("etcd");
    if tls {
        etcd.arg("--cert-file").arg(folder.path().join("cert.pem"));
        etcd.arg("--key-file").arg(folder.path().join("key.pem"));
    }
    let etcd = etcd
        .args([&format!("--enable-v2={v2}"), "--data-dir"])
        .arg(folder.path().join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    etcd.expect("etcd must be there: apt-get install etcd-server")
}

/// Returns a port where nobody listens. It is below those that the kernel gives to other programs, and each process of
/// tests has ports of its own, so that it stays free until etcd has it, and while etcd is restarted.
fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const EACH: u32 = 8;
    const ALL: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let own = process::id() * EACH % ALL;
    let candidate = || {
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        u16::try_from(FIRST + (own + nth) % ALL).unwrap()
    };
    std::iter::repeat_with(candidate).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap()
}

pub(crate) fn encoded(text: &str) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(text)
}
