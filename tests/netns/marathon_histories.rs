//! What Marathon did when it was watched for real: each test is a history that once cost connects, under load.

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, Replica, Service, Sim};
use proxymatic_tests::net::host_address;
use proxymatic_tests::summary::Summary;
use serde_json::json;

use crate::fixtures::cluster::{APP, Cluster, URL};

/// Reads each second, so that tests need not wait for a minute to see a poll.
const POLLS: [&str; 2] = ["--refresh-interval", "1"];
/// How many reads show what the agent makes of a change: the second may confirm a loss.
const READS: usize = 4;
/// The number of requests in each state.
const SOME: u64 = 300;

/// M1: the app has an older definition again than its tasks, with other ports.
#[test]
fn withdrawn_deployment_fails_no_connect() -> TestResult {
    let lab = Lab::start(2)?;
    let sim = lab.sim()?;
    let definition = |ports: &[u16]| {
        let ports: Vec<_> = ports.iter().map(|port| json!({ "port": port, "protocol": "tcp" })).collect();
        json!({ "id": "/db", "networks": [{ "mode": "host" }], "portDefinitions": ports })
    };
    let places = |all: &[&[u16]]| -> Vec<_> {
        all.iter().map(|ports| json!({ "host": host_address(2), "ports": ports })).collect()
    };
    let replica = |port, name: &str| lab.replica(2, port, name);
    let _old = [replica(8001, "old")?, replica(8002, "old")?];
    sim.control("apps", &json!({ "app": definition(&[13_910]), "tasks": places(&[&[8001], &[8002]]) }))?;
    let _agent = lab.agent(&POLLS)?;
    active(&lab, 13_910, &[8001, 8002])?;
    let data = lab.load("http://localhost:13910/", &["--threads", "2", "--linger0"])?;

    let _new = [replica(8011, "admin")?, replica(8012, "new")?, replica(8021, "admin")?, replica(8022, "new")?];
    sim.control("app/update", &json!({ "app": definition(&[13_911, 13_910]) }))?;
    sim.control("replace", &json!({ "app": "/db", "tasks": places(&[&[8011, 8012], &[8021, 8022]]) }))?;
    active(&lab, 13_910, &[8012, 8022])?;
    active(&lab, 13_911, &[8011, 8021])?;
    let admin = lab.load("http://localhost:13911/", &["--threads", "2", "--linger0"])?;

    sim.control("withdraw", &json!({ "id": "/db" }))?;
    reads(&sim, READS)?;
    data.reaches(SOME)?;
    admin.reaches(SOME)?;
    let _restored = replica(8003, "old")?;
    sim.control("group/start", &json!({ "app": "/db", "host": host_address(2), "port": 8003 }))?;
    reads(&sim, READS)?;
    data.reaches(SOME)?;
    let (data, admin) = (data.finish()?, admin.finish()?);
    println!("{}", counts("M1, a withdrawn deployment", &data.clone().plus(&admin)));
    assert_eq!(data.failed + admin.failed, 0, "{data:?} {admin:?}");
    assert!(data.by_replica.keys().eq(["new", "old"]), "{data:?}");
    assert!(admin.by_replica.keys().eq(["admin"]), "{admin:?}");
    active(&lab, 13_910, &[8003, 8012, 8022])?;
    active(&lab, 13_911, &[8011, 8021])?;
    Ok(())
}

/// M2: with Marathon's default strategy, unreachable tasks leave the listing at once.
#[test]
fn unreachable_tasks_serve_until_a_replacement_is_active() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Cluster::on(&lab, lab.sim()?, 2, json!({}), &POLLS)?;
    web.when_active(&[0, 1])?;
    let load = lab.load(URL, &["--threads", "2", "--linger0"])?;
    for task in &web.tasks {
        web.sim.state(task, "TASK_UNREACHABLE")?;
    }
    let place = json!({ "app": APP, "host": host_address(2), "port": 8003, "state": "TASK_STARTING" });
    let next = web.sim.control("tasks", &place)?["task"].as_str().context("no task")?.to_owned();
    reads(&web.sim, READS)?;
    load.reaches(SOME)?;
    let _next = lab.replica(2, 8003, "c")?;
    web.sim.state(&next, "TASK_RUNNING")?;
    active(&lab, 1234, &[8003])?;
    load.reaches(SOME)?;
    let seen = load.finish()?;
    println!("{}", counts("M2, all tasks unreachable", &seen));
    assert_eq!(seen.failed, 0, "{seen:?}");
    Ok(())
}

/// M3: the waits of the event stream have grown while Marathon was away, and it does not attach for some time after
/// Marathon's return. What happens meanwhile is served.
#[test]
fn change_before_the_stream_is_back_fails_no_connect() -> TestResult {
    /// After this many attempts the next one comes 5 s later.
    const ATTEMPTS: usize = 5;
    /// How many requests a task serves after it is told to stop: at this rate at least 3 s, and longer on a busy
    /// machine, where the agent takes longer too.
    const LINGER: u64 = 3_000;
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    let load = lab.load(URL, &["--threads", "2", "--linger0", "--rate", "1000"])?;
    web.sim.forget_requests()?;
    web.sim.control("fault", &json!({ "kind": "refuse-events" }))?;
    web.sim.control("leader", &json!({ "code": 502 }))?;
    eventually_ok("the agent has tried to attach", 2 * PATIENCE, || {
        let attempts = web.sim.requests("/v2/events")?;
        ensure!(attempts >= ATTEMPTS, "{attempts} attempts");
        Ok(())
    })?;
    web.sim.control("leader", &json!({ "seconds": 0 }))?;
    web.sim.state(&web.tasks[0], "TASK_KILLING")?;
    load.reaches(LINGER)?;
    web.replicas[0].terminate()?;
    web.sim.state(&web.tasks[0], "TASK_KILLED")?;
    load.reaches(SOME)?;
    let seen = load.finish()?;
    println!("{}", counts("M3, a task ends after Marathon's return", &seen));
    assert_eq!(seen.failed, 0, "{seen:?}");
    web.sim.control("fault", &json!({ "kind": "none" }))?;
    Ok(())
}

/// M4: a container of a pod has failed, and Marathon kills the other one while the instance is `PENDING`.
#[test]
fn container_that_is_killed_serves_after_its_neighbour_failed() -> TestResult {
    let lab = Lab::start(2)?;
    let sim = lab.sim()?;
    let container = |name: &str, port: u16| {
        let labels = json!({ "com.meltwater.proxymatic.servicePort": port.to_string() });
        json!({ "name": name, "resources": { "cpus": 0.1, "mem": 32 },
            "endpoints": [{ "name": name, "hostPort": 0, "protocol": ["tcp"], "labels": labels }] })
    };
    let pod = json!({ "id": "/pair", "networks": [{ "mode": "host" }],
        "containers": [container("a", 1300), container("b", 1301)] });
    let _replicas = [lab.replica(2, 8001, "a")?, lab.replica(2, 8002, "b")?];
    let place = json!({ "host": host_address(2), "ip": host_address(2), "ports": [8001, 8002] });
    let made = sim.control("pods", &json!({ "pod": pod, "instances": [place] }))?;
    let instance = made["instances"][0].as_str().context("no instance")?;
    let _agent = lab.agent(&POLLS)?;
    active(&lab, 1301, &[8002])?;
    let load = lab.load("http://localhost:1301/", &["--threads", "2", "--linger0"])?;
    let set = |container: &str, state: &str| {
        sim.control(
            "pods/state",
            &json!({ "instance": instance, "container": container, "state": state, "healthy": null }),
        )
    };
    set("a", "TASK_FAILED")?;
    set("b", "TASK_KILLING")?;
    reads(&sim, READS)?;
    load.reaches(SOME)?;
    let seen = load.finish()?;
    println!("{}", counts("M4, a pod whose container failed", &seen));
    assert_eq!(seen.failed, 0, "{seen:?}");
    Ok(())
}

/// M5: an event costs what it names. A scaled app is read alone, and its connects go on.
#[test]
fn scaled_app_is_read_without_a_listing() -> TestResult {
    const APPS: u16 = 20;
    let lab = Lab::start(2)?;
    let sim = lab.sim()?;
    let mut replicas: Vec<Replica> = vec![lab.replica(2, 8001, "a")?];
    for nth in 0..APPS {
        sim.app(&format!("/many/{nth}"), 12_000 + nth, &[(2, 8001)])?;
    }
    let _agent = lab.agent(&[])?;
    active(&lab, 12_000, &[8001])?;
    let load = lab.load("http://localhost:12000/", &["--threads", "2", "--linger0"])?;
    let mut ports = vec![8001];
    // In the first seconds of the stream a deployment may have been announced before.
    let all = eventually_ok("an app is scaled without a listing", PATIENCE, || {
        let port = ports.last().copied().unwrap_or(8001) + 1;
        replicas.push(lab.replica(2, port, "a")?);
        sim.forget_requests()?;
        sim.task("/many/0", 2, port)?;
        ports.push(port);
        active(&lab, 12_000, &ports)?;
        // The task is served before anything is read.
        let all = eventually_ok("the agent reads what has changed", PATIENCE, || {
            let all = sim.requests("/v2")?;
            ensure!(all > 0, "no request");
            Ok(all)
        })?;
        let (listings, pods) = (sim.requests("/v2/apps")?, sim.requests("/v2/pods/::status")?);
        ensure!(listings == 0 && pods == 0, "{listings} listings of apps, {pods} of pods");
        Ok(all)
    })?;
    load.reaches(SOME)?;
    let seen = load.finish()?;
    println!("{}", counts(&format!("M5, one of {APPS} apps scaled with {all} requests"), &seen));
    assert_eq!(seen.failed, 0, "{seen:?}");
    Ok(())
}

fn counts(what: &str, seen: &Summary) -> String {
    format!("{what}: {} of {} requests failed", seen.failed, seen.ok + seen.failed)
}

/// Waits until the agent has read all apps this many times more.
fn reads(sim: &Sim<'_>, times: usize) -> Result<()> {
    sim.forget_requests()?;
    eventually_ok("the agent reads all apps", PATIENCE, || {
        let now = sim.requests("/v2/apps")?;
        ensure!(now >= times, "{now} of {times} times");
        Ok(())
    })
}

/// Waits until exactly these ports of host 2 get the connections to a service port.
fn active(lab: &Lab, port: u16, replicas: &[u16]) -> Result<()> {
    eventually_ok(&format!("port {port} has the backends {replicas:?}"), PATIENCE, || {
        let services = lab.host(1).services()?;
        let service: &Service = services.iter().find(|it| it.port == port).with_context(|| format!("{services:?}"))?;
        let now: Vec<u16> = service.active().map(|it| it.port).collect();
        ensure!(now == replicas, "{service:?}");
        Ok(())
    })
}
