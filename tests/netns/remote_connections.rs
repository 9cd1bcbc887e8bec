//! How the agent counts and shows connections of remote clients, and when it ends them. Module `packets` tests their
//! packets.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::{eventually_ok, until};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use serde_json::{Value, json};

use crate::fixtures::cluster::{APP, Cluster};
use crate::remote::when_marked;

/// The service address of host 1 for remote clients.
const DESTINATION: &str = "10.77.0.1:1234";
const FLAGS: [&str; 2] = ["--interface", "lab0"];

/// A service with these labels and one replica on host 2, which host 1 serves to remote clients.
fn served<'lab>(lab: &'lab Lab, labels: &[(&str, &str)]) -> Result<Cluster<'lab>> {
    let name = |key: &str| format!("com.meltwater.proxymatic.port.0.{key}");
    let labels: serde_json::Map<_, _> = labels.iter().map(|(key, value)| (name(key), json!(value))).collect();
    let cluster = Cluster::on(lab, lab.sim()?, 1, json!({ "labels": labels }), &FLAGS)?;
    cluster.when_active(&[0])?;
    when_marked(lab.host(1), 1)?;
    let said = lab.proxymatic(&["hook", "show"])?.well()?.stdout;
    ensure!(said.contains("tc_ingress@lab0") && said.contains("tc_egress@lab0"), "{said}");
    Ok(cluster)
}

fn flows(lab: &Lab) -> Result<Vec<Value>> {
    Ok(serde_json::from_str(&lab.proxymatic(&["-j", "flow", "show"])?.well()?.stdout)?)
}

fn active_is(lab: &Lab, wanted: u64) -> TestResult {
    lab.service_when(&format!("{wanted} connections are open"), APP, |web| {
        web.backends.iter().map(|backend| backend.active).sum::<u64>() == wanted
    })?;
    Ok(())
}

fn verdict(lab: &Lab, name: &str) -> Result<u64> {
    let status: Value = serde_json::from_str(&lab.proxymatic(&["-j", "status"])?.stdout)?;
    Ok(status["verdicts"][name].as_u64().unwrap_or(0))
}

#[test]
fn remote_client_is_counted_and_shown_while_connected() -> TestResult {
    let lab = Lab::start(3)?;
    let _web = served(&lab, &[("expose", "true")])?;
    let mut client = lab.host(3).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {DESTINATION}"))?, "ok");
    active_is(&lab, 1)?;
    let flows = flows(&lab)?;
    let text = |key: &str| flows[0][key].as_str().unwrap_or_default().to_owned();
    assert_eq!(flows.len(), 1, "{flows:?}");
    assert!(text("client").starts_with("10.77.0.3:"), "{flows:?}");
    assert_eq!(["service", "destination", "backend", "task"].map(text)[..3], [APP, DESTINATION, "10.77.0.2:8001"]);
    let port: u16 = text("local").strip_prefix("10.77.0.1:").unwrap_or_default().parse()?;
    assert!((61_000..=64_999).contains(&port), "{flows:?}");
    assert!(flows[0]["pid"].is_null());
    assert_eq!(verdict(&lab, "forwarded")?, 1);
    assert_eq!(client.tell("ask c")?, "a");
    assert_eq!(client.tell("close c")?, "ok");
    active_is(&lab, 0)?;
    eventually_ok("it is not shown any more", PATIENCE, || {
        let flows = self::flows(&lab)?;
        ensure!(flows.is_empty(), "{flows:?}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn service_without_expose_label_serves_local_clients_only() -> TestResult {
    let lab = Lab::start(3)?;
    let _web = served(&lab, &[])?;
    let mut client = lab.host(3).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {DESTINATION}"))?, "ECONNREFUSED");
    assert_eq!(verdict(&lab, "not_exposed")?, 1);
    let mut own = lab.host(1).tcp_client()?;
    assert_eq!(own.tell(&format!("connect c {DESTINATION}"))?, "ok");
    Ok(())
}

#[test]
fn idle_remote_connection_is_reset_and_no_longer_counted() -> TestResult {
    let lab = Lab::start(3)?;
    let web = served(&lab, &[("expose", "true"), ("timeout.client", "2s")])?;
    let mut client = lab.host(3).tcp_client()?;
    let began = Instant::now();
    assert_eq!(client.tell(&format!("connect c {DESTINATION}"))?, "ok");
    web.agent.logs("(idle for too long): 1 connections of remote clients were removed", 1, PATIENCE)?;
    assert!(began.elapsed() > Duration::from_secs(2), "{:?}", began.elapsed());
    let service = lab.host(1).service(APP)?;
    assert_eq!((service.backends[0].active, service.backends[0].total), (0, 1), "{service:?}");
    assert_eq!(flows(&lab)?, Vec::<Value>::new());
    assert_ne!(client.tell("ask c")?, "a");
    Ok(())
}

#[test]
fn remote_connection_to_gone_task_is_reset_if_labelled() -> TestResult {
    let lab = Lab::start(3)?;
    let web = served(&lab, &[("expose", "true"), ("on-backend-removed", "reset")])?;
    let mut client = lab.host(3).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {DESTINATION}"))?, "ok");
    active_is(&lab, 1)?;
    web.sim.state(&web.tasks[0], "TASK_KILLED")?;
    eventually_ok("it is given up", PATIENCE, || {
        let flows = flows(&lab)?;
        ensure!(flows.is_empty(), "{flows:?}");
        Ok(())
    })?;
    assert_ne!(client.tell("ask c")?, "a");
    Ok(())
}

#[test]
fn remote_connection_survives_agent_death_and_restart() -> TestResult {
    let lab = Lab::start(3)?;
    let mut web = served(&lab, &[("expose", "true")])?;
    let mut client = lab.host(3).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {DESTINATION}"))?, "ok");
    web.agent.kill9()?;
    assert_eq!(client.tell(&format!("connect d {DESTINATION}"))?, "ok");
    web.agent = lab.agent(&FLAGS)?;
    lab.host(1).agent_ready(PATIENCE)?;
    active_is(&lab, 2)?;
    // Two censuses: without its count the connection would count as drift by now.
    until(Instant::now() + Duration::from_secs(13));
    active_is(&lab, 2)?;
    for connection in ["c", "d"] {
        assert_eq!(client.tell(&format!("ask {connection}"))?, "a");
    }
    Ok(())
}

#[test]
fn snat_ports_are_reserved_until_detach() -> TestResult {
    let lab = Lab::start(1)?;
    let _sim = lab.sim()?;
    let host = lab.host(1);
    let read = || -> Result<String> {
        let said = host.run("cat".as_ref(), &["/proc/sys/net/ipv4/ip_local_reserved_ports"], PATIENCE)?.well()?.stdout;
        Ok(said.trim().to_owned())
    };
    let before = read()?;
    let mut agent = lab.agent(&["--interface", "lab0", "--snat-ports", "40000-40999"])?;
    host.agent_ready(PATIENCE)?;
    eventually_ok("the ports are reserved", PATIENCE, || {
        let now = read()?;
        ensure!(now.contains("40000-40999"), "{now}");
        Ok(())
    })?;
    assert!(agent.terminate(PATIENCE)?.success());
    host.proxymatic(&["detach"])?.well()?;
    assert_eq!(read()?, before);
    Ok(())
}
