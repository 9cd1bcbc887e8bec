//! A program in a container passes the allow list of a service by the address that it connects to, or by an address that
//! it gives itself, and fails.

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, Sim, SocketProgram, binary};
use proxymatic_tests::process::Process;
use proxymatic_user::dataplane::kernel::netns_cookie;
use serde_json::json;

use super::answers;
use crate::fixtures::cluster::place;
use crate::fixtures::word_replicas::At;

/// The replica of the protected service.
const DB: At = At::V4(2, 6001);
/// Addresses of the service: two of the host, one virtual.
const SERVED: [&str; 3] = ["10.77.0.1:5432", "192.0.2.1:5432", "11.1.2.3:5432"];
/// The number of the host whose namespace is that of a container on the list.
const PERMITTED: u8 = 3;
/// The number of the host whose namespace is that of any other container.
const STRANGER: u8 = 4;
/// Programs on the host, and one container.
const LIST: &str = "127.0.0.1, 10.77.0.1, 10.77.0.3";
const WAYS: [&str; 3] = ["tcp", "udp", "udp-unconnected"];

/// A service with an allow list of networks, on host 1, whose cgroup has the containers too.
struct Protected<'lab> {
    lab: &'lab Lab,
    _db: SocketProgram,
    _sim: Sim<'lab>,
    _agent: Process,
}

impl<'lab> Protected<'lab> {
    fn start(lab: &'lab Lab, list: &str) -> Result<Self> {
        lab.host(1).net().ip(&["address", "add", "192.0.2.1/32", "dev", "lab0"])?;
        let db = answers(lab, DB, "db")?;
        let sim = lab.sim()?;
        let labels = json!({ "VIP_0": "11.1.2.3:5432", "com.meltwater.proxymatic.allow": list });
        let port = json!({ "port": 5432, "protocol": "udp,tcp", "labels": labels });
        let app = json!({ "id": "/db", "networks": [{ "mode": "host" }], "portDefinitions": [port] });
        sim.control("apps", &json!({ "app": app, "tasks": [place(DB.address())] }))?;
        let agent = lab.agent(&["--vip-networks", "11.0.0.0/8"])?;
        lab.host(1).agent_ready(PATIENCE)?;
        eventually_ok("both addresses of both protocols are served", PATIENCE, || {
            let rows = lab.host(1).services()?;
            ensure!(rows.iter().flat_map(|row| row.active()).count() == 4, "{rows:?}");
            Ok(())
        })?;
        Ok(Self { lab, _db: db, _sim: sim, _agent: agent })
    }

    /// Starts a program in the namespace of a host.
    fn program(&self, host: u8) -> Result<SocketProgram> {
        self.lab.host(host).program_in(self.lab.host(1).cgroup(), &binary("connect-variants")?, &[])
    }
}

/// Asserts that no kind of socket reaches the service at any of its addresses.
fn assert_refused(program: &mut SocketProgram) -> Result<()> {
    for to in SERVED.iter().chain(&["[fd77::1]:5432"]) {
        for way in WAYS {
            let said = program.tell(&format!("try {way} {to}"))?;
            ensure!(said.ends_with(" EACCES"), "{way} to {to}: {said}");
        }
    }
    Ok(())
}

/// Asserts that every kind of socket reaches the service at these addresses.
fn assert_served(program: &mut SocketProgram, more: &[&str]) -> Result<()> {
    for to in SERVED.iter().chain(more) {
        for way in WAYS {
            let said = program.tell(&format!("try {way} {to}"))?;
            ensure!(said.starts_with("db "), "{way} to {to}: {said}");
        }
    }
    Ok(())
}

#[test]
fn allow_list_tells_containers_from_the_host() -> TestResult {
    let lab = Lab::start(4)?;
    let it = Protected::start(&lab, LIST)?;
    let mut stranger = it.program(STRANGER)?;
    assert_refused(&mut stranger)?;
    assert_served(&mut it.program(1)?, &["127.0.0.1:5432"])?;
    let mut permitted = it.program(PERMITTED)?;
    // The agent learns of a namespace by its first connection at the latest.
    eventually_ok("the address of the namespace is known", PATIENCE, || {
        let said = permitted.tell(&format!("try tcp {}", SERVED[0]))?;
        ensure!(said.starts_with("db "), "{said}");
        Ok(())
    })?;
    assert_served(&mut permitted, &[])?;
    assert_refused(&mut stranger)?;
    Ok(())
}

/// A container that may configure its network makes the host's address its own.
#[test]
fn address_of_the_host_in_a_container_passes_no_list() -> TestResult {
    let lab = Lab::start(4)?;
    let it = Protected::start(&lab, "10.77.0.1, 192.0.2.1")?;
    assert_served(&mut it.program(1)?, &["127.0.0.1:5432"])?;
    let net = lab.host(STRANGER).net();
    net.ip(&["address", "add", "192.0.2.1/32", "dev", "lab0"])?;
    net.ip(&["route", "add", "default", "dev", "lab0", "src", "192.0.2.1"])?;
    let mut stranger = it.program(STRANGER)?;
    let refused = || lab.host(1).verdict("unknown_netns");
    assert_refused(&mut stranger)?;
    // By now the agent has read the namespace: its list of IPv6 addresses has none of the host.
    eventually_ok("the namespace is known", PATIENCE, || {
        let before = refused()?;
        let said = stranger.tell(&format!("try tcp {}", SERVED[0]))?;
        ensure!(said.ends_with(" EACCES"), "{said}");
        ensure!(refused()? == before, "still unknown");
        Ok(())
    })?;
    assert_refused(&mut stranger)?;
    Ok(())
}

/// A container whose interface has just appeared on the host is known before its first connection.
#[test]
fn container_on_the_list_is_known_without_a_connection() -> TestResult {
    let lab = Lab::start(4)?;
    let it = Protected::start(&lab, LIST)?;
    let mut permitted = it.program(PERMITTED)?;
    let cookie = lab.host(PERMITTED).net().enter(netns_cookie)??.to_string();
    lab.host(1).net().ip(&["link", "add", "veth0", "type", "veth", "peer", "name", "veth1"])?;
    eventually_ok("its address is published", PATIENCE, || {
        let said = lab.proxymatic(&["map", "dump", "NETNS_ADDRESSES"])?.well()?.stdout;
        // Labs of other tests have the same addresses.
        ensure!(said.lines().any(|line| line.split_whitespace().eq([&*cookie, "10.77.0.3", "fd77::3"])), "{said}");
        Ok(())
    })?;
    assert_served(&mut permitted, &[])?;
    assert_eq!(lab.host(1).verdict("unknown_netns")?, 0);
    Ok(())
}
