//! The simulated Marathon beside the real one: each event and answer has the same keys, with values of the same types.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use marathon_sim::{Place, PodPlace, Sim, TaskState};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::{
    player::{event_data, event_name},
    recording::{self, What},
};

/// Recordings of the version that the simulator writes.
const RECORDINGS: [&str; 4] = [
    "marathon-1.11.26_real-mesos",
    "marathon-1.11.26_ha-simulated-agents",
    "marathon-1.11.26_kills-and-restarts",
    "marathon-1.11.26_checks-unreachable-pods",
];

/// The paths in a kind of event or answer, with the types of their values, and how often each path was there.
#[derive(Debug, Default)]
struct Shape {
    seen: usize,
    paths: BTreeMap<String, (BTreeSet<&'static str>, usize)>,
}

impl Shape {
    fn add(&mut self, value: &Value) {
        self.seen += 1;
        let mut found = BTreeSet::new();
        walk(value, String::new(), &mut found);
        let mut paths: BTreeMap<String, BTreeSet<&'static str>> = BTreeMap::new();
        for (path, kind) in found {
            paths.entry(path).or_default().insert(kind);
        }
        for (path, kinds) in paths {
            let known = self.paths.entry(path).or_default();
            known.0.extend(kinds);
            known.1 += 1;
        }
    }
}

fn walk(value: &Value, path: String, found: &mut BTreeSet<(String, &'static str)>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(items) => {
            items.iter().for_each(|item| walk(item, format!("{path}[]"), found));
            "array"
        }
        Value::Object(fields) => {
            // The names in these are the operator's.
            let is_free = path.ends_with(".labels") || path.ends_with(".env");
            for (name, item) in fields.iter().filter(|_| !is_free) {
                walk(item, format!("{path}.{name}"), found);
            }
            "object"
        }
    };
    found.insert((path, kind));
}

type Shapes = BTreeMap<String, Shape>;

fn add(shapes: &mut Shapes, kind: &str, value: &Value) {
    shapes.entry(kind.to_owned()).or_default().add(value);
}

/// Adds each app, task, pod and instance of an answer.
fn add_answer(shapes: &mut Shapes, path: &str, body: &Value) {
    if path == "/v2/apps" {
        for app in body["apps"].as_array().into_iter().flatten() {
            for task in app["tasks"].as_array().into_iter().flatten() {
                add(shapes, &format!("task in {}", task["state"].as_str().unwrap_or_default()), task);
            }
            let mut app = app.clone();
            app["tasks"] = json!([]);
            add(shapes, "app", &app);
        }
    } else if path == "/v2/pods/::status" {
        body.as_array().into_iter().flatten().for_each(|pod| add(shapes, "pod", pod));
    }
}

fn recorded() -> Shapes {
    let mut shapes = Shapes::new();
    for step in RECORDINGS.iter().flat_map(|name| recording::read(name)) {
        if let What::Event(frame) = &step.what
            && let Some(name) = event_name(frame)
        {
            add(&mut shapes, name, &event_data(frame));
        }
        for response in step.responses.iter().filter(|it| it.status == 200) {
            add_answer(&mut shapes, &response.path, &serde_json::from_str(&response.body).unwrap());
        }
    }
    shapes
}

/// Sends a request to the simulator, and returns what it answers up to a text, or up to its end.
async fn ask(sim: &Sim, path: &str, accept: &str) -> TcpStream {
    let mut socket = TcpStream::connect(sim.url().trim_start_matches("http://")).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: sim\r\nAccept: {accept}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    socket
}

async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 65_536]);
    while !text.contains(end) {
        let read = timeout(Duration::from_secs(10), socket.read(&mut buffer)).await.expect("bytes within 10 s");
        let Ok(n @ 1..) = read else { break };
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    text
}

/// Returns the answers and events of a simulator in which the same things happen as in the recordings.
async fn simulated() -> Shapes {
    let sim = Sim::start().await.unwrap();
    let mut shapes = Shapes::new();
    let mut events = ask(&sim, "/v2/events", "text/event-stream").await;
    read_until(&mut events, "event_stream_attached").await;
    let app = json!({"id": "/real/web", "cmd": "x", "env": {}, "taskKillGracePeriodSeconds": 5, "networks": [{"mode": "host"}],
        "portDefinitions": [{"port": 12340, "name": "main", "protocol": "udp,tcp"}],
        "healthChecks": [{"protocol": "HTTP", "path": "/health", "portIndex": 0, "intervalSeconds": 1}]});
    let places = [31_001, 31_002, 31_003].map(|port| Place::new("127.0.2.1", port));
    let tasks = sim.create_full(app, &places).unwrap();
    let starting = Place::new("127.0.2.1", 31_004).alive(None).state(TaskState::TaskStarting);
    let started = sim.launch("/real/web", &[starting]).unwrap().remove(0);
    answers(&sim, &mut shapes).await;
    sim.set_state(&started, TaskState::TaskRunning).unwrap();
    sim.set_health(&started, Some(true)).unwrap();
    sim.set_health(&tasks[0], Some(false)).unwrap();
    sim.set_state(&tasks[1], TaskState::TaskKilling).unwrap();
    // The unreachable tasks of the recordings had no check.
    let app = json!({"id": "/real/lost", "networks": [{"mode": "host"}], "portDefinitions": [{"port": 12341}],
        "unreachableStrategy": {"inactiveAfterSeconds": 60, "expungeAfterSeconds": 120}});
    let lost = sim.create_full(app, &[Place::new("127.0.2.1", 31_006)]).unwrap().remove(0);
    sim.set_state(&lost, TaskState::TaskUnreachable).unwrap();
    let pod = json!({"id": "/real/pod", "networks": [{"mode": "host"}], "containers": [{"name": "c", "exec": {"command": {"shell": "x"}},
        "resources": {"cpus": 0.01, "mem": 16}, "endpoints": [{"name": "web", "hostPort": 0, "protocol": ["tcp"],
            "labels": {"com.meltwater.proxymatic.servicePort": "12344"}}]}]});
    let place = PodPlace { host: "127.0.2.1".into(), ip: [127, 0, 2, 1].into(), ports: Some(vec![31_005]) };
    let instance = sim.create_pod(pod, &[place]).unwrap().remove(0);
    answers(&sim, &mut shapes).await;
    sim.set_state(&tasks[1], TaskState::TaskKilled).unwrap();
    sim.set_container(&instance, "c", TaskState::TaskKilling, None).unwrap();
    sim.command("refuse", json!({"id": "/real/web"})).unwrap();
    sim.withdraw("/real/web").unwrap();
    sim.delete_app("/real/web").unwrap();
    sim.delete_pod("/real/pod").unwrap();
    for frame in read_until(&mut events, "pod_deleted_event").await.split("\r\n\r\n") {
        if let Some(name) = event_name(frame) {
            add(&mut shapes, name, &event_data(frame));
        }
    }
    shapes
}

async fn answers(sim: &Sim, shapes: &mut Shapes) {
    for path in ["/v2/apps?embed=apps.tasks&embed=apps.deployments&embed=apps.readiness", "/v2/pods/::status"] {
        let answer = read_until(&mut ask(sim, path, "application/json").await, "\0").await;
        let body = answer.split_once("\r\n\r\n").expect("a body").1;
        add_answer(shapes, path.split('?').next().unwrap(), &serde_json::from_str(body).unwrap());
    }
}

/// Returns how the simulator differs: what it has that the real one never has, and what it lacks that the real one
/// always has.
fn differences(real: &Shapes, simulated: &Shapes) -> Vec<String> {
    let mut differences = Vec::new();
    for (kind, shape) in simulated {
        let Some(real) = real.get(kind) else { continue };
        for (path, (kinds, _)) in &shape.paths {
            match real.paths.get(path) {
                None => differences.push(format!("{kind}: {path} is not there in the real one")),
                Some((known, _)) if !kinds.is_subset(known) => {
                    differences.push(format!("{kind}: {path} is {kinds:?}, and {known:?} in the real one"));
                }
                Some(_) => {}
            }
        }
        for (path, _) in real.paths.iter().filter(|(_, (_, count))| *count == real.seen) {
            if !shape.paths.contains_key(path) {
                differences.push(format!("{kind}: {path} is missing"));
            }
        }
    }
    differences
}

#[tokio::test]
async fn simulated_marathon_has_the_shapes_of_the_real_one() {
    let (real, simulated) = (recorded(), simulated().await);
    let unknown: Vec<_> = simulated.keys().filter(|kind| !real.contains_key(*kind)).collect();
    let differences = differences(&real, &simulated);
    assert!(differences.is_empty(), "{}\nnot recorded: {unknown:?}", differences.join("\n"));
}
