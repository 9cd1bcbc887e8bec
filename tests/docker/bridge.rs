//! Containers on a real Docker bridge, with the agent on the host that dockerd runs on.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, SocketProgram, binary};
use serde_json::json;

use super::daemon::{BRIDGE, Docker};

const WAYS: [&str; 3] = ["tcp", "udp", "udp-unconnected"];

#[test]
fn containers_reach_services_at_bridge_host_and_own_localhost() -> TestResult {
    let lab = Lab::start(2)?;
    let docker = Docker::start(&lab)?;
    // One replica on another host, one in a container.
    let mut far = lab.host(2).program_in(lab.host(2).cgroup(), &binary("connect-variants")?, &[])?;
    assert_eq!(far.tell("serve 10.77.0.2:8001 far")?, "ok");
    let mut inside = docker.run("replica", &[])?;
    assert_eq!(inside.tell("serve 0.0.0.0:80 inside")?, "ok");
    let address = docker.command(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "replica"])?;
    docker.is_below_the_hosts_cgroup("replica")?;

    let backends = json!([{ "address": "10.77.0.2", "port": 8001 }, { "address": address.trim(), "port": 80 }]);
    let service = |protocol| json!({ "name": protocol, "port": 1234, "protocol": protocol, "policy": "roundrobin", "backends": backends });
    let file = lab.run_dir().join("services.json");
    fs::write(&file, json!({ "services": [service("tcp"), service("udp")] }).to_string())?;
    let file = file.to_str().context("a path that is not UTF-8")?;

    let mut client = docker.run("client", &[])?;
    let mut on_host = docker.run("on-host", &["--network", "host"])?;
    for (loopback, own) in [("host", false), ("all", true)] {
        let _agent = lab.host(1).agent_of(lab.host(1).cgroup(), &["--file", file, "--loopback", loopback])?;
        lab.host(1).agent_ready(PATIENCE)?;
        for to in [BRIDGE, "10.77.0.1"] {
            is_served(&mut client, to)?;
            is_served(&mut on_host, to)?;
        }
        is_served(&mut on_host, "127.0.0.1")?;
        if own {
            is_served(&mut client, "127.0.0.1")?;
        } else {
            assert_eq!(client.tell("try tcp 127.0.0.1:1234")?, "connect ECONNREFUSED");
        }
        // The hooks do not look for the container's own listener on the host's addresses.
        assert_eq!(lab.host(1).verdict("local_listener")?, 0);
    }
    Ok(())
}

#[test]
fn remote_client_reaches_container_by_port_and_address() -> TestResult {
    let lab = Lab::start(2)?;
    let docker = Docker::start(&lab)?;
    let published = ["--publish", "8001:80/tcp", "--publish", "8001:80/udp"];
    let mut inside = docker.run("replica", &published)?;
    assert_eq!(inside.tell("serve 0.0.0.0:80 inside")?, "ok");
    let address = docker.command(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "replica"])?;
    let service = |port: u16, protocol, address: &str, at: u16| {
        let backends = json!([{ "address": address, "port": at }]);
        let name = format!("{protocol}{port}");
        json!({ "name": name, "port": port, "protocol": protocol, "expose": true, "backends": backends })
    };
    let both = |port, address: &str, at| ["tcp", "udp"].map(|protocol| service(port, protocol, address, at));
    let services = [both(1234, "10.77.0.1", 8001), both(1235, address.trim(), 80)].concat();
    let file = lab.run_dir().join("services.json");
    fs::write(&file, json!({ "services": services }).to_string())?;
    let arguments = ["--file", file.to_str().context("a path that is not UTF-8")?, "--interface", "lab0"];
    let _agent = lab.host(1).agent_of(lab.host(1).cgroup(), &arguments)?;
    lab.host(1).agent_ready(PATIENCE)?;
    let mut client = lab.host(2).program_in(lab.host(2).cgroup(), &binary("connect-variants")?, &[])?;
    for port in [1234, 1235] {
        eventually_ok("a container answers", PATIENCE, || {
            let said = client.tell(&format!("try tcp 10.77.0.1:{port}"))?;
            ensure!(said.starts_with("inside "), "{said}");
            Ok(())
        })?;
        for way in WAYS {
            let said = client.tell(&format!("try {way} 10.77.0.1:{port}"))?;
            let seen = said.split(' ').skip(1).all(|seen| seen == "-" || seen == format!("10.77.0.1:{port}"));
            assert!(said.starts_with("inside ") && seen, "{way} {port}: {said}");
        }
    }
    assert!(lab.host(1).verdict("forwarded_local")? >= 6);
    Ok(())
}

/// Asserts that both replicas answer in each way, and that replies come from the destination.
fn is_served(client: &mut SocketProgram, to: &str) -> Result<()> {
    for way in WAYS {
        let order = format!("try {way} {to}:1234");
        let said = (0..4).map(|_| client.tell(&order)).collect::<Result<Vec<_>>>()?;
        for word in ["far", "inside"] {
            ensure!(said.iter().any(|it| it.starts_with(&format!("{word} "))), "{order}: {said:?}");
        }
        let seen = |said: &String| said.split(' ').skip(1).all(|seen| seen == "-" || seen == format!("{to}:1234"));
        ensure!(said.iter().all(seen), "{order}: {said:?}");
    }
    Ok(())
}
