//! `backend drain`: with an agent and without one, and whoever comes after.

use anyhow::{Context as _, Result};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;
use proxymatic_tests::process::Finished;
use serde_json::Value;

use crate::served::Served;

fn set(lab: &Lab, verb: &str, backend: &str) -> Result<Finished> {
    lab.proxymatic(&["-j", "backend", verb, backend])
}

#[test]
fn a_drained_backend_stays_so_across_agents_until_it_is_undrained() -> TestResult {
    let lab = Lab::start(2)?;
    let mut served = Served::start(&lab, 2)?;
    let first = served.replicas[0].address.to_string();
    let said: Value = serde_json::from_str(&set(&lab, "drain", &first)?.well()?.stdout)?;
    assert_eq!(said["backends"][0]["state"], "draining", "at once: {said}");
    served.answers_come_from(&["b"])?;
    // The next plan, and the one of an agent that starts anew.
    served.scale()?;
    served.when_states(&["draining", "active", "active"])?;
    served.answers_come_from(&["b", "c"])?;
    served.agent.kill9()?;
    served.answers_come_from(&["b", "c"])?;
    served.start_agent()?;
    served.when_states(&["draining", "active", "active"])?;
    served.answers_come_from(&["b", "c"])?;
    set(&lab, "undrain", &first)?.well()?;
    served.when_active(&[0, 1, 2])?;
    served.answers_come_from(&["a", "b", "c"])?;
    Ok(())
}

#[test]
fn without_an_agent_backends_are_drained_and_undrained_too() -> TestResult {
    let lab = Lab::start(2)?;
    let mut served = Served::start(&lab, 2)?;
    served.agent.kill9()?;
    let first = served.replicas[0].address.to_string();
    set(&lab, "drain", &first)?.well()?;
    served.answers_come_from(&["b"])?;
    set(&lab, "undrain", &first)?.well()?;
    served.answers_come_from(&["a", "b"])?;
    set(&lab, "drain", &first)?.well()?;
    served.start_agent()?;
    served.when_states(&["draining", "active"])?;
    served.answers_come_from(&["b"])?;
    Ok(())
}

#[test]
fn who_drains_the_last_active_backend_is_told_and_nobody_is_refused() -> TestResult {
    let lab = Lab::start(2)?;
    let served = Served::start(&lab, 1)?;
    let first = served.replicas[0].address.to_string();
    let left = set(&lab, "drain", &first)?;
    assert_eq!(left.status.code(), Some(1), "{left:?}");
    let said: Value = serde_json::from_str(&left.stdout)?;
    let warning = said["warnings"][0].as_str().context("no warning")?;
    assert!(warning.starts_with("/web has no other backend that is active"), "{said}");
    served.answers_come_from(&["a"])?;
    Ok(())
}

#[test]
fn a_backend_that_is_not_there_is_named_with_the_nearest_that_is() -> TestResult {
    let lab = Lab::start(2)?;
    let served = Served::start(&lab, 1)?;
    let there = served.replicas[0].address;
    let left = lab.proxymatic(&["backend", "drain", "10.77.0.2:8002"])?;
    assert_eq!((left.status.code(), left.stdout.as_str()), (Some(2), ""), "{left:?}");
    let said =
        format!("proxymatic: no backend 10.77.0.2:8002: the nearest is {there}; see `proxymatic backend show`\n");
    assert_eq!(left.stderr, said);
    Ok(())
}
