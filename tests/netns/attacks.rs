//! An app attacks what belongs to another, and fails: addresses, ports of the host, and services.

mod ownership;

/// The agent's own requests.
mod agent_sockets;
/// Allow lists of networks.
mod allow;

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, Sim, SocketProgram, binary};
use serde_json::{Value, json};

use crate::fixtures::cluster::place;
use crate::fixtures::word_replicas::At;

/// The address of a server that is no task.
const SERVER: At = At::V4(2, 5432);
/// The place of the attacker's task.
const EVIL: At = At::V4(3, 6666);

/// Starts a program on the host of an address that answers there with a word.
fn answers(lab: &Lab, at: At, word: &str) -> Result<SocketProgram> {
    let (At::V4(host, _) | At::V6(host, _)) = at;
    let host = lab.host(host);
    let mut program = host.program_in(host.cgroup(), &binary("connect-variants")?, &[])?;
    ensure!(program.tell(&format!("serve {} {word}", at.address()))? == "ok", "the address is taken");
    Ok(program)
}

/// Deploys an app of the attacker, with one port that has these fields.
fn attack(sim: &Sim<'_>, id: &str, port: Value) -> Result<()> {
    let app = json!({ "id": id, "networks": [{ "mode": "host" }], "portDefinitions": [port] });
    sim.control("apps", &json!({ "app": app, "tasks": [place(EVIL.address())] })).map(drop)
}

/// Waits until `status` warns of an app of the attacker with these words. The warning stays for as long as the app exists.
fn warned(lab: &Lab, words: &str) -> Result<()> {
    eventually_ok(&format!("a warning: {words}"), PATIENCE, || {
        let status = lab.host(1).status()?;
        let warnings = status["warnings"].to_string();
        ensure!(warnings.contains("/evil") && warnings.contains(words), "{warnings}");
        Ok(())
    })
}

/// Asserts that every kind of socket reaches the server itself, from the host and from a container.
fn reaches_the_server(lab: &Lab) -> Result<()> {
    for host in [1, 4] {
        let mut client = lab.host(host).program_in(lab.host(1).cgroup(), &binary("connect-variants")?, &[])?;
        for way in ["tcp", "udp", "udp-unconnected"] {
            let said = client.tell(&format!("try {way} {}", SERVER.address()))?;
            ensure!(said.starts_with("server "), "{way} from {host}: {said}");
        }
    }
    Ok(())
}

/// An app names the address of another server: connections to that server would be its own on every host.
#[test]
fn address_of_a_server_is_not_taken_by_a_label() -> TestResult {
    for (networks, why) in [(None, "no network of --vip-networks"), (Some("10.0.0.0/8"), "the address of the host")] {
        let lab = Lab::start(4)?;
        let _server = answers(&lab, SERVER, "server")?;
        let _evil = answers(&lab, EVIL, "evil")?;
        let sim = lab.sim()?;
        let flags: Vec<_> = networks.iter().flat_map(|networks| ["--vip-networks", networks]).collect();
        let _agent = lab.agent(&flags)?;
        lab.host(1).agent_ready(PATIENCE)?;
        // A host is known by its tasks.
        let web = json!({ "id": "/web", "networks": [{ "mode": "host" }], "portDefinitions": [{ "port": 1234 }] });
        sim.control("apps", &json!({ "app": web, "tasks": [place(At::V4(2, 8001).address())] }))?;
        let labels = json!({ "VIP_0": SERVER.address().to_string() });
        attack(&sim, "/evil", json!({ "port": 10_000, "protocol": "udp,tcp", "labels": labels }))?;
        warned(&lab, why)?;
        reaches_the_server(&lab)?;
    }
    Ok(())
}

/// An app whose service port is the agent's own: health checks of the agent from a container would reach the app.
#[test]
fn port_of_the_status_endpoint_is_no_service_port() -> TestResult {
    let lab = Lab::start(4)?;
    let _evil = answers(&lab, EVIL, "evil")?;
    let sim = lab.sim()?;
    let _agent = lab.agent(&["--service-ports", "1024-65535"])?;
    lab.host(1).agent_ready(PATIENCE)?;
    attack(&sim, "/evil", json!({ "port": 9090, "protocol": "tcp" }))?;
    warned(&lab, "9090/tcp is not served: it is the port of the agent's --status-endpoint")?;
    attack(&sim, "/evil-too", json!({ "port": 22, "protocol": "tcp" }))?;
    warned(&lab, "22/tcp is not served: --service-ports does not permit it")?;
    let rows = lab.host(1).services()?;
    assert!(!rows.iter().any(|row| row.address.is_none() && [22, 9090].contains(&row.port)), "{rows:?}");
    Ok(())
}
