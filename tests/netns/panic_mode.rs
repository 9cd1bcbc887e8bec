//! Panic mode: which backends are tried if a service has no better one. Draining backends come first, then ejected
//! ones; full ones are never tried.

use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;
use serde_json::json;

use crate::fixtures::cluster::{APP, Cluster, SERVICE, eject_for_an_hour, when_ejected};
use crate::fixtures::file_source::{FileSource, backends, replicas, service};

#[test]
fn ejected_backend_is_tried_when_no_other_is_left() -> TestResult {
    let lab = Lab::start(2)?;
    let mut replicas = replicas(&lab, 2)?;
    let mut written = backends(&replicas);
    written[1]["maxconn"] = json!(1);
    let mut agent = FileSource::start(&lab, &[service(&written, &[])], &[])?;
    // Without the agent, which would keep the backend out.
    agent.agent.kill9()?;
    let mut client = lab.host(1).tcp_client()?;
    replicas[0].process.kill9()?;
    when_ejected(&lab, &mut client)?;
    eject_for_an_hour(&lab, replicas[0].address)?;
    assert_eq!(client.tell(&format!("who 20 {SERVICE}"))?, ["b"; 20].join(" "));
    assert_eq!(client.tell(&format!("connect held {SERVICE}"))?, "ok");
    // The other backend is full.
    assert_eq!(client.tell(&format!("who 3 {SERVICE}"))?, "ECONNREFUSED ECONNREFUSED ECONNREFUSED");
    assert_eq!(lab.host(1).verdict("panic_mode")?, 3);
    let _back = lab.replica(2, replicas[0].address.port(), "a")?;
    assert_eq!(client.tell(&format!("who 3 {SERVICE}"))?, "a a a");
    // The first of these connections has ended the ejection.
    assert_eq!(lab.host(1).verdict("panic_mode")?, 4);
    assert_eq!((lab.host(1).verdict("backends_full")?, lab.host(1).verdict("ejected")?), (0, 1));
    Ok(())
}

#[test]
fn draining_backends_that_answer_get_all_when_none_is_active() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::unready(&lab, 3, json!({ "healthChecks": true, "alive": true }))?;
    web.sim.control("health", &json!({ "app": APP, "alive": false }))?;
    web.when_states(&["draining"; 3])?;
    web.replicas[0].process.kill9()?;
    when_ejected(&lab, &mut lab.host(1).tcp_client()?)?;
    eject_for_an_hour(&lab, web.replicas[0].address)?;
    let before = lab.host(1).verdict("drained")?;
    let seen = web.ask(200)?;
    assert!(seen.failed == 0 && seen.by_replica.keys().eq(["b", "c"]), "{seen:?}");
    assert_eq!((lab.host(1).verdict("drained")? - before, lab.host(1).verdict("panic_mode")?), (200, 0));
    Ok(())
}

#[test]
fn draining_backend_gets_nothing_while_another_is_active() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::labelled(&lab, 1, &[("maxconn", "2")])?;
    web.scale()?;
    web.when_active(&[0, 1])?;
    web.sim.state(&web.tasks[0], "TASK_KILLING")?;
    web.when_states(&["draining", "active"])?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.hold("c", 3, SERVICE)?, ["ok", "ok", "ECONNREFUSED"]);
    assert_eq!((client.tell("ask c1")?.as_str(), client.tell("ask c2")?.as_str()), ("b", "b"));
    assert_eq!(lab.host(1).verdict("backends_full")?, 1);
    Ok(())
}
