//! Tasks that are RUNNING before they listen, restarted under load.

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, Replica};
use proxymatic_tests::process::{Process, binary};
use proxymatic_tests::summary::Summary;
use serde_json::json;

use crate::fixtures::cluster::{APP, Cluster, PORT, URL, place};

const REPLICAS: usize = 3;
/// How long after TASK_RUNNING a task begins to listen, in milliseconds.
const LISTEN_AFTER: &str = "2000";
/// Longer than any first answer takes, however slow the machine is.
const NEW_FOR: &str = "60s";
/// The number of requests in each state.
const SOME: u64 = 300;

#[test]
fn tasks_without_checks_that_listen_late_fail_no_connect() -> TestResult {
    let control = restart_all(None, "0")?;
    let probed = restart_all(None, NEW_FOR)?;
    println!(
        "{REPLICAS} restarts of tasks without checks: {} of {} connects failed, {} of {} with --first-answer 0",
        probed.failed,
        probed.ok + probed.failed,
        control.failed,
        control.ok + control.failed
    );
    assert_eq!(probed.failed, 0, "{probed:?}");
    assert!(control.failed > 0, "{control:?}");
    Ok(())
}

#[test]
fn tasks_with_checks_that_listen_late_fail_no_connect() -> TestResult {
    for protocol in ["HTTP", "TCP", "MESOS_HTTP"] {
        let seen = restart_all(Some(protocol), NEW_FOR)?;
        println!("{REPLICAS} restarts of tasks with {protocol} checks: {} connects failed", seen.failed);
        assert_eq!(seen.failed, 0, "{protocol}: {seen:?}");
    }
    Ok(())
}

/// Restarts each task under load, under its instance: it inherits the results of checks. Each new task is RUNNING before it
/// listens. `check` is the protocol of a health check.
fn restart_all(check: Option<&str>, first_answer: &str) -> Result<Summary> {
    let lab = Lab::start(2)?;
    let mut web = start(&lab, check, first_answer)?;
    let all: Vec<_> = (0..REPLICAS).collect();
    web.when_active(&all)?;
    let load = lab.load(URL, &["--threads", "2", "--linger0", "--rate", "500"])?;
    load.reaches(SOME)?;
    for nth in 0..REPLICAS {
        end(&mut web, nth)?;
        let mut process = start_late(&web, nth)?;
        let place = json!({ "host": web.replicas[nth].address.ip(), "port": web.replicas[nth].address.port() });
        let task = web.sim.control("restart", &json!({ "task": web.tasks[nth], "place": place }))?["task"].take();
        web.tasks[nth] = task.as_str().context("no task")?.to_owned();
        process.said("listening on", PATIENCE)?;
        if check.is_some() {
            web.sim.control("health", &json!({ "task": web.tasks[nth], "alive": true }))?;
        }
        web.replicas[nth] = Replica { address: web.replicas[nth].address, process };
        web.when_active(&all)?;
        load.reaches(SOME)?;
    }
    load.finish()
}

/// Starts a cluster whose app has this health check.
fn start<'lab>(lab: &'lab Lab, check: Option<&str>, first_answer: &str) -> Result<Cluster<'lab>> {
    let replicas: Vec<_> =
        ["a", "b", "c"].iter().zip(8001..).map(|(name, port)| lab.replica(2, port, name)).collect::<Result<_>>()?;
    let places: Vec<_> = replicas.iter().map(|it| place(it.address)).collect();
    let checks: Vec<_> =
        check.iter().map(|check| json!({ "protocol": check, "portIndex": 0, "intervalSeconds": 1 })).collect();
    let app = json!({ "id": APP, "networks": [{ "mode": "host" }], "healthChecks": checks,
        "portDefinitions": [{ "port": PORT, "protocol": "tcp" }] });
    let sim = lab.sim()?;
    let tasks = sim.control("apps", &json!({ "app": app, "tasks": places }))?["tasks"].take();
    let tasks = serde_json::from_value(tasks)?;
    let agent = lab.agent(&["--first-answer", first_answer])?;
    lab.host(1).agent_ready(PATIENCE)?;
    Ok(Cluster { lab, agent, sim, replicas, tasks })
}

/// Ends the process of a task without a failed connect: its backend drains before.
fn end(web: &mut Cluster<'_>, nth: usize) -> Result<()> {
    let others: Vec<_> = (0..REPLICAS).filter(|other| *other != nth).collect();
    web.sim.state(&web.tasks[nth], "TASK_KILLING")?;
    web.when_active(&others)?;
    let left = web.replicas[nth].terminate()?;
    ensure!(left.success(), "the replica failed: {left}");
    Ok(())
}

/// Starts the process of a new task at the address of an ended one.
fn start_late(web: &Cluster<'_>, nth: usize) -> Result<Process> {
    let name = char::from(b'a' + u8::try_from(nth)?).to_string();
    let address = web.replicas[nth].address.to_string();
    let arguments = ["--listen", &address, "--name", &name, "--listen-after", LISTEN_AFTER];
    web.lab.host(2).spawn(&binary("replica")?, &arguments)
}
