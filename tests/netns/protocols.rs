//! TCP and UDP on one port number: two services, and sockets of each protocol reach only that protocol's replicas.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, Sim, SocketProgram, binary};
use proxymatic_tests::net::{host_address, host_address6};
use proxymatic_tests::process::Process;
use serde_json::{Value, json};

use crate::fixtures::cluster::{PORT, SERVICE};

/// The TCP replicas on host 2, and their word over either protocol: a socket that reaches the wrong replicas gets the
/// wrong word.
const STREAMS: (u16, &str) = (8001, "stream");
/// The UDP replicas on host 2, and their word over either protocol.
const DATAGRAMS: (u16, &str) = (8002, "datagram");
/// How often each kind of socket is opened: if one service had both kinds of replica, the socket would reach both.
const TIMES: usize = 20;

/// Marathon, the agent and the replicas.
struct Protocols<'lab> {
    lab: &'lab Lab,
    sim: Sim<'lab>,
    _agent: Process,
    _server: SocketProgram,
}

impl<'lab> Protocols<'lab> {
    /// Starts the cluster with these apps, and returns when both services have their replicas.
    fn start(lab: &'lab Lab, apps: &[Value]) -> Result<Self> {
        let mut server = lab.host(2).program_in(lab.host(2).cgroup(), &binary("connect-variants")?, &[])?;
        for (port, word) in [STREAMS, DATAGRAMS] {
            for address in replicas() {
                let at = SocketAddr::new(address, port);
                ensure!(server.tell(&format!("serve {at} {word}"))? == "ok", "{at} is taken");
            }
        }
        let sim = lab.sim()?;
        apps.iter().try_for_each(|app| sim.control("apps", app).map(drop))?;
        let agent = lab.agent(&[])?;
        lab.host(1).agent_ready(PATIENCE)?;
        let protocols = Self { lab, sim, _agent: agent, _server: server };
        protocols.serves(&[("tcp", STREAMS.0), ("udp", DATAGRAMS.0)])?;
        Ok(protocols)
    }

    /// Waits until exactly the services of these protocols exist, each with its replicas on this port.
    fn serves(&self, wanted: &[(&str, u16)]) -> Result<()> {
        eventually_ok("the services have their replicas", PATIENCE, || {
            let rows = self.lab.host(1).services()?;
            ensure!(rows.len() == wanted.len(), "{rows:?}");
            for (protocol, port) in wanted {
                let row = rows.iter().find(|row| row.protocol == *protocol && row.port == PORT);
                let ports = row.into_iter().flat_map(|row| row.active()).map(|backend| backend.port);
                ensure!(ports.eq(replicas().map(|_| *port)), "{rows:?}");
            }
            Ok(())
        })
    }

    /// Connects sockets of the host and of a container to every address of the service.
    fn each_socket_reaches_its_own(&self) -> Result<()> {
        let (cgroup, program) = (self.lab.host(1).cgroup(), binary("connect-variants")?);
        let own = [IpAddr::from(host_address(1)), host_address6(1).into()];
        let loopback = [SERVICE.ip(), Ipv6Addr::LOCALHOST.into()];
        for (host, addresses) in [(1, &[own, loopback].concat()), (2, &own.to_vec())] {
            let mut client = self.lab.host(host).program_in(cgroup, &program, &[])?;
            for to in addresses.iter().map(|address| SocketAddr::new(*address, PORT)) {
                for (way, (_, word)) in [("tcp", STREAMS), ("udp", DATAGRAMS), ("udp-unconnected", DATAGRAMS)] {
                    for _ in 0..TIMES {
                        let said = client.tell(&format!("try {way} {to}"))?;
                        let heard = said.split(' ').next();
                        ensure!(heard == Some(word), "{way} to {to} on host {host}: {said}, not {word}");
                    }
                }
            }
        }
        Ok(())
    }
}

/// One address of each family, so that a socket of any family reaches a replica.
fn replicas() -> [IpAddr; 2] {
    [host_address(2).into(), host_address6(2).into()]
}

/// An app with a service of one protocol.
fn app(id: &str, protocol: &str, port: u16) -> Value {
    let tasks = replicas().map(|address| json!({ "host": address, "port": port }));
    json!({ "id": id, "servicePort": PORT, "protocol": protocol, "tasks": tasks })
}

#[test]
fn apps_of_two_protocols_share_a_port_and_no_replica() -> TestResult {
    let lab = Lab::start(2)?;
    let apps = [app("/streams", "tcp", STREAMS.0), app("/datagrams", "udp", DATAGRAMS.0)];
    Protocols::start(&lab, &apps)?.each_socket_reaches_its_own()?;
    Ok(())
}

#[test]
fn app_with_a_port_for_each_protocol_has_two_services() -> TestResult {
    let lab = Lab::start(2)?;
    let label = |index: usize| format!("com.meltwater.proxymatic.port.{index}.servicePort");
    let app = json!({
        "id": "/both",
        "networks": [{ "mode": "host" }],
        "portDefinitions": [{ "port": 0, "protocol": "tcp" }, { "port": 0, "protocol": "udp" }],
        "labels": { label(0): PORT.to_string(), label(1): PORT.to_string() },
    });
    let tasks = replicas().map(|address| json!({ "host": address, "ports": [STREAMS.0, DATAGRAMS.0] }));
    Protocols::start(&lab, &[json!({ "app": app, "tasks": tasks })])?.each_socket_reaches_its_own()?;
    Ok(())
}

#[test]
fn removal_of_one_protocol_keeps_the_other() -> TestResult {
    let lab = Lab::start(2)?;
    let apps = [app("/streams", "tcp", STREAMS.0), app("/datagrams", "udp", DATAGRAMS.0)];
    let protocols = Protocols::start(&lab, &apps)?;
    protocols.sim.control("app/delete", &json!({ "id": "/streams" }))?;
    protocols.serves(&[("udp", DATAGRAMS.0)])?;
    let mut client = lab.host(1).program_in(lab.host(1).cgroup(), &binary("connect-variants")?, &[])?;
    for _ in 0..TIMES {
        assert_eq!(client.tell(&format!("try tcp {SERVICE}"))?, "connect ECONNREFUSED");
        assert_eq!(client.tell(&format!("try udp {SERVICE}"))?, format!("datagram {SERVICE} {SERVICE} {SERVICE}"));
    }
    Ok(())
}
