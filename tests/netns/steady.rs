//! Marathon goes wrong in every way it is known to, while clients connect all the time: no live backend is lost, no
//! connect fails, and the status says what is wrong for as long as it is.

mod watched;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use serde_json::{Value, json};

use self::watched::Watched;
use crate::served::{APP, Served};

/// How long nobody leads where that takes long.
const LEADERLESS: Duration = Duration::from_secs(60);
/// The longest pause of the agent between two attempts at a Marathon that fails, and a little time for the attempt.
const NEXT_ATTEMPT: Duration = Duration::from_secs(20);
/// After so long without a byte an agent leaves a stream of events; a heartbeat comes every 10 s.
const SILENCE: Duration = Duration::from_secs(25);
/// What the status says of a listing that lacks too much.
const DOUBT: &str = "lost more than half of the backends in one answer; they stay until a second answer says so";

#[test]
fn a_leader_change_that_forgets_all_health_loses_no_backend_and_fails_no_connect() -> TestResult {
    let lab = Lab::start(2)?;
    let standby = format!("{}:8081", lab.host(1).address());
    let (sim, url) = (lab.sim_with(&["--node", &standby])?, format!("http://{standby}"));
    let checked = json!({ "healthChecks": true, "alive": true });
    let mut web = Watched::start(Served::on(&lab, sim, 3, checked, &["--marathon", &url])?)?;

    web.sim.control("leader", &json!({ "leader": standby, "seconds": 5, "code": 502 }))?;
    web.says("Marathon has no leader", PATIENCE)?;
    web.is_well(NEXT_ATTEMPT)?;
    let holds = web.sim.holds()?;
    assert_eq!((&holds["leader"], verdicts(&holds)), (&json!(standby), vec![Value::Null; 3]));

    // The new leader's own verdicts count from the first on.
    web.live(&[0, 2]);
    web.sim.control("health", &json!({ "task": web.tasks[1], "alive": false }))?;
    web.serves(&[0, 2])?;
    web.sim.control("health", &json!({ "app": APP, "alive": true }))?;
    web.serves(&[0, 1, 2])?;
    web.end()
}

#[test]
fn a_minute_of_502_loses_no_backend_and_fails_no_connect_even_if_the_agent_dies_in_it() -> TestResult {
    let lab = Lab::start(2)?;
    // Whoever leads afterwards knows no health: what the agent that died knew is taken from what it published.
    let checked = json!({ "healthChecks": true, "alive": true });
    let mut web = Watched::start(Served::on(&lab, lab.sim()?, 2, checked, &[])?)?;
    let begun = Instant::now();
    web.sim.control("leader", &json!({ "seconds": LEADERLESS.as_secs(), "code": 502 }))?;
    web.scale()?;
    let status = web.says("502 Bad Gateway: Marathon has no leader", PATIENCE)?;
    assert_eq!(status["agent"]["state"], "OK", "{status}");

    web.agent.kill9()?;
    web.agent = lab.agent(&[])?;
    let status = web.says("502 Bad Gateway: Marathon has no leader", PATIENCE)?;
    assert_eq!(status["agent"]["state"], "INITIALIZING", "{status}");
    web.until("the minute is almost over", LEADERLESS, || {
        ensure!(begun.elapsed() + Duration::from_secs(1) >= LEADERLESS, "{:?} of it", begun.elapsed());
        lab.host(1).trouble("502 Bad Gateway: Marathon has no leader")
    })?;
    web.is_well(NEXT_ATTEMPT)?;
    assert!(begun.elapsed() >= LEADERLESS, "well after {:?}", begun.elapsed());
    web.live(&[0, 1, 2]);
    // The new leader has seen only the task that came meanwhile.
    assert_eq!(verdicts(&web.sim.holds()?), [Value::Null, Value::Null, json!(true)]);
    web.sim.control("health", &json!({ "app": APP, "alive": true }))?;
    web.serves(&[0, 1, 2])?;
    web.end()
}

#[test]
fn a_stream_of_events_that_falls_silent_is_left_after_25_s_and_what_it_missed_is_read() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Watched::start(Served::start(&lab, 2)?)?;
    web.sim.control("fault", &json!({ "kind": "silent-events" }))?;
    web.scale()?;
    web.says("sent no byte for 25 s, not even a heartbeat", SILENCE + PATIENCE)?;
    web.sim.control("fault", &json!({ "kind": "none" }))?;
    // The next poll is 45 s after the last one at the earliest: only the watchdog can have noticed.
    web.serves(&[0, 1, 2])?;
    web.live(&[0, 1, 2]);
    web.is_well(PATIENCE)?;
    web.end()
}

#[test]
fn a_change_whose_event_is_never_delivered_is_found_by_the_poll() -> TestResult {
    let lab = Lab::start(2)?;
    let arguments = ["--refresh-interval", "3"];
    let mut web = Watched::start(Served::on(&lab, lab.sim()?, 3, json!({}), &arguments)?)?;
    web.sim.control("delivery", &json!({ "lost": true }))?;
    // One task is replaced, one is added; the process of the first goes on until nobody can know its address.
    web.live(&[1, 2]);
    web.sim.state(&web.tasks[0], "TASK_KILLED")?;
    web.scale()?;
    web.scale()?;
    web.serves(&[1, 2, 3, 4])?;
    web.live(&[1, 2, 3, 4]);
    web.replicas[0].terminate()?;
    let status = web.is_well(PATIENCE)?;
    let age = status["agent"]["sources"][0]["answered_s"].as_f64();
    assert!(age.is_some_and(|age| age < 4.0), "{status}");
    web.end()
}

#[test]
fn an_empty_listing_loses_no_backend_and_fails_no_connect() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Watched::start(Served::start(&lab, 3)?)?;
    one_wrong_listing(&web, json!({ "kind": "empty" }))?;
    web.complains(DOUBT)?;
    web.is_well(PATIENCE)?;
    web.end()
}

#[test]
fn a_bare_empty_array_is_no_listing_however_often_it_is_said() -> TestResult {
    let fault = json!({ "kind": "status", "code": 200, "body": "[]", "paths": "/v2/apps" });
    no_answer(fault, "answered JSON of another kind")
}

#[test]
fn a_body_that_is_cut_off_loses_no_backend_and_fails_no_connect() -> TestResult {
    no_answer(json!({ "kind": "truncate" }), "broke off in the middle of its answer")
}

#[test]
fn an_html_page_with_status_200_loses_no_backend_and_fails_no_connect() -> TestResult {
    no_answer(json!({ "kind": "html" }), "answered an HTML page, not JSON")
}

#[test]
fn a_listing_without_60_percent_of_the_tasks_is_believed_only_when_a_second_one_says_so() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Watched::start(Served::start(&lab, 5)?)?;
    one_wrong_listing(&web, json!({ "kind": "lose-tasks", "percent": 60 }))?;
    web.complains(DOUBT)?;
    web.is_well(PATIENCE)?;

    web.sim.control("fault", &json!({ "kind": "lose-tasks", "percent": 60 }))?;
    web.sim.control("streams/close", &json!({}))?;
    web.complains(DOUBT)?;
    web.live(&[0, 1]);
    web.serves(&[0, 1])?;
    web.is_well(PATIENCE)?;

    web.sim.control("fault", &json!({ "kind": "none" }))?;
    web.sim.control("streams/close", &json!({}))?;
    web.serves(&[0, 1, 2, 3, 4])?;
    web.end()
}

#[test]
fn a_restarted_agent_doubts_a_first_listing_without_60_percent_of_what_is_served() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Watched::start(Served::start(&lab, 5)?)?;
    let fault = json!({ "kind": "lose-tasks", "percent": 60, "paths": "/v2/apps" });
    let mut once = fault.clone();
    once["times"] = json!(1);
    web.agent.kill9()?;
    web.sim.control("fault", &once)?;
    web.agent = lab.agent(&[])?;
    web.complains(DOUBT)?;
    web.is_well(PATIENCE)?;

    web.agent.kill9()?;
    web.sim.control("fault", &fault)?;
    web.agent = lab.agent(&[])?;
    web.complains(DOUBT)?;
    web.live(&[0, 1]);
    web.serves(&[0, 1])?;
    web.is_well(PATIENCE)?;
    web.end()
}

/// The next listing is wrong, and only that one. The agent asks for one because its stream ends.
fn one_wrong_listing(web: &Served<'_>, mut fault: Value) -> Result<()> {
    fault["paths"] = json!("/v2/apps");
    fault["times"] = json!(1);
    web.sim.control("fault", &fault)?;
    web.sim.control("streams/close", &json!({})).map(drop)
}

/// While every answer is so wrong that it is none, nothing changes, and the status says so in these words. Afterwards
/// all is caught up with.
fn no_answer(fault: Value, words: &str) -> TestResult {
    let lab = Lab::start(2)?;
    // Of an app that is checked: a task of another would be served by its event alone.
    let checked = json!({ "healthChecks": true, "alive": true });
    let mut web = Watched::start(Served::on(&lab, lab.sim()?, 2, checked, &[])?)?;
    web.sim.control("fault", &fault)?;
    web.scale()?;
    let status = web.says(words, PATIENCE)?;
    let url = &status["agent"]["sources"][0]["trouble"]["url"];
    assert!(url.as_str().is_some_and(|url| url.starts_with(&lab.marathon_url())), "{status}");
    assert_eq!(status["agent"]["state"], "OK", "{status}");
    // More than one attempt: it is not believed for being said again.
    web.until("it is told again", NEXT_ATTEMPT, || {
        let status = lab.host(1).trouble(words)?;
        ensure!(status["agent"]["sources"][0]["trouble"]["attempts"].as_u64() >= Some(2), "{status}");
        Ok(())
    })?;
    web.active(&[0, 1])?;

    web.sim.control("fault", &json!({ "kind": "none" }))?;
    web.until("the task that came meanwhile is served", NEXT_ATTEMPT, || web.active(&[0, 1, 2]))?;
    web.live(&[0, 1, 2]);
    web.is_well(PATIENCE)?;
    web.end()
}

/// What the health checks of every task say.
fn verdicts(holds: &Value) -> Vec<Value> {
    let tasks = holds["apps"][0]["tasks"].as_array();
    tasks.into_iter().flatten().map(|task| task["alive"].clone()).collect()
}
