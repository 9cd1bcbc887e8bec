//! Which backends are better than none, and in what order: draining ones, then ejected ones, and never a full one.

use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;
use serde_json::json;

use crate::served::{APP, SERVICE, Served};
use crate::written::{Written, backends, replicas, service};

#[test]
fn where_only_an_ejected_backend_is_left_it_is_tried_rather_than_refused() -> TestResult {
    let lab = Lab::start(2)?;
    let mut replicas = replicas(&lab, 2)?;
    let mut written = backends(&replicas);
    written[1]["maxconn"] = json!(1);
    let mut agent = Written::start(&lab, &[service(&written, &[])], &[])?;
    // Without the agent, which would keep it out.
    agent.agent.kill9()?;
    let mut client = lab.host(1).dialer()?;
    replicas[0].process.kill9()?;
    let of = client.tell(&format!("who 20 {SERVICE}"))?;
    assert_eq!(of.matches("ECONNREFUSED").count(), 1, "{of}");
    assert_eq!(client.tell(&format!("connect held {SERVICE}"))?, "ok");
    // The other has all the connections it may have.
    assert_eq!(client.tell(&format!("who 3 {SERVICE}"))?, "ECONNREFUSED ECONNREFUSED ECONNREFUSED");
    let panicked = lab.host(1).verdict("panicked")?;
    let _back = lab.replica(2, replicas[0].address.port(), "a")?;
    assert_eq!(client.tell(&format!("who 3 {SERVICE}"))?, "a a a");
    assert!(panicked > 0, "the second and third find it ejected");
    assert_eq!((lab.host(1).verdict("full")?, lab.host(1).verdict("ejected")?), (0, 1));
    Ok(())
}

#[test]
fn where_all_drain_those_that_answer_get_the_connections() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Served::unready(&lab, 3, json!({ "healthChecks": true, "alive": true }))?;
    web.sim.control("health", &json!({ "app": APP, "alive": false }))?;
    web.when_states(&["draining"; 3])?;
    web.replicas[0].process.kill9()?;
    let seen = web.ask(200)?;
    assert_eq!((seen.failed, seen.errors.get("ECONNREFUSED")), (1, Some(&1)), "{seen:?}");
    assert!(seen.by_replica.keys().eq(["b", "c"]), "{seen:?}");
    assert_eq!((lab.host(1).verdict("drained")?, lab.host(1).verdict("panicked")?), (200, 0));
    Ok(())
}

#[test]
fn a_draining_backend_takes_nothing_while_another_is_active_even_if_that_one_is_full() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Served::labelled(&lab, 1, &[("maxconn", "2")])?;
    web.scale()?;
    web.when_active(&[0, 1])?;
    web.sim.state(&web.tasks[0], "TASK_KILLING")?;
    web.when_states(&["draining", "active"])?;
    let mut client = lab.host(1).dialer()?;
    assert_eq!(client.hold("c", 3, SERVICE)?, ["ok", "ok", "ECONNREFUSED"]);
    assert_eq!((client.tell("ask c1")?.as_str(), client.tell("ask c2")?.as_str()), ("b", "b"));
    assert_eq!(lab.host(1).verdict("full")?, 1);
    Ok(())
}
