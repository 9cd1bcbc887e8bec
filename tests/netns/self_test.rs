//! The self-test: it connects as programs do, and reports a failure.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Host, Lab, PATIENCE};
use serde_json::{Value, json};

use crate::fixtures::cluster::{APP, Cluster};

const EACH_SECOND: [&str; 2] = ["--self-test", "1"];

#[test]
fn self_test_succeeds_repeatedly_and_its_service_is_hidden() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1);
    let web = tested(&lab)?;
    succeeds(host)?;
    let translated = host.verdict("translated")?;
    eventually_ok("it is made again", PATIENCE, || {
        ensure!(host.verdict("translated")? > translated);
        Ok(())
    })?;
    let status = host.well()?;
    assert_eq!((&status["services"], &status["agent"]["self_test"]["error"]), (&json!(1), &Value::Null), "{status}");
    let names: Vec<_> = host.services()?.into_iter().map(|service| service.name).collect();
    assert_eq!(names, [APP]);
    let said = lab.proxymatic(&["-j", "plan", "show", "--marathon", &lab.marathon_url()])?.well()?.stdout;
    let plan: Value = serde_json::from_str(&said)?;
    assert_eq!(plan["operations"], json!([]), "{plan}");
    drop(web);
    Ok(())
}

#[test]
fn missing_hook_is_found_by_the_self_test_and_in_status() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1);
    let _web = tested(&lab)?;
    succeeds(host)?;
    // The self-test stops at the first missing hook, so the hook that it tests last is removed first.
    for (hook, words) in [
        ("getpeername6", "a connection to [::ffff:192.0.0.8]:4 has the peer [::ffff:127.0.0.1]:"),
        ("connect6", "a connection to [::ffff:192.0.0.8]:4 did not reach its service"),
        ("recvmsg6", "a datagram to [::ffff:192.0.0.8]:4 was answered by [::ffff:127.0.0.1]:"),
        ("getpeername4", "a connection to 192.0.0.8:4 has the peer 127.0.0.1:"),
        ("connect4", "a connection to 192.0.0.8:4 did not reach its service"),
        ("recvmsg4", "a datagram to 192.0.0.8:4 was answered by 127.0.0.1:"),
        ("sendmsg4", "a datagram to 192.0.0.8:4 did not reach its service"),
    ] {
        // Only the pin holds the hook: removing it detaches the hook, as with a recreated cgroup.
        fs::remove_file(link(&host.pins(), hook)?)?;
        eventually_ok(&format!("the loss of {hook} is noticed"), PATIENCE, || {
            let said = host.proxymatic(&["-j", "status"])?;
            let status: Value = serde_json::from_str(&said.stdout)?;
            let wrong = status["problems"].to_string();
            ensure!(
                wrong.contains(&format!("the self-test fails: {words}")) && said.status.code() == Some(1),
                "{wrong}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn agent_outside_its_cgroup_reports_no_self_test() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1);
    let served = host.cgroup().child("served")?;
    let _sim = lab.sim()?;
    let _agent = host.agent_for(&served, &lab.marathon_url(), &EACH_SECOND)?;
    host.agent_ready(PATIENCE)?;
    let status = host.status()?;
    let test = &status["agent"]["self_test"];
    let reason = test["impossible"].as_str().unwrap_or_default();
    assert!(reason.starts_with("the agent runs outside of the served cgroup"), "{status}");
    assert_eq!((&test["error"], &test["succeeded_s"], &status["problems"]), (&Value::Null, &Value::Null, &json!([])));
    let said = lab.proxymatic(&["status"])?.stdout;
    assert!(said.contains("self-test  not possible: the agent runs outside"), "{said}");
    Ok(())
}

#[test]
fn killed_helper_is_reported_and_orphaned_helper_ends() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1);
    let mut web = tested(&lab)?;
    succeeds(host)?;
    kill(Pid::from_raw(helper(host)?.context("no helper")?), Signal::SIGKILL)?;
    eventually_ok("its loss is noticed", PATIENCE, || {
        let wrong = host.status()?["problems"].to_string();
        ensure!(wrong.contains("its helper process has ended; restart the agent"), "{wrong}");
        Ok(())
    })?;
    web.agent.kill9()?;
    web.agent = lab.agent(&EACH_SECOND)?;
    host.agent_ready(PATIENCE)?;
    succeeds(host)?;
    web.agent.kill9()?;
    eventually_ok("the helper has ended", PATIENCE, || {
        ensure!(helper(host)?.is_none());
        Ok(())
    })
    .map_err(Into::into)
}

fn tested(lab: &Lab) -> Result<Cluster<'_>> {
    let web = Cluster::on(lab, lab.sim()?, 1, json!({}), &EACH_SECOND)?;
    web.when_active(&[0])?;
    Ok(web)
}

fn succeeds(host: &Host) -> Result<()> {
    eventually_ok("the self-test succeeds", PATIENCE, || {
        let status = host.status()?;
        ensure!(status["agent"]["self_test"]["succeeded_s"].is_number(), "{status}");
        Ok(())
    })
}

/// The process on a host that performs the self-test.
pub(crate) fn helper(host: &Host) -> Result<Option<i32>> {
    let is = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "self-test\n");
    Ok(host.cgroup().processes()?.into_iter().find(is))
}

/// The pin of a hook's link, for any map ABI version.
fn link(pins: &Path, hook: &str) -> Result<PathBuf> {
    let versions = fs::read_dir(pins)?.collect::<Result<Vec<_>, _>>()?;
    let found = versions.iter().map(|version| version.path().join("links").join(hook)).find(|path| path.exists());
    found.with_context(|| format!("no link of {hook} below {}", pins.display()))
}
