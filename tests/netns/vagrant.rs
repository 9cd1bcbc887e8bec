//! The smoke script for a cluster of virtual machines, run on hosts of the lab: it succeeds, fails, and detects when it
//! cannot tell.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;
use proxymatic_tests::process::Finished;

const APP: &str = "/demo/web";
/// The script starts over a hundred programs.
const RUN: Duration = Duration::from_secs(180);

#[test]
fn smoke_script_finds_tasks_on_other_machines() -> TestResult {
    let lab = Lab::start(3)?;
    let sim = lab.sim()?;
    sim.app(APP, 1234, &[(2, 8001), (3, 8002)])?;
    let _replicas = (lab.replica(2, 8001, "a")?, lab.replica(3, 8002, "b")?);
    let _agent = lab.agent_on(2, &[])?;
    let said = smoke(&lab, "120")?.well()?.stdout;
    for words in ["10.77.0.3:8002", "answered by:\n   a\n   b\n", "reach tasks on 2 machines"] {
        assert!(said.contains(words), "{words:?} in {said}");
    }
    Ok(())
}

#[test]
fn smoke_script_fails_without_forwarding_or_remote_tasks() -> TestResult {
    let lab = Lab::start(3)?;
    let sim = lab.sim()?;
    sim.app(APP, 1234, &[(2, 8001)])?;
    let _replicas = (lab.replica(2, 8001, "a")?, lab.replica(3, 8002, "b")?);
    let one = smoke(&lab, "2")?;
    assert!(one.status.code() == Some(2) && one.stderr.contains("no tasks of /demo/web on two machines"), "{one:?}");
    sim.task(APP, 3, 8002)?;
    let none = smoke(&lab, "2")?;
    assert!(none.status.code() == Some(1) && none.stderr.contains("was answered by ''"), "{none:?}");
    Ok(())
}

/// Runs the script on host 2, for at most this many seconds.
fn smoke(lab: &Lab, patience: &str) -> Result<Finished> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vagrant/smoke.sh");
    let arguments = [script.to_str().context("a path that is not UTF-8")?, &lab.marathon_url()];
    let patience = format!("PATIENCE={patience}");
    lab.host(2).run(Path::new("env"), &[&[patience.as_str()][..], &arguments].concat(), RUN)
}
