//! Connections that are idle for longer than their service allows are reset, and those that are not are not.

use std::time::{Duration, Instant};

use anyhow::ensure;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};

use crate::served::{SERVICE, Served};

#[test]
fn a_connection_that_is_idle_for_too_long_is_reset_and_one_in_use_is_not() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Served::labelled(&lab, 1, &[("timeout.client", "3s"), ("timeout.server", "1h")])?;
    let mut client = lab.host(1).dialer()?;
    assert_eq!(client.tell(&format!("connect idle {SERVICE}"))?, "ok");
    let opened = Instant::now();
    let mut used = 0;
    eventually_ok("the idle one is reset", PATIENCE, || {
        // A new connection each time: what is counted is how long each has been silent.
        used += 1;
        assert_eq!(client.tell(&format!("connect used{used} {SERVICE}"))?, "ok");
        let log = web.agent.log();
        ensure!(log.contains("idle for too long"), "{log}");
        Ok(())
    })?;
    let took = opened.elapsed();
    println!("reset {took:?} after it was opened");
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(6), "{took:?}");
    assert_eq!(client.tell("finish idle")?, "ECONNABORTED");
    assert_eq!(client.tell(&format!("peer used{used}"))?, SERVICE.to_string());
    Ok(())
}

#[test]
fn a_service_that_says_nothing_of_idle_connections_keeps_them() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Served::start(&lab, 1)?;
    let mut client = lab.host(1).dialer()?;
    assert_eq!(client.tell(&format!("connect c {SERVICE}"))?, "ok");
    // As long as the other test takes.
    proxymatic_tests::eventually::until(Instant::now() + Duration::from_secs(5));
    assert_eq!(client.tell("ask c")?, "a");
    assert!(!web.agent.log().contains("idle for too long"));
    Ok(())
}
