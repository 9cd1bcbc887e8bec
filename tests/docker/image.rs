//! The image: its content, and its work with the capabilities that docker-compose.yml and the documents list.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, SocketProgram};
use serde_json::{Value, json};

use super::daemon::{BRIDGE, Docker, said};
use super::files::capabilities;

const IMAGE: &str = "proxymatic";
/// The documented limit of its size.
const MOST_BYTES: u64 = 20_000_000;
/// Timeout until Docker has run the health check once.
const CHECKED: Duration = Duration::from_secs(120);

#[test]
fn image_is_small_and_holds_only_agent_licences_certificates() -> TestResult {
    let lab = Lab::start(1)?;
    let docker = Docker::start(&lab)?;
    docker.build(IMAGE, None)?;
    let bytes: u64 = docker.command(&["image", "inspect", "-f", "{{.Size}}", IMAGE])?.trim().parse()?;
    assert!(bytes < MOST_BYTES, "{bytes} bytes");
    println!("image: {bytes} bytes");

    docker.command(&["create", "--name", "looked-at", IMAGE])?;
    let export = lab.run_dir().join("image.tar").display().to_string();
    docker.command(&["export", "--output", &export, "looked-at"])?;
    let list = said(Command::new("tar").args(["--list", "--file", &export]))?;
    // Docker itself adds empty files for its mounts.
    let own = |path: &&str| !path.ends_with('/') && (path.starts_with("usr/") || path.starts_with("etc/ssl/"));
    let mut files: Vec<_> = list.lines().filter(own).collect();
    files.sort_unstable();
    let doc = |name: &str| format!("usr/share/doc/proxymatic/{name}");
    let expected = ["LICENSE-APACHE", "LICENSE-MIT", "THIRD-PARTY"].map(doc);
    assert_eq!(files[..2], ["etc/ssl/certs/ca-certificates.crt", "usr/bin/proxymatic"]);
    assert_eq!(files[2..], expected);

    let version = docker.command(&["run", "--rm", IMAGE, "--version"])?;
    assert!(version.starts_with("proxymatic "), "{version}");
    let alone = docker.command(&["run", "--rm", IMAGE, "healthcheck"]).unwrap_err().to_string();
    assert!(alone.contains("exit status: 1") && alone.contains("no agent answers"), "{alone}");
    Ok(())
}

#[test]
fn image_needs_exactly_the_documented_capabilities() -> TestResult {
    let lab = Lab::start(1)?;
    let docker = Docker::start(&lab)?;
    docker.build(IMAGE, None)?;
    let mut replica = docker.run("replica", &[])?;
    assert_eq!(replica.tell("serve 0.0.0.0:80 inside")?, "ok");
    let address = docker.command(&["inspect", "-f", "{{.NetworkSettings.IPAddress}}", "replica"])?;
    let service = |protocol| {
        json!({ "name": protocol, "port": 1234, "protocol": protocol,
            "backends": [{ "address": address.trim(), "port": 80 }] })
    };
    let folder = lab.run_dir().join("services");
    fs::create_dir(&folder)?;
    fs::write(folder.join("services.json"), json!({ "services": [service("tcp"), service("udp")] }).to_string())?;
    // An unrelated program, in a container of its own.
    let mut client = docker.run_program("tcp-client", "client", &["--user", "1000"])?;
    let all = capabilities()?;
    let ready = serves(&docker, &all, &mut client)?;
    println!("ready {} ms after docker run was begun", ready.as_millis());
    for without in &all {
        let fewer: Vec<_> = all.iter().filter(|it| it != &without).cloned().collect();
        lacks(&docker, without, &fewer, &mut client).with_context(|| format!("without {without}"))?;
    }
    Ok(())
}

/// Asserts that the agent attaches and is healthy, and that a client in another container is served and shown. Returns
/// the time until it was ready.
fn serves(docker: &Docker<'_>, capabilities: &[String], client: &mut SocketProgram) -> Result<Duration> {
    let begun = Instant::now();
    let agent = Agent::start(docker, capabilities)?;
    agent.serves_within(PATIENCE)?;
    let ready = begun.elapsed();
    ensure!(client.tell(&format!("connect held {BRIDGE}:1234"))? == "ok");
    let flow = agent.flow()?;
    ensure!(flow["command"] == "tcp-client" && flow["destination"] == format!("{BRIDGE}:1234"), "{flow}");
    let mut another = docker.run("another", &[])?;
    for way in ["tcp", "udp", "udp-unconnected"] {
        let answer = another.tell(&format!("try {way} {BRIDGE}:1234"))?;
        ensure!(answer.starts_with("inside "), "{way}: {answer}");
    }
    agent.healthy()?;
    let status: Value = serde_json::from_str(&agent.asked(&["-j", "status"])?)?;
    ensure!(status["problems"] == json!([]) && status["warnings"] == json!([]), "{status}");
    Ok(ready)
}

/// Asserts that an agent without one capability behaves as the documents describe.
fn lacks(docker: &Docker<'_>, without: &str, fewer: &[String], client: &mut SocketProgram) -> Result<()> {
    let agent = Agent::start(docker, fewer)?;
    let connect = |client: &mut SocketProgram| client.tell(&format!("connect {without} {BRIDGE}:1234"));
    match without {
        "SYS_ADMIN" | "NET_ADMIN" => {
            let code = docker.command(&["wait", "agent"])?;
            let (said, named) = (agent.log()?, if without == "SYS_ADMIN" { "CAP_BPF" } else { "CAP_NET_ADMIN" });
            ensure!(code == "2\n" && said.contains(&format!("this process lacks {named}")), "{code}{said}");
        }
        "SYS_PTRACE" => {
            agent.serves_within(PATIENCE)?;
            ensure!(connect(client)? == "ok");
            let flows = agent.asked(&["-j", "flow", "show"])?;
            ensure!(flows.trim() == "[]", "it has seen another namespace: {flows}");
            eventually_ok("the agent reports what it cannot see", 7 * PATIENCE, || {
                let said = agent.log()?;
                ensure!(said.contains("give the agent CAP_SYS_PTRACE"), "{said}");
                Ok(())
            })?;
        }
        "DAC_READ_SEARCH" => {
            agent.serves_within(PATIENCE)?;
            ensure!(connect(client)? == "ok");
            let flow = agent.flow()?;
            ensure!(flow["command"] == Value::Null, "it has seen whose socket that is: {flow}");
        }
        other => anyhow::bail!("nothing is known of {other}: it may not be needed"),
    }
    Ok(())
}

/// The agent in its container; dropping it removes the container and the pins.
struct Agent<'docker> {
    docker: &'docker Docker<'docker>,
}

impl<'docker> Agent<'docker> {
    fn start(docker: &'docker Docker<'_>, capabilities: &[String]) -> Result<Self> {
        let lab = docker.lab;
        let pins = format!("{}:/sys/fs/bpf", lab.bpffs().display());
        let services = format!("{}:/services:ro", lab.run_dir().join("services").display());
        let mounts = [&pins, &services, "/sys/fs/cgroup:/host/cgroup:ro"].map(|it| ["--volume", it]);
        let added = capabilities.iter().flat_map(|name| ["--cap-add", name]);
        let host = ["--network", "host", "--pid", "host", "--security-opt", "apparmor:unconfined", "--cap-drop", "ALL"];
        // A cgroup of the test; the default would be the machine's root.
        let about = ["--env", "CGROUP=/host/cgroup", "--env", "FILE=/services/services.json"];
        let begin = ["run", "--detach", "--name", "agent"].into_iter().chain(host).chain(about);
        let arguments: Vec<_> =
            begin.chain(mounts.as_flattened().iter().copied()).chain(added).chain([IMAGE]).collect();
        docker.command(&arguments)?;
        Ok(Self { docker })
    }

    fn serves_within(&self, timeout: Duration) -> Result<()> {
        eventually_ok("the agent is ready", timeout, || {
            let said = self.asked(&["healthcheck"])?;
            ensure!(said == "OK\n", "{said}");
            Ok(())
        })
    }

    /// The health as Docker reports it.
    fn healthy(&self) -> Result<()> {
        eventually_ok("the container is healthy", CHECKED, || {
            let said = self.docker.command(&["inspect", "-f", "{{json .State.Health}}", "agent"])?;
            ensure!(said.starts_with(r#"{"Status":"healthy""#), "{said}");
            Ok(())
        })
    }

    fn asked(&self, arguments: &[&str]) -> Result<String> {
        self.docker.command(&[&["exec", "agent", "proxymatic"], arguments].concat())
    }

    /// Returns the only connection.
    fn flow(&self) -> Result<Value> {
        let mut flows: Vec<Value> = serde_json::from_str(&self.asked(&["-j", "flow", "show"])?)?;
        ensure!(flows.len() == 1, "{flows:?}");
        Ok(flows.remove(0))
    }

    fn log(&self) -> Result<String> {
        self.docker.log("agent")
    }
}

impl Drop for Agent<'_> {
    #[expect(clippy::print_stderr, reason = "a drop has no caller to return an error to")]
    fn drop(&mut self) {
        let undone = || {
            self.docker.command(&["rm", "--force", "agent"])?;
            let pins = self.docker.lab.bpffs().join("proxymatic");
            if pins.exists() {
                fs::remove_dir_all(&pins).context("remove the pins")?;
            }
            anyhow::Ok(())
        };
        if let Err(error) = undone() {
            eprintln!("{error:#}");
        }
    }
}
