//! Which tasks get connections: none, without a health result, alive, failing, all failing.

use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;
use serde_json::json;

use crate::fixtures::cluster::{APP, Cluster, SERVICE};

#[test]
fn service_without_backends_refuses_as_a_closed_port_does() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::unready(&lab, 0, json!({}))?;
    lab.service_when("it has no backends", APP, |web| web.backends.is_empty())?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {SERVICE}"))?, "ECONNREFUSED");
    // The hook refused the datagram within the call, so no reply can arrive.
    assert_eq!(lab.host(1).verdict("no_backend")?, 1);
    Ok(())
}

#[test]
fn task_without_health_result_is_warming_until_alive() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Cluster::unready(&lab, 2, json!({ "healthChecks": true, "alive": null }))?;
    web.when_states(&["warming", "warming"])?;
    assert_eq!(web.ask(3)?.errors["ECONNREFUSED"], 3);
    assert_eq!(lab.host(1).verdict("no_backend")?, 3);
    web.sim.control("health", &json!({ "task": web.tasks[1], "alive": true }))?;
    web.when_states(&["warming", "active"])?;
    web.answers_come_from(&["b"])?;
    Ok(())
}

#[test]
fn failing_task_drains_if_another_is_active_until_alive() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Cluster::unready(&lab, 2, json!({ "healthChecks": true, "alive": true }))?;
    web.when_states(&["active", "active"])?;
    web.answers_come_from(&["a", "b"])?;
    web.sim.control("health", &json!({ "task": web.tasks[0], "alive": false }))?;
    web.when_states(&["draining", "active"])?;
    web.answers_come_from(&["b"])?;
    web.sim.control("health", &json!({ "task": web.tasks[0], "alive": true }))?;
    web.when_states(&["active", "active"])?;
    web.answers_come_from(&["a", "b"])?;
    Ok(())
}

#[test]
fn tasks_that_all_fail_are_tried_rather_than_refused() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Cluster::unready(&lab, 2, json!({ "healthChecks": true, "alive": true }))?;
    web.sim.control("health", &json!({ "app": APP, "alive": false }))?;
    web.when_states(&["draining", "draining"])?;
    web.answers_come_from(&["a", "b"])?;
    assert_eq!(lab.host(1).verdict("drained")?, 100);
    Ok(())
}

#[test]
fn killing_task_keeps_connections_and_gets_no_new_ones() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 1)?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {SERVICE}"))?, "ok");
    web.scale()?;
    web.when_active(&[0, 1])?;
    web.sim.state(&web.tasks[0], "TASK_KILLING")?;
    web.when_states(&["draining", "active"])?;
    web.answers_come_from(&["b"])?;
    assert_eq!(client.tell("peer c")?, SERVICE.to_string());
    assert_eq!(client.tell("ask c")?, "a");
    Ok(())
}
