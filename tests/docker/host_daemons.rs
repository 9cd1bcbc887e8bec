//! Daemons of the host that containers use: a service of the same port takes no connection from them.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, binary};
use proxymatic_tests::process::Process;
use serde_json::json;

use super::daemon::{BRIDGE, Docker};

/// The timeout of one run of a client.
const LONGEST: Duration = Duration::from_secs(30);

#[test]
fn container_reaches_ssh_and_docker_daemons_of_its_host() -> TestResult {
    let lab = Lab::start(2)?;
    let docker = Docker::start_with(&lab, &["--host", "tcp://0.0.0.0:2375", "--tls=false"])?;
    let _ssh = ssh_daemon(&lab)?;
    let mut far = lab.host(2).program_in(lab.host(2).cgroup(), &binary("connect-variants")?, &[])?;
    assert_eq!(far.tell("serve 10.77.0.2:8001 far")?, "ok");
    let backends = json!([{ "address": "10.77.0.2", "port": 8001 }]);
    let service = |port| json!({ "name": format!("tcp-{port}"), "port": port, "backends": backends });
    let file = lab.run_dir().join("services.json");
    fs::write(&file, json!({ "services": [service(22), service(2375), service(1234)] }).to_string())?;
    let file = file.to_str().context("a path that is not UTF-8")?;
    let mut client = docker.run("client", &[])?;
    let _agent = lab.host(1).agent_of(lab.host(1).cgroup(), &["--file", file])?;
    lab.host(1).agent_ready(PATIENCE)?;
    let inside = docker.command(&["inspect", "-f", "{{.State.Pid}}", "client"])?;
    for to in [BRIDGE, "10.77.0.1"] {
        // Services are served at both addresses.
        let said = client.tell(&format!("try tcp {to}:1234"))?;
        assert!(said.starts_with("far "), "{to}: {said}");
        let banner = format!("exec 3<>/dev/tcp/{to}/22 && head --lines 1 <&3");
        let said = in_container(&lab, &inside, &["bash", "-c", &banner])?;
        assert!(said.starts_with("SSH-2.0-dropbear"), "{to}: {said}");
        let version = format!("http://{to}:2375/version");
        let curl = ["curl", "--silent", "--show-error", "--max-time", "10", &version];
        let said = in_container(&lab, &inside, &curl)?;
        assert!(said.contains("ApiVersion"), "{to}: {said}");
    }
    Ok(())
}

/// Runs a command of the host in the network namespace of a container, and returns its output.
fn in_container(lab: &Lab, pid: &str, command: &[&str]) -> Result<String> {
    let arguments = [&["--target", pid.trim(), "--net"], command].concat();
    Ok(lab.host(1).run(Path::new("nsenter"), &arguments, LONGEST)?.well()?.stdout)
}

/// Starts dropbear on port 22 of host 1.
fn ssh_daemon(lab: &Lab) -> Result<Process> {
    let host = lab.host(1);
    let key = lab.run_dir().join("ssh-host-key");
    let key = key.to_str().context("a path that is not UTF-8")?;
    host.run(Path::new("dropbearkey"), &["-t", "ed25519", "-f", key], LONGEST)?.well()?;
    let daemon = host.spawn(Path::new("dropbear"), &["-F", "-E", "-p", "22", "-r", key])?;
    let mut client = host.program_in(host.cgroup(), &binary("connect-variants")?, &[])?;
    eventually_ok("the SSH daemon answers", PATIENCE, || {
        let said = client.tell("try tcp 127.0.0.1:22")?;
        ensure!(said.starts_with("SSH-2.0-dropbear"), "{said}");
        Ok(())
    })?;
    Ok(daemon)
}
