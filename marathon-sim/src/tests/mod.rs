//! Tests of the simulator: `cluster` and `life` without any I/O, the others over HTTP as a client sees it.

mod api_version;
mod cluster;
mod control;
mod deploy;
mod fault;
mod http;
mod life;
mod root;
mod stream;

use std::time::Duration;

use reqwest::{Client, ClientBuilder, RequestBuilder, Response};
use serde_json::{Value, json};

use super::Sim;

/// A timeout that nothing here reaches.
const SOON: Duration = Duration::from_secs(60);

async fn start() -> Sim {
    Sim::start().await.unwrap()
}

/// A client without certificates: nothing here uses TLS.
fn client() -> ClientBuilder {
    // Fails if another test has installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().tls_certs_only([])
}

/// A request without headers about compression, whose response is left unchanged.
fn get(sim: &Sim, path: &str) -> RequestBuilder {
    client().no_gzip().timeout(SOON).build().unwrap().get(format!("{}{path}", sim.url()))
}

async fn response(sim: &Sim, path: &str) -> Response {
    get(sim, path).send().await.unwrap()
}

/// Returns the status and the JSON of a response.
async fn fetch(sim: &Sim, path: &str) -> (u16, Value) {
    let response = response(sim, path).await;
    (response.status().as_u16(), response.json().await.unwrap())
}

/// Returns the status and the JSON of a control command's response over HTTP.
async fn command(sim: &Sim, path: &str, body: Value) -> (u16, Value) {
    let response = client().build().unwrap().post(format!("{}{path}", sim.url())).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// An event stream as a careful client reads it.
struct Stream {
    response: Response,
    unread: String,
}

impl Stream {
    /// Attaches, and reads up to its own attach event.
    async fn attach(sim: &Sim) -> Self {
        let mut stream = Self::open(sim, "/v2/events").await;
        assert_eq!(stream.kind().await, "event_stream_attached");
        stream
    }

    async fn open(sim: &Sim, path: &str) -> Self {
        let response = get(sim, path).header("Accept", "text/event-stream").send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, unread: String::new() }
    }

    /// Returns the next event, or `None` at the end of the stream. Blank lines between events are heartbeats.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            let rest = self.unread.trim_start_matches("\r\n");
            if let Some((frame, rest)) = rest.split_once("\r\n\r\n") {
                let (kind, data) = frame.split_once("\r\n").unwrap();
                let kind = kind.strip_prefix("event: ").unwrap().to_owned();
                let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
                assert_eq!(data["eventType"], json!(kind));
                self.unread = rest.to_owned();
                return Some((kind, data));
            }
            let chunk = self.response.chunk().await.expect("the stream went silent, or was cut")?;
            self.unread.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    async fn kind(&mut self) -> String {
        self.next().await.expect("the stream has ended").0
    }

    /// Returns the kinds of the next `count` events, with the field that distinguishes repetitions.
    async fn story(&mut self, count: usize) -> Vec<String> {
        let mut told = Vec::new();
        while told.len() < count {
            let (kind, data) = self.next().await.expect("the stream has ended");
            told.push(told_as(&kind, &data));
        }
        told
    }
}

/// An event in one line: its kind and the field that distinguishes repetitions.
fn told_as(kind: &str, data: &Value) -> String {
    let detail = ["taskStatus", "condition", "alive", "healthy"].iter().find_map(|key| data.get(*key));
    match detail {
        Some(Value::String(word)) => format!("{kind} {word}"),
        Some(other) => format!("{kind} {other}"),
        None => kind.to_owned(),
    }
}
