//! Known faults of Marathon while clients connect all the time: no live backend is lost, no connect fails, and the
//! status reports the fault while it lasts.

mod loaded_service;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use serde_json::{Value, json};

use self::loaded_service::LoadedService;
use crate::fixtures::cluster::{APP, Cluster};

/// How long a slow election takes.
const LEADERLESS: Duration = Duration::from_secs(60);
/// The longest pause between two attempts at a failing Marathon is 20 s.
const NEXT_ATTEMPT: Duration = Duration::from_secs(20).saturating_add(PATIENCE);
/// The agent closes an event stream after this time without a byte; a heartbeat comes every 10 s.
const SILENCE: Duration = Duration::from_secs(25);
const SILENT: &str = "sent no byte for 25 s, not even a heartbeat";
/// The warning about a listing that lacks too much. It lasts until the next answer, one second later.
const DOUBT: &str =
    "lost more than half of its backends, or its owner, in one response; they stay until a second response confirms it";

#[test]
fn leader_change_that_forgets_health_loses_no_backend() -> TestResult {
    let lab = Lab::start(2)?;
    let standby = format!("{}:8081", lab.host(1).address());
    let (sim, url) = (lab.sim_with(&["--node", &standby])?, format!("http://{standby}"));
    let checked = json!({ "healthChecks": true, "alive": true });
    let mut web = LoadedService::start(Cluster::on(&lab, sim, 3, checked, &["--marathon", &url])?)?;

    // No leader, until the agent has noticed.
    web.sim.control("leader", &json!({ "leader": standby, "code": 502 }))?;
    web.logs("Marathon has no leader", 1, PATIENCE)?;
    web.sim.control("leader", &json!({ "leader": standby, "seconds": 0 }))?;
    web.is_well(NEXT_ATTEMPT)?;
    let holds = web.sim.holds()?;
    assert_eq!((&holds["leader"], verdicts(&holds)), (&json!(standby), vec![Value::Null; 3]));

    // The new leader's own health results count from the first one on.
    web.live(&[0, 2])?;
    web.sim.control("health", &json!({ "task": web.tasks[1], "alive": false }))?;
    web.serves(&[0, 2])?;
    web.sim.control("health", &json!({ "app": APP, "alive": true }))?;
    web.serves(&[0, 1, 2])?;
    web.end()
}

#[test]
fn minute_of_502_loses_no_backend_even_if_the_agent_dies_in_it() -> TestResult {
    let lab = Lab::start(2)?;
    // The next leader knows no health results: the new agent adopts those that the crashed one published.
    let checked = json!({ "healthChecks": true, "alive": true });
    let mut web = LoadedService::start(Cluster::on(&lab, lab.sim()?, 2, checked, &[])?)?;
    let begun = Instant::now();
    web.sim.control("leader", &json!({ "seconds": LEADERLESS.as_secs(), "code": 502 }))?;
    web.scale()?;
    let status = web.says("502 Bad Gateway: Marathon has no leader", PATIENCE)?;
    assert_eq!(status["agent"]["state"], "OK", "{status}");

    web.crash()?;
    web.start_another()?;
    let status = web.says("502 Bad Gateway: Marathon has no leader", PATIENCE)?;
    assert_eq!(status["agent"]["state"], "INITIALIZING", "{status}");
    web.is_well(LEADERLESS + NEXT_ATTEMPT)?;
    assert!(begun.elapsed() >= LEADERLESS, "well after {:?}", begun.elapsed());
    web.live(&[0, 1, 2])?;
    // The new leader has only seen the task that started meanwhile.
    assert_eq!(verdicts(&web.sim.holds()?), [Value::Null, Value::Null, json!(true)]);
    web.sim.control("health", &json!({ "app": APP, "alive": true }))?;
    web.serves(&[0, 1, 2])?;
    web.end()
}

#[test]
fn silent_event_stream_is_closed_and_missed_changes_are_read() -> TestResult {
    let lab = Lab::start(2)?;
    // An interval that the test does not last, so that no poll finds the new task.
    let arguments = ["--refresh-interval", "3600"];
    let mut web = LoadedService::start(Cluster::on(&lab, lab.sim()?, 2, json!({}), &arguments)?)?;
    web.sim.control("fault", &json!({ "kind": "silent-events" }))?;
    web.scale()?;
    web.logs(SILENT, 1, SILENCE + PATIENCE)?;
    web.sim.control("fault", &json!({ "kind": "none" }))?;
    web.serves(&[0, 1, 2])?;
    // The end of the stream made the agent read all apps.
    web.logged_in_order(SILENT, "modified")?;
    web.live(&[0, 1, 2])?;
    web.is_well(PATIENCE)?;
    web.end()
}

#[test]
fn change_without_an_event_is_found_by_the_poll() -> TestResult {
    let lab = Lab::start(2)?;
    let arguments = ["--refresh-interval", "3"];
    let mut web = LoadedService::start(Cluster::on(&lab, lab.sim()?, 3, json!({}), &arguments)?)?;
    web.sim.control("delivery", &json!({ "lost": true }))?;
    // One task is replaced, one is added. The first task's process goes on until no program can know its address.
    web.live(&[1, 2])?;
    web.sim.state(&web.tasks[0], "TASK_KILLED")?;
    web.scale()?;
    web.scale()?;
    web.serves(&[1, 2, 3, 4])?;
    web.live(&[1, 2, 3, 4])?;
    web.replicas[0].terminate()?;
    web.is_well(PATIENCE)?;
    web.end()
}

#[test]
fn empty_listing_loses_no_backend() -> TestResult {
    let lab = Lab::start(2)?;
    let web = LoadedService::start(Cluster::start(&lab, 3)?)?;
    one_wrong_listing(&web, json!({ "kind": "empty" }))?;
    web.logs(DOUBT, 1, PATIENCE)?;
    web.is_well(PATIENCE)?;
    web.end()
}

#[test]
fn bare_empty_array_is_never_a_listing() -> TestResult {
    let fault = json!({ "kind": "status", "code": 200, "body": "[]", "paths": "/v2/apps" });
    no_answer(fault, "answered JSON of another kind")
}

#[test]
fn truncated_body_loses_no_backend() -> TestResult {
    no_answer(json!({ "kind": "truncate" }), "broke off in the middle of its response")
}

#[test]
fn html_page_with_status_200_loses_no_backend() -> TestResult {
    no_answer(json!({ "kind": "html" }), "answered an HTML page, not JSON")
}

#[test]
fn listing_without_60_percent_is_accepted_when_repeated() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = LoadedService::start(Cluster::start(&lab, 5)?)?;
    one_wrong_listing(&web, json!({ "kind": "lose-tasks", "percent": 60 }))?;
    web.logs(DOUBT, 1, PATIENCE)?;
    web.is_well(PATIENCE)?;

    web.live(&[0, 1])?;
    web.sim.control("fault", &json!({ "kind": "lose-tasks", "percent": 60 }))?;
    web.sim.control("streams/close", &json!({}))?;
    web.logs(DOUBT, 2, PATIENCE)?;
    web.serves(&[0, 1])?;
    web.logged_in_order(DOUBT, "modified")?;
    web.is_well(PATIENCE)?;

    web.sim.control("fault", &json!({ "kind": "none" }))?;
    web.sim.control("streams/close", &json!({}))?;
    web.serves(&[0, 1, 2, 3, 4])?;
    web.end()
}

#[test]
fn restarted_agent_holds_back_a_listing_without_60_percent() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = LoadedService::start(Cluster::start(&lab, 5)?)?;
    let fault = json!({ "kind": "lose-tasks", "percent": 60, "paths": "/v2/apps" });
    let mut once = fault.clone();
    once["times"] = json!(1);
    web.crash()?;
    web.sim.control("fault", &once)?;
    web.start_another()?;
    web.logs(DOUBT, 1, PATIENCE)?;
    web.is_well(PATIENCE)?;

    web.crash()?;
    web.live(&[0, 1])?;
    web.sim.control("fault", &fault)?;
    web.start_another()?;
    web.logs(DOUBT, 1, PATIENCE)?;
    web.serves(&[0, 1])?;
    // Until then it had all tasks.
    web.logged_in_order("is=\"5 active", "is=\"2 active")?;
    web.logged_in_order(DOUBT, "modified")?;
    web.is_well(PATIENCE)?;
    web.end()
}

/// Makes only the next listing wrong. The agent requests one because its stream ends.
fn one_wrong_listing(web: &Cluster<'_>, mut fault: Value) -> Result<()> {
    fault["paths"] = json!("/v2/apps");
    fault["times"] = json!(1);
    web.sim.control("fault", &fault)?;
    web.sim.control("streams/close", &json!({})).map(drop)
}

/// While every answer is unusable nothing changes, and the status reports the fault in these words. Afterwards the
/// agent catches up.
fn no_answer(fault: Value, words: &str) -> TestResult {
    let lab = Lab::start(2)?;
    // The task's app has health checks: the event alone would activate a task without them.
    let checked = json!({ "healthChecks": true, "alive": true });
    let mut web = LoadedService::start(Cluster::on(&lab, lab.sim()?, 2, checked, &[])?)?;
    web.sim.control("fault", &fault)?;
    web.scale()?;
    let status = web.says(words, PATIENCE)?;
    let url = &status["agent"]["sources"][0]["trouble"]["url"];
    assert!(url.as_str().is_some_and(|url| url.starts_with(&lab.marathon_url())), "{status}");
    assert_eq!(status["agent"]["state"], "OK", "{status}");
    // More than one attempt: repetition does not make the answer valid.
    web.until("it is told again", NEXT_ATTEMPT, || {
        let status = lab.host(1).trouble(words)?;
        ensure!(status["agent"]["sources"][0]["trouble"]["attempts"].as_u64() >= Some(2), "{status}");
        Ok(())
    })?;
    web.active(&[0, 1])?;

    web.sim.control("fault", &json!({ "kind": "none" }))?;
    web.until("the task that came meanwhile is served", NEXT_ATTEMPT, || web.active(&[0, 1, 2]))?;
    web.live(&[0, 1, 2])?;
    web.is_well(PATIENCE)?;
    web.end()
}

/// Returns the health results of every task.
fn verdicts(holds: &Value) -> Vec<Value> {
    let tasks = holds["apps"][0]["tasks"].as_array();
    tasks.into_iter().flatten().map(|task| task["alive"].clone()).collect()
}
