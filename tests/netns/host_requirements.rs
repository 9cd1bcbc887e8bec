//! A host that lacks a requirement: the agent prints one sentence with the remedy, exits with 2, and pins and attaches
//! nothing.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, binary};
use proxymatic_tests::process::Finished;
use serde_json::Value;

use crate::bpftool;

/// The command that drops every capability, for root too.
const POWERLESS: [&str; 3] = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];

#[test]
fn pin_path_outside_bpffs_is_refused_with_the_remedy() -> TestResult {
    let lab = Lab::start(1)?;
    let folder = lab.run_dir().join("not-bpf/pins");
    let said = refusal(&lab, &[], &["--bpffs", text(&folder)?])?;
    assert!(said.contains("not on a BPF file system; mount one (mount -t bpf"), "{said}");
    assert!(said.contains(text(&folder)?), "{said}");
    assert!(!lab.run_dir().join("not-bpf").exists());
    Ok(())
}

#[test]
fn path_that_is_no_cgroup_is_refused_with_the_remedy() -> TestResult {
    let lab = Lab::start(1)?;
    for folder in [lab.run_dir(), Path::new("/proc/self/nothing")] {
        let said = refusal(&lab, &[], &["--cgroup", text(folder)?])?;
        assert!(said.contains(text(folder)?) && said.contains("; choose a folder of a cgroup2 file system"), "{said}");
    }
    Ok(())
}

#[test]
fn process_without_capabilities_is_refused_with_the_remedy() -> TestResult {
    let lab = Lab::start(1)?;
    let said = refusal(&lab, &POWERLESS, &[])?;
    assert!(said.contains("lacks CAP_NET_ADMIN and CAP_BPF and CAP_PERFMON; run it as root"), "{said}");
    Ok(())
}

#[test]
fn wrong_arguments_are_all_reported_at_once() -> TestResult {
    let lab = Lab::start(1)?;
    let wrong = ["--marathon", "ftp://example.org", "--group-size", "0", "--refresh-interval", "0"];
    let left = run(&lab, &[], &[], &wrong)?;
    assert_eq!(left.status.code(), Some(2), "{left:?}");
    for named in ["ftp://example.org", "--group-size 0", "--refresh-interval 0"] {
        assert!(left.stderr.contains(named), "{named}: {left:?}");
    }
    assert_nothing_made(&lab)?;
    Ok(())
}

/// Runs `run` with these arguments in place of valid ones, and returns its error as text and as JSON. Asserts that it
/// is one sentence each time and that nothing is left.
fn refusal(lab: &Lab, before: &[&str], wrong: &[&str]) -> Result<String> {
    let marathon = lab.marathon_url();
    let given = [wrong, &["--marathon", &marathon]].concat();
    let plain = run(lab, before, &[], &given)?;
    ensure!(plain.status.code() == Some(2), "{plain:?}");
    ensure!(plain.stdout.is_empty() && plain.stderr.lines().count() == 1, "{plain:?}");
    assert_nothing_made(lab)?;

    let json = run(lab, before, &["-j"], &given)?;
    ensure!(json.status.code() == Some(2) && json.stderr.is_empty(), "{json:?}");
    let said: Value = serde_json::from_str(&json.stdout).with_context(|| format!("{json:?}"))?;
    let sentence = said["error"].as_str().with_context(|| format!("{json:?}"))?;
    ensure!(plain.stderr.contains(sentence), "{plain:?} {json:?}");
    assert_nothing_made(lab)?;
    Ok(plain.stderr)
}

/// Runs `proxymatic run` with each flag of `given` in place of the valid one.
fn run(lab: &Lab, before: &[&str], format: &[&str], given: &[&str]) -> Result<Finished> {
    let host = lab.host(1);
    let (program, pins) = (binary("proxymatic")?, host.pins());
    let usual = [["--bpffs", text(&pins)?], ["--cgroup", text(host.cgroup().path())?]];
    let usual = usual.into_iter().filter(|[flag, _]| !given.contains(flag)).flatten().collect::<Vec<_>>();
    let command = [before, &[text(&program)?], format, &["run"], &usual, given].concat();
    host.run(Path::new(command[0]), &command[1..], PATIENCE)
}

fn assert_nothing_made(lab: &Lab) -> Result<()> {
    let pins = lab.host(1).pins();
    ensure!(!pins.exists(), "{} is there", pins.display());
    let attached = bpftool::attached(lab.host(1).cgroup().path())?;
    ensure!(attached.is_empty(), "attached: {attached:?}");
    Ok(())
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path that is not UTF-8")
}
