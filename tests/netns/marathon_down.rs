//! Marathon does not answer: the agent reports it and keeps its services for as long as it takes.

use std::fs;

use anyhow::{Context as _, Result};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, binary};
use serde_json::{Value, json};

use crate::fixtures::cluster::{APP, Cluster, PORT, place};

#[test]
fn unreachable_marathon_is_reported_and_agent_keeps_running() -> TestResult {
    let lab = Lab::start(1)?;
    let mut agent = lab.agent(&[])?;
    let status = trouble(&lab)?;
    assert_eq!(status["agent"]["state"], "INITIALIZING", "{status}");
    let trouble = &status["agent"]["sources"][0]["trouble"];
    let (url, reason) = (trouble["url"].to_string(), trouble["reason"].to_string());
    assert!(url.contains(&lab.marathon_url()) && reason.contains(&lab.marathon_url()), "{trouble}");
    assert!(reason.contains("refused the connection"), "{trouble}");
    assert_eq!(agent.try_wait()?, None);
    let said = lab.proxymatic(&["status"])?;
    assert!(said.stdout.contains("INITIALIZING") && said.stdout.contains(&lab.marathon_url()), "{said:?}");
    Ok(())
}

#[test]
fn adopted_services_are_served_until_marathon_answers() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    web.agent.kill9()?;
    web.sim.process.kill9()?;
    web.agent = lab.agent(&[])?;
    let status = trouble(&lab)?;
    assert_eq!(status["agent"]["state"], "INITIALIZING", "{status}");
    web.answers_come_from(&["a", "b"])?;

    // Marathon comes back with the same app and one task less.
    let apps = lab.run_dir().join("apps.json");
    let app = json!({ "id": APP, "servicePort": PORT, "tasks": [place(web.replicas[1].address)] });
    fs::write(&apps, json!([app]).to_string())?;
    let address = format!("{}:8080", lab.host(1).address());
    let arguments = ["--listen", &address, "--apps", apps.to_str().context("a path that is not UTF-8")?];
    let _marathon = lab.host(1).spawn(&binary("marathon-sim")?, &arguments)?;
    web.when_active(&[1])?;
    lab.host(1).agent_ready(PATIENCE)?;
    web.answers_come_from(&["b"])?;
    // The event stream may come back a little later.
    eventually_ok("all is well", PATIENCE, || lab.host(1).well())?;
    assert_eq!(web.agent.try_wait()?, None);
    Ok(())
}

/// Waits until the status reports that Marathon does not answer.
fn trouble(lab: &Lab) -> Result<Value> {
    eventually_ok("the status reports the failure", PATIENCE, || lab.host(1).trouble("refused the connection"))
}
