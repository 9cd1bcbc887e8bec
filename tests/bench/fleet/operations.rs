//! The requests and bytes that one agent costs Marathon for what operators do.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::{
    eventually::{eventually_ok, until},
    lab::{Host, Lab, Sim},
    process::Process,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::observed::{agent, received};

/// What an operation cost.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Operation {
    /// What the operator did.
    pub(crate) what: String,
    /// The number of requests, except the one for the event stream.
    pub(crate) requests: usize,
    /// The requests that read all apps or all pods.
    pub(crate) listings: usize,
    /// Bytes received: responses and events, with TCP and IP.
    pub(crate) bytes: f64,
}

/// Number of apps before the operations, with three tasks each.
const APPS: u16 = 200;
/// Number of apps of the posted group.
const GROUP: u16 = 200;
/// The time between two tasks of the group.
const STEP: Duration = Duration::from_millis(50);
/// The time after the start of the stream in which the agent may not know of earlier announcements.
const ATTACHED: Duration = Duration::from_secs(5);
/// From the announcement of an end to SIGTERM, and from there to the end: as a real Marathon was seen to take.
const ANNOUNCED: Duration = Duration::from_millis(100);
const ENDING: Duration = Duration::from_millis(1_500);
/// The time after an operation in which nothing more is requested.
const QUIET: Duration = Duration::from_secs(3);
const FIRST: u16 = 10_000;

/// Measures with one agent beside a simulated Marathon.
pub(super) fn measure() -> Result<Vec<Operation>> {
    let lab = Lab::start(2)?;
    let sim = lab.sim()?;
    let place = |n: u16, k: u16| json!({ "host": format!("10.{}.{}.{}", 100 + k, n >> 8, n & 255), "port": 31_000 });
    for n in 0..APPS {
        let tasks: Vec<_> = (0..3).map(|k| place(n, k)).collect();
        sim.control("apps", &json!({ "id": format!("/bench/a{n}"), "servicePort": FIRST + n, "tasks": tasks }))?;
    }
    let _agent: Process = agent(lab.host(2), &["--marathon", &lab.marathon_url()])?;
    let backends = usize::from(APPS) * 3;
    served(lab.host(2), backends)?;
    until(Instant::now() + ATTACHED);
    let mut done = Vec::new();
    let mut operation = |what: &str, backends: usize, operate: &dyn Fn() -> Result<()>| -> Result<()> {
        sim.forget_requests()?;
        let before = received(lab.host(2))?;
        operate()?;
        served(lab.host(2), backends)?;
        until(Instant::now() + QUIET);
        let (bytes, paths) = (received(lab.host(2))? - before, paths(&sim, &lab)?);
        let count = |is: fn(&str) -> bool| paths.iter().filter(|(path, _)| is(path)).map(|(_, count)| count).sum();
        done.push(Operation {
            what: what.to_owned(),
            requests: count(|path| path.starts_with("/v2/") && path != "/v2/events"),
            listings: count(|path| matches!(path, "/v2/apps" | "/v2/pods/::status")),
            bytes,
        });
        Ok(())
    };
    let start = |app: &str, place: Value| -> Result<()> {
        let mut place = place;
        place["app"] = app.into();
        sim.control("group/start", &place).map(drop)
    };
    operation("one app scaled by one task", backends + 1, &|| {
        let mut place = place(0, 3);
        place["app"] = "/bench/a0".into();
        sim.control("tasks", &place).map(drop)
    })?;
    operation("one of three tasks restarted", backends + 1, &|| {
        let task = first_task(&sim, "/bench/a1")?;
        sim.control("kill", &json!({ "task": task }))?;
        until(Instant::now() + ANNOUNCED);
        sim.state(&task, "TASK_KILLING")?;
        until(Instant::now() + ENDING);
        sim.control("restart", &json!({ "task": task, "place": place(1, 4) })).map(drop)
    })?;
    operation("a change refused with 409", backends + 1, &|| {
        sim.control("refuse", &json!({ "id": "/bench/a2" })).map(drop)
    })?;
    operation(&format!("a group of {GROUP} apps posted"), backends + 1 + usize::from(GROUP), &|| {
        let app = |n: u16| {
            let port = json!([{ "port": FIRST + APPS + n, "protocol": "tcp" }]);
            json!({ "id": format!("/group/a{n}"), "networks": [{ "mode": "host" }], "portDefinitions": port })
        };
        let apps: Vec<_> = (0..GROUP).map(app).collect();
        let deployment = sim.control("group", &json!({ "apps": apps }))?;
        let begun = Instant::now();
        for n in 0..GROUP {
            until(begun + STEP * u32::from(n));
            start(&format!("/group/a{n}"), place(APPS + n, 0))?;
        }
        sim.control("group/finish", &json!({ "deployment": deployment["deployment"] })).map(drop)
    })?;
    Ok(done)
}

fn first_task(sim: &Sim<'_>, app: &str) -> Result<String> {
    let held = sim.holds()?;
    let apps = held["apps"].as_array().context("no apps")?;
    let app = apps.iter().find(|it| it["id"] == app).context("no such app")?;
    Ok(app["tasks"][0]["id"].as_str().context("no task")?.to_owned())
}

/// Waits until this many backends are served.
fn served(host: &Host, backends: usize) -> Result<()> {
    eventually_ok("all backends are served", Duration::from_secs(60), || {
        let there: usize = host.services()?.iter().map(|it| it.active().count()).sum();
        ensure!(there == backends, "{there} backends of {backends}");
        Ok(())
    })
}

/// Counts the requests of each path.
fn paths(sim: &Sim<'_>, lab: &Lab) -> Result<BTreeMap<String, usize>> {
    let at: SocketAddr = sim.address();
    let log: Value = serde_json::from_str(&lab.host(1).call("GET", at, "/sim/log", "")?)?;
    let mut paths = BTreeMap::new();
    for request in log.as_array().into_iter().flatten() {
        *paths.entry(request["path"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
    }
    Ok(paths)
}
