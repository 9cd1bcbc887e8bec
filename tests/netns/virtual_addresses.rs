//! Virtual addresses: no interface has them and no route exists, yet programs connect to them.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, SocketProgram, binary};
use serde_json::json;

use crate::fixtures::cluster::place;
use crate::fixtures::file_source::{FileSource, backend};
use crate::fixtures::word_replicas::At;

/// A virtual address of each family.
const VIRTUAL: [&str; 2] = ["198.51.100.1:5000", "[fd99::1]:5000"];
/// The addresses of the replicas, one of each family.
const REPLICAS: [At; 2] = [At::V4(2, 8001), At::V6(2, 8001)];
const WORD: &str = "reached";
/// The kinds of socket, and the peer and senders that a program sees.
const WAYS: [&str; 3] = ["tcp", "udp", "udp-unconnected"];

/// Starts the replicas.
fn servers(lab: &Lab) -> Result<SocketProgram> {
    let mut server = lab.host(2).program_in(lab.host(2).cgroup(), &binary("connect-variants")?, &[])?;
    for at in REPLICAS.map(At::address) {
        ensure!(server.tell(&format!("serve {at} {WORD}"))? == "ok", "{at} is taken");
    }
    Ok(server)
}

/// Starts clients on host 1, and in a namespace of their own as a container has.
fn clients(lab: &Lab) -> Result<[SocketProgram; 2]> {
    let (cgroup, program) = (lab.host(1).cgroup(), binary("connect-variants")?);
    Ok([lab.host(1).program_in(cgroup, &program, &[])?, lab.host(3).program_in(cgroup, &program, &[])?])
}

/// Asserts that every kind of socket of each client reaches a replica, and sees the virtual address as its peer.
fn assert_reached(clients: &mut [SocketProgram]) -> Result<()> {
    for client in clients {
        for to in VIRTUAL {
            for way in WAYS {
                let said = client.tell(&format!("try {way} {to}"))?;
                let seen = match way {
                    "tcp" => format!("{to} - -"),
                    "udp" => format!("{to} {to} {to}"),
                    _ => format!("- {to} {to}"),
                };
                ensure!(said == format!("{WORD} {seen}"), "{way} to {to}: {said}");
            }
        }
    }
    Ok(())
}

/// Waits until no virtual address is served: the host has no route to it.
fn unreachable(clients: &mut [SocketProgram]) -> Result<()> {
    for client in clients {
        for (to, way) in VIRTUAL.iter().flat_map(|to| WAYS.map(|way| (to, way))) {
            eventually_ok(&format!("{to} is unreachable"), PATIENCE, || {
                let said = client.tell(&format!("try {way} {to}"))?;
                ensure!(said.ends_with(" ENETUNREACH"), "{way} to {to}: {said}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

/// Waits until each service has both replicas.
fn served(lab: &Lab) -> Result<()> {
    eventually_ok("the virtual addresses have their replicas", PATIENCE, || {
        let rows = lab.host(1).services()?;
        let of: Vec<_> = rows.iter().filter(|row| row.active().count() == REPLICAS.len()).collect();
        let is_served = |to: &str, protocol: &str| {
            let to: SocketAddr = to.parse()?;
            ensure!(
                of.iter().any(|row| row.address == Some(to.ip()) && row.port == to.port() && row.protocol == protocol),
                "{to}/{protocol} in {rows:?}"
            );
            Ok(())
        };
        VIRTUAL.iter().try_for_each(|to| is_served(to, "tcp").and_then(|()| is_served(to, "udp")))
    })
}

#[test]
fn virtual_address_by_label_is_reached_by_every_socket() -> TestResult {
    let lab = Lab::start(3)?;
    let _server = servers(&lab)?;
    let sim = lab.sim()?;
    let port = json!({
        "port": 0, "protocol": "udp,tcp", "labels": { "VIP_0": VIRTUAL[0], "VIP_1": VIRTUAL[1] },
    });
    let app = json!({ "id": "/virtual", "networks": [{ "mode": "host" }], "portDefinitions": [port] });
    let places = REPLICAS.map(|at| place(at.address()));
    let mut clients = clients(&lab)?;
    let _agent = lab.agent(&["--vip-networks", "198.51.100.0/24,fd99::/64"])?;
    lab.host(1).agent_ready(PATIENCE)?;
    unreachable(&mut clients)?;
    sim.control("apps", &json!({ "app": app, "tasks": places }))?;
    served(&lab)?;
    assert_reached(&mut clients)?;
    sim.control("app/delete", &json!({ "id": "/virtual" }))?;
    unreachable(&mut clients)?;
    Ok(())
}

#[test]
fn virtual_address_in_a_file_is_reached_by_every_socket() -> TestResult {
    let lab = Lab::start(3)?;
    let _server = servers(&lab)?;
    let backends = REPLICAS.map(|at| backend(at.address()));
    let services: Vec<_> = VIRTUAL
        .iter()
        .flat_map(|to| ["tcp", "udp"].map(|protocol| (to, protocol)))
        .map(|(to, protocol)| {
            let name = format!("{to}/{protocol}");
            json!({ "name": name, "address": to, "protocol": protocol, "backends": backends })
        })
        .collect();
    let mut clients = clients(&lab)?;
    let written = FileSource::start(&lab, &services, &[])?;
    served(&lab)?;
    assert_reached(&mut clients)?;
    written.rewrite(&[])?;
    unreachable(&mut clients)?;
    Ok(())
}
