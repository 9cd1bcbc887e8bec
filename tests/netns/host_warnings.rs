//! Warnings about the host, and the reservation of service ports.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Host, Lab, PATIENCE, binary};
use proxymatic_tests::skip::skipped;
use serde_json::json;

use crate::fixtures::cluster::{APP, Cluster};

/// A range without the ports that programs of the lab listen on: a socket of any program may have taken these before.
const EPHEMERAL: &str = "1200 7999";
const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const RESERVED: &str = "/proc/sys/net/ipv4/ip_local_reserved_ports";

#[test]
fn ephemeral_service_port_warns_until_it_is_reserved() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1);
    set(host, RANGE, EPHEMERAL)?;
    let mut web = Cluster::start(&lab, 1)?;
    let words = "service ports 1234 are among those that the kernel gives to any socket (1200 to 7999)";
    eventually_ok("the agent warns", PATIENCE, || {
        ensure!(warnings(host)?.contains(words), "{}", warnings(host)?);
        Ok(())
    })?;
    assert_eq!(get(host, RESERVED)?, "");
    web.agent.kill9()?;
    web.agent = lab.agent(&["--reserve-ports"])?;
    reserved_are(host, "1234")?;
    eventually_ok("nothing is wrong", PATIENCE, || host.well().map(drop))?;
    Ok(())
}

#[test]
fn reserved_ports_follow_services_and_keep_the_operators() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1);
    set(host, RANGE, EPHEMERAL)?;
    set(host, RESERVED, "5000,6000")?;
    let mut web = Cluster::on(&lab, lab.sim()?, 1, json!({}), &["--reserve-ports"])?;
    reserved_are(host, "1234,5000,6000")?;
    // A port that the operator has reserved, one more, and one outside of the range.
    web.sim.app("/two", 5000, &[(2, 8001)])?;
    web.sim.app("/three", 1235, &[(2, 8001)])?;
    web.sim.app("/four", 1100, &[(2, 8001)])?;
    reserved_are(host, "1234-1235,5000,6000")?;
    // The next agent recognizes the earlier agent's reservations.
    web.agent.kill9()?;
    web.agent = lab.agent(&["--reserve-ports"])?;
    host.agent_ready(PATIENCE)?;
    web.sim.control("app/delete", &json!({ "id": APP }))?;
    reserved_are(host, "1235,5000,6000")?;
    assert!(web.agent.terminate(PATIENCE)?.success());
    assert_eq!(get(host, RESERVED)?, "1235,5000,6000");
    lab.proxymatic(&["detach"])?.well()?;
    assert_eq!(get(host, RESERVED)?, "5000,6000");
    Ok(())
}

#[test]
fn agent_without_reservation_frees_earlier_reserved_ports() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1);
    set(host, RANGE, EPHEMERAL)?;
    let mut web = Cluster::on(&lab, lab.sim()?, 1, json!({}), &["--reserve-ports"])?;
    reserved_are(host, "1234")?;
    web.agent.kill9()?;
    web.agent = lab.agent(&[])?;
    reserved_are(host, "")?;
    Ok(())
}

#[test]
fn foreign_programs_on_the_cgroup_are_named() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1);
    let web = Cluster::start(&lab, 1)?;
    web.sim.app("/two", 1235, &[(2, 8001)])?;
    eventually_ok("nothing is wrong", PATIENCE, || host.well())?;
    // An agent with other pins is as foreign as Cilium.
    let (pins, socket) = (lab.bpffs().join("other"), lab.run_dir().join("other.sock"));
    let (pins, socket) = (pins.display().to_string(), socket.display().to_string());
    let (cgroup, marathon) = (host.cgroup().path().display().to_string(), lab.marathon_url());
    let here = ["--bpffs", &pins, "--socket", &socket];
    let run = ["run", "--cgroup", &cgroup, "--marathon", &marathon, "--status-endpoint", ""];
    let _other = host.spawn(&binary("proxymatic")?, &[&here[..], &run].concat())?;
    let said = eventually_ok("the other agent warns", PATIENCE, || {
        let said = host.run(&binary("proxymatic")?, &[&here[..], &["-j", "status"]].concat(), PATIENCE)?.stdout;
        ensure!(said.contains("programs of others are attached to the cgroup that is served"), "{said}");
        Ok(said)
    })?;
    for hook in ["connect4", "sendmsg6", "recvmsg4", "getpeername6"] {
        assert!(
            said.contains(&format!("{hook} (program ")) && said.contains(&format!(", at {hook})")),
            "{hook}: {said}"
        );
    }
    assert!(!said.contains("sock_release (program"), "{said}");
    Ok(())
}

/// A port that only a NAT rule takes has no listener: Docker publishes ports so if its userland proxy is off.
#[test]
fn service_port_that_a_nat_rule_takes_is_warned_of() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1);
    let rule = |verb| {
        let rule =
            ["-t", "nat", verb, "PREROUTING", "-p", "tcp", "--dport", "1234", "-j", "DNAT", "--to", "10.77.0.2:80"];
        host.run(Path::new("iptables-nft"), &rule, PATIENCE)
    };
    // Kernels without this part of nftables, and hosts without the program.
    if !rule("-A").is_ok_and(|done| done.status.success()) {
        skipped("NAT rules", "iptables-nft cannot add one here")?;
        return Ok(());
    }
    let web = Cluster::start(&lab, 1)?;
    let words = "NAT rules of this host take service ports 1234/tcp: connections to them go to the service";
    eventually_ok("the agent warns", PATIENCE, || {
        ensure!(warnings(host)?.contains(words), "{}", warnings(host)?);
        Ok(())
    })?;
    rule("-D")?.well()?;
    // The agent looks each minute, and when services change.
    web.sim.app("/two", 1235, &[(2, 8001)])?;
    eventually_ok("nothing is wrong", PATIENCE, || host.well().map(drop))?;
    Ok(())
}

fn reserved_are(host: &Host, wanted: &str) -> Result<()> {
    eventually_ok(&format!("reserved ports are {wanted:?}"), PATIENCE, || {
        let now = get(host, RESERVED)?;
        ensure!(now == wanted, "{now:?}");
        Ok(())
    })
}

/// These settings are per network namespace.
fn get(host: &Host, setting: &str) -> Result<String> {
    let read = host.net().enter(|| fs::read_to_string(setting))?;
    Ok(read.with_context(|| format!("read {setting}"))?.trim().to_owned())
}

fn set(host: &Host, setting: &str, value: &str) -> Result<()> {
    host.net().enter(|| fs::write(setting, value))?.with_context(|| format!("write {setting}"))
}

fn warnings(host: &Host) -> Result<String> {
    Ok(host.status()?["warnings"].to_string())
}
