//! One agent with a simulated Marathon, or with a real etcd, while tasks of one app are replaced.

use std::{
    collections::VecDeque,
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use proxymatic_common::SlotRange;
use proxymatic_tests::{
    eventually::{eventually, eventually_ok, until},
    lab::{Host, Lab, PATIENCE, binary},
    process::Process,
};
use proxymatic_user::dataplane::kernel::{Maps, Pins};
use serde_json::{Value, json};

use crate::{programs::program, statistics::median};

/// The size of the cluster, and the rate of changes.
pub(super) struct Size {
    pub(super) apps: u16,
    pub(super) tasks: u16,
    pub(super) replaced: u16,
    pub(super) pause: Duration,
}

/// The requests of an agent at rest, and those that a change causes.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Single {
    /// Requests of one full read.
    pub(crate) full_requests: f64,
    /// Bytes of one full read, with TCP and IP.
    pub(crate) full_bytes: f64,
    /// The duration, in seconds.
    pub(crate) seconds: f64,
    /// Number of replaced tasks.
    pub(crate) replaced: f64,
    /// Requests meanwhile, without scheduled full reads.
    pub(crate) requests: f64,
    /// Bytes received meanwhile: responses and events.
    pub(crate) bytes: f64,
    /// Events received meanwhile.
    pub(crate) events: f64,
    /// From the end of a task, by the source's time, to the switch in the maps; milliseconds, the median.
    pub(crate) switch_ms: f64,
}

/// The first service port.
const FIRST: u16 = 10_000;
/// The source's address.
const SOURCE: u16 = 2379;
/// So long that no scheduled read happens during the measurement.
const REFRESH: [&str; 2] = ["--refresh-interval", "3600"];

/// Measures with the simulated Marathon, where a replacement is one event for the running task and two for the ended
/// one.
pub(super) fn marathon(size: &Size) -> Result<Single> {
    let lab = Lab::start(2)?;
    let (host, at) = (lab.host(1), SocketAddr::from((lab.host(1).address(), SOURCE)));
    let place = |n: u16, k: u16| json!({ "host": format!("10.{}.{}.{}", 100 + k, n >> 8, n & 255), "port": 31_000 });
    let app = |n: u16| {
        let tasks: Vec<_> = (0..size.tasks).map(|k| place(n, k)).collect();
        json!({ "id": format!("/bench/{n}"), "servicePort": FIRST + n, "mode": "host", "tasks": tasks })
    };
    let file = lab.run_dir().join("apps.json");
    fs::write(&file, serde_json::to_vec(&(0..size.apps).map(app).collect::<Vec<Value>>())?)?;
    let file = file.to_str().context("the run directory is not UTF-8")?;
    let mut sim = host.spawn(&binary("marathon-sim")?, &["--listen", &at.to_string(), "--apps", file])?;
    sim.said("listening on", Duration::from_secs(60))?;
    let call = |method: &str, path: &str, body: &Value| -> Result<Value> {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = host.call(method, at, path, &body)?;
        Ok(if answer.trim().is_empty() { Value::Null } else { serde_json::from_str(&answer)? })
    };
    let nothing = Value::Null;
    let before = received(lab.host(2))?;
    let running = agent(lab.host(2), &["--marathon", &format!("http://{at}")])?;
    let maps = complete(lab.host(2), size)?;
    let full_bytes = received(lab.host(2))? - before;
    let requests =
        |log: &Value| log.as_array().map_or(0, |all| all.iter().filter(|it| it["path"] != "/v2/events").count());
    let log = call("GET", "/sim/log", &nothing)?;
    // The agent reads everything once more when the stream is open.
    let reads = log.as_array().map_or(0, |all| all.iter().filter(|it| it["path"] == "/v2/apps").count()).max(1) as f64;
    let (full_requests, full_bytes) = (requests(&log) as f64 / reads, full_bytes / reads);
    let listing = call("GET", "/v2/apps/bench/0/tasks", &nothing)?;
    let ids = listing["tasks"].as_array().context("no tasks")?;
    let mut ids: VecDeque<_> = ids.iter().filter_map(|task| task["id"].as_str().map(str::to_owned)).collect();
    call("DELETE", "/sim/log", &nothing)?;
    let (begun, before, mut switches) = (Instant::now(), received(lab.host(2))?, Vec::new());
    for nth in 0..size.replaced {
        until(begun + size.pause * u32::from(nth));
        let mut body = place(0, size.tasks);
        body["port"] = (32_000 + nth).into();
        body["app"] = "/bench/0".into();
        let fresh = call("POST", "/sim/tasks", &body)?["task"].as_str().context("no task")?.to_owned();
        let old = ids.pop_front().context("no task")?;
        ids.push_back(fresh);
        let head = eventually("the new task is in", PATIENCE, || {
            maps.slot_range(0).filter(|head| head.length() == u32::from(size.tasks) + 1)
        })?;
        let (killed, switched) = thread::scope(|scope| {
            let watch = scope.spawn(|| other_head(&maps, head));
            let killed = Instant::now();
            call("POST", "/sim/state", &json!({ "task": old, "state": "TASK_KILLING" }))?;
            let switched = watch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            Ok::<_, anyhow::Error>((killed, switched))
        })?;
        switches.push(switched.saturating_duration_since(killed).as_secs_f64() * 1e3);
        call("POST", "/sim/state", &json!({ "task": old, "state": "TASK_KILLED" }))?;
    }
    until(begun + size.pause * u32::from(size.replaced));
    let seconds = begun.elapsed().as_secs_f64();
    let log = call("GET", "/sim/log", &nothing)?;
    let own = |it: &&Value| {
        it["path"] == "/v2/apps/bench/0/tasks" || it["path"].as_str().is_some_and(|it| it.starts_with("/sim"))
    };
    let extra = log.as_array().map_or(0, |all| all.iter().filter(own).count());
    let single = Single {
        full_requests,
        full_bytes,
        seconds,
        replaced: size.replaced.into(),
        requests: (requests(&log) - extra) as f64,
        bytes: received(lab.host(2))? - before,
        // TASK_RUNNING, TASK_KILLING, TASK_KILLED.
        events: 3.0 * f64::from(size.replaced),
        switch_ms: median(&switches),
    };
    drop(running);
    Ok(single)
}

/// Measures with a real etcd that has registrator's key of each container; a replacement adds a key and deletes
/// another.
pub(super) fn etcd(size: &Size) -> Result<Single> {
    let lab = Lab::start(2)?;
    let (host, at) = (lab.host(1), SocketAddr::from((lab.host(1).address(), SOURCE)));
    let folder = lab.run_dir().join("etcd");
    let (folder, url, peer) =
        (folder.display().to_string(), format!("http://{at}"), format!("http://{}:2380", at.ip()));
    let cluster = format!("default={peer}");
    let arguments = [
        "--data-dir",
        &folder,
        "--listen-client-urls",
        &url,
        "--advertise-client-urls",
        &url,
        "--listen-peer-urls",
        &peer,
        "--initial-advertise-peer-urls",
        &peer,
        "--initial-cluster",
        &cluster,
    ];
    let _etcd = host.spawn(&program("etcd")?, &arguments[..])?;
    eventually_ok("etcd is up", Duration::from_secs(30), || host.call("GET", at, "/health", "").map(drop))?;
    let key = |n: u16, k: u16| STANDARD.encode(format!("/services/bench-{n}/host{k}:bench-{n}.{k}:{}", FIRST + n));
    let value = |n: u16, k: u16| STANDARD.encode(format!("10.{}.{}.{}:31000", 100 + k % 100, n >> 8, n & 255));
    let put = |n: u16, k: u16| json!({ "key": key(n, k), "value": value(n, k) });
    // A hundred in one transaction: etcd accepts 128 at most.
    let all: Vec<_> = (0..size.apps).flat_map(|n| (0..size.tasks).map(move |k| (n, k))).collect();
    for some in all.chunks(100) {
        let puts: Vec<_> = some.iter().map(|(n, k)| json!({ "requestPut": put(*n, *k) })).collect();
        host.call("POST", at, "/v3/kv/txn", &json!({ "success": puts }).to_string())?;
    }
    let before = received(lab.host(2))?;
    let counted = range_requests(host, at)?;
    let running = agent(lab.host(2), &["--registrator", &format!("etcd://{at}/services")])?;
    let maps = complete(lab.host(2), size)?;
    let full_bytes = received(lab.host(2))? - before;
    let full_requests = range_requests(host, at)? - counted;
    let (begun, before, counted) = (Instant::now(), received(lab.host(2))?, range_requests(host, at)?);
    let mut switches = Vec::new();
    for nth in 0..size.replaced {
        until(begun + size.pause * u32::from(nth));
        host.call("POST", at, "/v3/kv/put", &put(0, size.tasks + nth).to_string())?;
        let head = eventually("the new container is in", PATIENCE, || {
            maps.slot_range(0).filter(|head| head.length() == u32::from(size.tasks) + 1)
        })?;
        let gone = json!({ "key": key(0, nth) });
        let deleted = Instant::now();
        host.call("POST", at, "/v3/kv/deleterange", &gone.to_string())?;
        let switched = other_head(&maps, head)?;
        switches.push(switched.saturating_duration_since(deleted).as_secs_f64() * 1e3);
    }
    until(begun + size.pause * u32::from(size.replaced));
    let seconds = begun.elapsed().as_secs_f64();
    let single = Single {
        full_requests,
        full_bytes,
        seconds,
        replaced: size.replaced.into(),
        requests: range_requests(host, at)? - counted,
        bytes: received(lab.host(2))? - before,
        events: 2.0 * f64::from(size.replaced),
        switch_ms: median(&switches),
    };
    drop(running);
    Ok(single)
}

/// Returns the number of reads by etcd's own counters.
fn range_requests(host: &Host, at: SocketAddr) -> Result<f64> {
    let metrics = host.call("GET", at, "/metrics", "")?;
    let line = r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Range""#;
    let counts =
        metrics.lines().filter(|it| it.starts_with(line)).filter_map(|it| it.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(counts.sum())
}

/// Waits until all services are in the maps.
fn complete(host: &Host, size: &Size) -> Result<Maps> {
    eventually_ok("all services are there", Duration::from_secs(60), || {
        let there = host.services()?;
        let backends: usize = there.iter().map(|it| it.backends.len()).sum();
        let wanted = usize::from(size.apps) * usize::from(size.tasks);
        ensure!(backends == wanted, "{} services, {backends} backends of {wanted}", there.len());
        Ok(())
    })?;
    host.agent_ready(Duration::from_secs(60))?;
    Maps::open(&Pins::at(&host.pins())).context("open the maps")
}

/// Returns when the first service has another slot range than this.
fn other_head(maps: &Maps, head: SlotRange) -> Result<Instant> {
    let begun = Instant::now();
    while maps.slot_range(0) == Some(head) {
        ensure!(begun.elapsed() < PATIENCE, "no switch");
        until(Instant::now() + Duration::from_micros(100));
    }
    Ok(Instant::now())
}

/// Returns the bytes received by a host's interface.
pub(super) fn received(host: &Host) -> Result<f64> {
    let text = host.net().enter(|| fs::read_to_string("/proc/thread-self/net/dev"))??;
    let line = text.lines().find_map(|line| line.trim().strip_prefix("lab0:")).context("no interface")?;
    line.split_whitespace().next().and_then(|word| word.parse().ok()).context("no count")
}

/// Starts an agent with one source.
pub(super) fn agent(host: &Host, source: &[&str]) -> Result<Process> {
    host.agent_of(host.cgroup(), &[source, &REFRESH].concat())
}
