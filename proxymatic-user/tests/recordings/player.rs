//! A server that plays a recording: it sends the responses and events of each step in their order.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

use crate::recording::{Response, Step, What};

const ATTACHED: &str = "event: event_stream_attached\r\ndata: {\"eventType\":\"event_stream_attached\"}\r\n\r\n";

pub(crate) struct Player {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// The last response to each path.
    responses: BTreeMap<String, Response>,
    apps: Value,
    pods: Value,
    /// Every version of a definition in the whole recording, by id and version.
    definitions: BTreeMap<(String, String), Value>,
    /// The open streams: the query of each, and where its frames go.
    streams: Vec<(String, mpsc::UnboundedSender<String>)>,
    refuses_streams: bool,
    /// The paths of all requests so far.
    requests: Vec<String>,
}

impl Player {
    /// Starts a server that has not played any step.
    pub(crate) async fn start(steps: &[Step]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(Mutex::new(State { definitions: definitions(steps), ..State::default() }));
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                // Without TCP_NODELAY, an event may wait for the acknowledgement of the event before.
                socket.set_nodelay(true).expect("an open socket");
                tokio::spawn(serve(socket, Arc::clone(&shared)));
            }
        });
        Self { address, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Plays a step. Returns whether a stream got an event.
    pub(crate) fn play(&self, step: &Step) -> bool {
        let mut state = self.state.lock().expect("no panic while locked");
        for response in &step.responses {
            let body = || serde_json::from_str(&response.body).unwrap_or(Value::Null);
            match response.path.as_str() {
                "/v2/apps" => state.apps = body(),
                "/v2/pods/::status" => state.pods = body(),
                _ => {}
            }
            state.responses.insert(response.path.clone(), response.clone());
        }
        let mut sent = false;
        match &step.what {
            What::Event(frame) => {
                let name = event_name(frame).map(|name| format!("event_type={name}"));
                for (query, stream) in &state.streams {
                    if name.as_ref().is_none_or(|name| query.split('&').any(|it| it == name)) {
                        sent |= stream.send(frame.clone()).is_ok() && name.is_some();
                    }
                }
            }
            What::StreamEnds => {
                state.streams.clear();
                state.refuses_streams = true;
            }
            What::StreamOpens => state.refuses_streams = false,
            What::Silence => {}
        }
        sent
    }

    /// Sends an event that may change anything, so that the source reads everything.
    pub(crate) fn poke(&self) {
        let frame = "event: scheduler_reregistered_event\r\ndata: {}\r\n\r\n";
        for (_, stream) in &self.state.lock().expect("no panic while locked").streams {
            // The source may have left.
            let _ = stream.send(frame.to_owned());
        }
    }

    /// Returns whether a stream is open.
    pub(crate) fn is_attached(&self) -> bool {
        !self.state.lock().expect("no panic while locked").streams.is_empty()
    }

    /// Returns the number of requests so far.
    pub(crate) fn request_count(&self) -> usize {
        self.state.lock().expect("no panic while locked").requests.len()
    }

    /// Returns the paths of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().expect("no panic while locked").requests.clone()
    }
}

/// Returns the type of an event; `None` for a heartbeat.
pub(crate) fn event_name(frame: &str) -> Option<&str> {
    frame.lines().find_map(|line| line.strip_prefix("event: "))
}

/// Returns the data of an event.
pub(crate) fn event_data(frame: &str) -> Value {
    let data = frame.lines().find_map(|line| line.strip_prefix("data: "));
    data.and_then(|data| serde_json::from_str(data).ok()).unwrap_or(Value::Null)
}

/// Returns every version of a definition in a recording.
pub(crate) fn definitions(steps: &[Step]) -> BTreeMap<(String, String), Value> {
    let mut definitions = BTreeMap::new();
    let mut add = |definition: &Value| {
        let text = |key: &str| definition[key].as_str().unwrap_or_default().to_owned();
        definitions.entry((text("id"), text("version"))).or_insert_with(|| definition.clone());
    };
    for response in steps.iter().flat_map(|step| &step.responses) {
        let body: Value = serde_json::from_str(&response.body).unwrap_or(Value::Null);
        match response.path.as_str() {
            "/v2/apps" => body["apps"].as_array().into_iter().flatten().for_each(&mut add),
            "/v2/pods/::status" => body.as_array().into_iter().flatten().for_each(|pod| add(&pod["spec"])),
            _ => {}
        }
    }
    definitions
}

async fn serve(mut socket: TcpStream, state: Arc<Mutex<State>>) {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    while !request.ends_with(b"\r\n\r\n") {
        let Ok(n @ 1..) = socket.read(&mut buffer).await else { return };
        request.extend_from_slice(&buffer[..n]);
    }
    let request = String::from_utf8_lossy(&request);
    let target = request.split(' ').nth(1).unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let (answer, stream) = state.lock().expect("no panic while locked").answer(path, query);
    // The client may be gone.
    let _ = socket.write_all(answer.as_bytes()).await;
    let Some(mut frames) = stream else { return };
    while let Some(frame) = frames.recv().await {
        if socket.write_all(frame.as_bytes()).await.is_err() {
            return;
        }
    }
}

impl State {
    /// Returns the bytes of a response, and the frames that follow if it is a stream.
    fn answer(&mut self, path: &str, query: &str) -> (String, Option<mpsc::UnboundedReceiver<String>>) {
        self.requests.push(path.to_owned());
        if path == "/v2/events" {
            if self.refuses_streams {
                return (answer(502, "", ""), None);
            }
            let (send, frames) = mpsc::unbounded_channel();
            self.streams.push((query.to_owned(), send));
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: text/event-stream;charset=utf-8\r\n\r\n";
            return (format!("{head}{ATTACHED}"), Some(frames));
        }
        if let Some(Response { status, headers, body, .. }) = self.responses.get(path) {
            let leader = headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-marathon-leader"));
            let leader = leader.map_or_else(String::new, |(name, value)| format!("{name}: {value}\r\n"));
            return match status {
                0 => (String::new(), None),
                status => (answer(*status, &leader, body), None),
            };
        }
        (
            self.derived(path)
                .map_or_else(|| answer(404, "", "{\"message\":\"not recorded\"}"), |it| answer(200, "", &it)),
            None,
        )
    }

    /// Returns a response that the recorder did not ask for, from one that it did.
    fn derived(&self, path: &str) -> Option<String> {
        let has = |it: &&Value, id: &str| it["id"].as_str() == Some(id);
        if let Some(path) = path.strip_prefix("/v2/pods") {
            let (id, rest) = path.split_once("::")?;
            return Some(match rest.split_once('/') {
                // A reference names a version to the nanosecond, and the definition does to the millisecond.
                Some((_, version)) => {
                    self.definitions.get(&(id.into(), format!("{}Z", version.get(..23)?)))?.to_string()
                }
                None => self.pods.as_array()?.iter().find(|it| has(it, id))?.to_string(),
            });
        }
        let path = path.strip_prefix("/v2/apps")?;
        Some(match path.split_once("/versions/") {
            Some((id, version)) => self.definitions.get(&(id.into(), version.into()))?.to_string(),
            None => json!({"app": self.apps["apps"].as_array()?.iter().find(|it| has(it, path))?}).to_string(),
        })
    }
}

fn answer(status: u16, headers: &str, body: &str) -> String {
    let length = body.len();
    let kind = "Content-Type: application/json\r\nConnection: close\r\n";
    format!("HTTP/1.1 {status} Recorded\r\nContent-Length: {length}\r\n{kind}{headers}\r\n{body}")
}
