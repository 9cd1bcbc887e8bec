//! `backend drain`: with an agent, without one, and across restarts.

use anyhow::{Context as _, Result};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use proxymatic_tests::process::Finished;
use serde_json::Value;

use crate::fixtures::cluster::Cluster;

fn set(lab: &Lab, verb: &str, backend: &str) -> Result<Finished> {
    lab.proxymatic(&["-j", "backend", verb, backend])
}

#[test]
fn drained_backend_survives_agent_restart_until_undrained() -> TestResult {
    let lab = Lab::start(2)?;
    let mut cluster = Cluster::start(&lab, 2)?;
    let first = cluster.replicas[0].address.to_string();
    let said: Value = serde_json::from_str(&set(&lab, "drain", &first)?.well()?.stdout)?;
    assert_eq!(said["backends"][0]["state"], "draining", "at once: {said}");
    cluster.answers_come_from(&["b"])?;
    // The next plan, and the plan of a new agent.
    cluster.scale()?;
    cluster.when_states(&["draining", "active", "active"])?;
    cluster.answers_come_from(&["b", "c"])?;
    cluster.agent.kill9()?;
    cluster.answers_come_from(&["b", "c"])?;
    cluster.start_agent()?;
    cluster.when_states(&["draining", "active", "active"])?;
    cluster.answers_come_from(&["b", "c"])?;
    set(&lab, "undrain", &first)?.well()?;
    cluster.when_active(&[0, 1, 2])?;
    // The command waits for the agent, which gives the backend slots, for two seconds only.
    eventually_ok("the backend gets connections again", PATIENCE, || cluster.answers_come_from(&["a", "b", "c"]))?;
    Ok(())
}

#[test]
fn backends_without_an_agent_are_drained_and_undrained() -> TestResult {
    let lab = Lab::start(2)?;
    let mut cluster = Cluster::start(&lab, 2)?;
    cluster.agent.kill9()?;
    let first = cluster.replicas[0].address.to_string();
    set(&lab, "drain", &first)?.well()?;
    cluster.answers_come_from(&["b"])?;
    set(&lab, "undrain", &first)?.well()?;
    cluster.answers_come_from(&["a", "b"])?;
    set(&lab, "drain", &first)?.well()?;
    cluster.start_agent()?;
    cluster.when_states(&["draining", "active"])?;
    cluster.answers_come_from(&["b"])?;
    Ok(())
}

#[test]
fn drain_of_the_last_active_backend_warns_and_refuses_nobody() -> TestResult {
    let lab = Lab::start(2)?;
    let cluster = Cluster::start(&lab, 1)?;
    let first = cluster.replicas[0].address.to_string();
    let left = set(&lab, "drain", &first)?;
    assert_eq!(left.status.code(), Some(1), "{left:?}");
    let said: Value = serde_json::from_str(&left.stdout)?;
    let warning = said["warnings"][0].as_str().context("no warning")?;
    assert!(warning.starts_with("/web has no other backend that is active"), "{said}");
    cluster.answers_come_from(&["a"])?;
    Ok(())
}

#[test]
fn drain_of_an_unknown_backend_suggests_the_nearest() -> TestResult {
    let lab = Lab::start(2)?;
    let cluster = Cluster::start(&lab, 1)?;
    let there = cluster.replicas[0].address;
    let left = lab.proxymatic(&["backend", "drain", "10.77.0.2:8002"])?;
    assert_eq!((left.status.code(), left.stdout.as_str()), (Some(2), ""), "{left:?}");
    let said =
        format!("proxymatic: no backend 10.77.0.2:8002: the nearest is {there}; see `proxymatic backend show`\n");
    assert_eq!(left.stderr, said);
    Ok(())
}
