//! An app takes the port that Marathon has on this host, so that the agent's own requests reach the app, and fails.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, binary};
use proxymatic_tests::process::Process;
use serde_json::json;

use super::{EVIL, answers, attack};

/// Starts the agent in a pid namespace of its own, as a container without `--pid=host` has.
fn agent(lab: &Lab) -> Result<Process> {
    let (host, program, marathon) = (lab.host(1), binary("proxymatic")?, lab.marathon_url());
    let paths =
        [&program, host.cgroup().path(), &host.pins(), &host.socket()].map(|path| path.to_str().map(String::from));
    let [Some(program), Some(cgroup), Some(pins), Some(socket)] = paths else { bail!("a path that is not UTF-8") };
    let namespace = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    let run = [&program, "run", "--cgroup", &cgroup, "--bpffs", &pins, "--socket", &socket, "--marathon", &marathon];
    // Only the bypass keeps the port: neither Marathon's listener nor an unknown namespace does.
    let wins = ["--local-listener", "service-wins", "--loopback", "all"];
    host.spawn(Path::new("unshare"), &[&namespace[..], &run, &wins].concat())
}

/// Kills the agent in the namespace, and waits for its end.
fn end(mut unshare: Process) -> Result<()> {
    let pid = unshare.pid()?;
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    kill(Pid::from_raw(children.trim().parse()?), Signal::SIGKILL)?;
    unshare.wait(PATIENCE).map(drop)
}

#[test]
fn agent_in_own_pidns_reaches_marathon_and_no_app() -> TestResult {
    let lab = Lab::start(3)?;
    let _evil = answers(&lab, EVIL, "evil")?;
    let sim = lab.sim()?;
    let first = agent(&lab)?;
    lab.host(1).agent_ready(PATIENCE)?;
    attack(&sim, "/evil", json!({ "port": 8080, "protocol": "tcp" }))?;
    lab.service_when("Marathon's port is a service", "/evil", |evil| evil.active().count() == 1)?;
    end(first)?;
    // The next agent makes its first request while the hooks serve the port.
    let next = agent(&lab)?;
    lab.host(1).agent_ready(PATIENCE).with_context(|| next.log())?;
    attack(&sim, "/later", json!({ "port": 10_001, "protocol": "tcp" }))?;
    eventually_ok("the next agent reads Marathon", PATIENCE, || {
        let rows = lab.host(1).services()?;
        ensure!(rows.iter().any(|row| row.name == "/later"), "{rows:?}");
        Ok(())
    })?;
    let evil = lab.host(1).service("/evil")?;
    assert!(evil.backends.iter().all(|backend| backend.total == 0), "{evil:?}");
    assert!(lab.host(1).verdict("bypassed")? > 0);
    end(next)?;
    Ok(())
}
