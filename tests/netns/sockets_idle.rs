//! Connections that exceed their service's idle timeout are reset, and no others.

use std::time::{Duration, Instant};

use anyhow::ensure;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};

use crate::fixtures::cluster::{Cluster, SERVICE};

/// A service on the same replica without an idle timeout.
const PATIENT: &str = "127.0.0.1:1235";
/// The idle timeout.
const ALLOWED: Duration = Duration::from_secs(3);
/// The kernel's clock for idle times ticks every 10 ms at the latest.
const TICK: Duration = Duration::from_millis(10);

#[test]
fn connection_is_reset_only_when_idle_longer_than_allowed() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Cluster::labelled(&lab, 1, &[("timeout.client", "3s"), ("timeout.server", "1h")])?;
    web.sim.app("/patient", 1235, &[(2, web.replicas[0].address.port())])?;
    lab.service_when("the other service is there", "/patient", |service| service.active().count() == 1)?;
    let mut client = lab.host(1).tcp_client()?;
    // The sweep that resets the next connection also passes this one.
    assert_eq!(client.tell(&format!("connect patient {PATIENT}"))?, "ok");
    let opened = Instant::now();
    assert_eq!(client.tell(&format!("connect idle {SERVICE}"))?, "ok");
    let (mut used, mut begun) = (0, opened);
    eventually_ok("the idle one is reset", PATIENCE, || {
        // A new connection each time, since each has an idle time of its own.
        (used, begun) = (used + 1, Instant::now());
        ensure!(client.tell(&format!("connect used{used} {SERVICE}"))? == "ok", "not connected");
        let log = web.agent.log();
        ensure!(log.contains("idle for too long"), "{log}");
        Ok(())
    })?;
    assert!(opened.elapsed() + TICK >= ALLOWED, "{:?}", opened.elapsed());
    let peer = client.tell(&format!("peer used{used}"))?;
    // If the machine has stalled, the last used one was idle for as long.
    assert!(peer == SERVICE.to_string() || begun.elapsed() + TICK >= ALLOWED, "{peer} after {:?}", begun.elapsed());
    assert_eq!(client.tell("finish idle")?, "ECONNABORTED");
    assert_eq!(client.tell("ask patient")?, "a");
    Ok(())
}
