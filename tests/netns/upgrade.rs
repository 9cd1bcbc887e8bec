//! Takeover by another build of the agent, of the same or of another map ABI version: no connect and no open connection
//! fails.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context as _, Result, ensure};
use proxymatic_common::ABI_VERSION;
use proxymatic_tests::eventually::{eventually_ok, until};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, Load, PATIENCE};
use proxymatic_tests::process::Process;
use serde_json::Value;

use crate::bpftool;
use crate::fixtures::word_replicas::{At, WordReplicas, WordService};

const WEB: WordService = WordService {
    app: "/web",
    port: 1234,
    replicas: &[(At::V4(2, 8001), "a"), (At::V4(2, 8002), "b"), (At::V4(2, 8003), "c")],
};
const DESTINATION: &str = "127.0.0.1:1234";
const CLIENTS: u8 = 8;
/// How much longer each start works before it is killed.
const WORK: Duration = Duration::from_millis(60);

const THIS: &str = "proxymatic";
/// The same map layouts, other programs.
const OTHER: &str = "proxymatic-other-build";
/// Other map layouts.
const NEXT: &str = "proxymatic-next-abi";

#[test]
fn build_upgrade_and_downgrade_under_load_fail_nothing() -> TestResult {
    let lab = Lab::start(2)?;
    let web = WordReplicas::start(&lab, &[WEB], &[])?;
    let load = lab.host(1).hold_connections(DESTINATION.parse()?, CLIENTS)?;
    let mut agent = web.agent;
    let before = programs(&lab, THIS)?;
    for build in [OTHER, THIS, OTHER, THIS] {
        agent = replaced(&lab, agent, build, &load)?;
        let tags = programs(&lab, THIS)?;
        assert_eq!(tags == before, build == THIS, "{build} has these programs: {tags:?}");
        assert_eq!(versions(&lab)?, [ABI_VERSION]);
    }
    println!("4 times to another build: {} requests, none failed", nothing_failed(load)?);
    Ok(())
}

#[test]
fn abi_upgrade_and_downgrade_under_load_fail_nothing() -> TestResult {
    let lab = Lab::start(2)?;
    let web = WordReplicas::start(&lab, &[WEB], &[])?;
    let load = lab.host(1).hold_connections(DESTINATION.parse()?, CLIENTS)?;
    let mut agent = web.agent;
    for build in [NEXT, THIS, NEXT, THIS] {
        agent = replaced(&lab, agent, build, &load)?;
        // One version counts each connect; both translate peer names as long as their sockets are open.
        let hooks = bpftool::attached(lab.host(1).cgroup().path())?;
        let times = |hook| hooks.iter().filter(|name| *name == hook).count();
        assert_eq!(["connect4", "connect6", "sendmsg4", "sendmsg6", "post_bind4"].map(times), [1; 5], "{hooks:?}");
        assert_eq!(["getpeername4", "recvmsg4", "sock_release", "tcp_states"].map(times), [2; 4], "{hooks:?}");
        assert_eq!(versions(&lab)?, [ABI_VERSION, ABI_VERSION + 1]);
    }
    println!("4 times to another version: {} requests, none failed", nothing_failed(load)?);
    eventually_ok("nothing is left of the version that was replaced", PATIENCE, || {
        let (versions, hooks) = (versions(&lab)?, bpftool::attached(lab.host(1).cgroup().path())?);
        ensure!(versions == [ABI_VERSION] && hooks.len() == 12, "{versions:?} {hooks:?}");
        Ok(())
    })?;
    Ok(())
}

/// Each agent is killed a little later in its start: before it has the lock, while it loads, while it waits for
/// Marathon, during the takeover, and after it.
#[test]
fn crash_of_either_agent_in_a_takeover_fails_nothing() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1);
    let mut web = WordReplicas::start(&lab, &[WEB], &[])?;
    let load = host.hold_connections(DESTINATION.parse()?, CLIENTS)?;
    web.agent.kill9()?;
    let marathon = lab.marathon_url();
    for nth in 0..16 {
        let build = [NEXT, THIS][nth % 2];
        let mut agent = host.agent_built(build, host.cgroup(), &["--marathon", &marathon])?;
        agent.works_for(WORK * nth as u32, PATIENCE)?;
        agent.kill9()?;
        load.reaches(50)?;
    }
    for build in [NEXT, THIS] {
        let mut agent = host.agent_built(build, host.cgroup(), &["--marathon", &marathon])?;
        host.built_serves(build, PATIENCE)?;
        load.reaches(200)?;
        agent.kill9()?;
    }
    println!("18 starts, 16 of them killed: {} requests, none failed", nothing_failed(load)?);
    Ok(())
}

#[test]
fn replaced_version_translates_back_until_its_last_close() -> TestResult {
    let lab = Lab::start(2)?;
    let web = WordReplicas::start(&lab, &[WEB], &[])?;
    let (mut stream, mut datagrams) = (lab.host(1).tcp_client()?, lab.host(1).datagrams_in(lab.host(1).cgroup())?);
    assert_eq!(stream.tell(&format!("connect c {DESTINATION}"))?, "ok");
    for order in ["open d".into(), format!("connect d {DESTINATION}")] {
        assert_eq!(datagrams.tell(&order)?, "ok");
    }
    let _next = started(&lab, web.agent, NEXT)?;
    assert_eq!(versions(&lab)?, [ABI_VERSION, ABI_VERSION + 1]);
    assert_eq!(stream.tell("peer c")?, DESTINATION);
    assert_eq!(datagrams.tell("peer d")?, DESTINATION);
    assert!(["a", "b", "c"].contains(&datagrams.tell("ask d")?.as_str()));
    assert_eq!(stream.tell("close c")?, "ok");
    // One of its sockets is still open, so it stays for any time: two sweeps.
    until(Instant::now() + Duration::from_secs(11));
    assert_eq!(versions(&lab)?, [ABI_VERSION, ABI_VERSION + 1]);
    assert_eq!(datagrams.tell("peer d")?, DESTINATION);
    assert_eq!(datagrams.tell("close d")?, "ok");
    eventually_ok("nothing is left of the version that was replaced", PATIENCE, || {
        let (versions, hooks) = (versions(&lab)?, bpftool::attached(lab.host(1).cgroup().path())?);
        ensure!(versions == [ABI_VERSION + 1] && hooks.len() == 12, "{versions:?} {hooks:?}");
        Ok(())
    })?;
    Ok(())
}

/// The returning version has maps of its own, which still contain the drains from before.
#[test]
fn drain_and_undrain_survive_abi_upgrade_and_downgrade() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1);
    let file = lab.run_dir().join("state.json").display().to_string();
    let state = ["--state-file", &file];
    let web = WordReplicas::start(&lab, &[WEB], &state)?;
    let mut agent = web.agent;
    for (build, drained, next) in [(THIS, 8001, NEXT), (NEXT, 8002, THIS)] {
        let backend = format!("10.77.0.2:{drained}");
        host.proxymatic_built(build, &["backend", "drain", &backend])?.well()?;
        eventually_ok("it is written down", PATIENCE, || {
            let written = fs::read_to_string(&file)?;
            let drains = written.split_once("\"drained\":").map(|(_, drains)| drains.to_owned()).unwrap_or_default();
            ensure!(drains.contains(&format!("\"port\":{drained}}}")), "{drains}");
            Ok(())
        })?;
        let load = host.hold_connections(DESTINATION.parse()?, CLIENTS)?;
        agent = replaced_with(&lab, agent, next, &load, &state)?;
        let seen = load.finish()?;
        assert_eq!(seen.failed, 0, "{:?} {:?}", seen.errors, seen.failures.first());
        let word = WEB.replicas.iter().find(|(at, _)| at.address().port() == drained).context("no such replica")?.1;
        let replicas: BTreeSet<_> = seen.by_replica.keys().filter_map(|key| Some(key.split_once(':')?.1)).collect();
        assert_eq!((replicas.len(), replicas.contains(word)), (2, false), "{word}: {replicas:?}");
        let said: Value = serde_json::from_str(&host.proxymatic_built(next, &["-j", "status"])?.stdout)?;
        let drains: BTreeSet<_> = said["drained"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(drains, [backend.as_str()].into(), "{said}");
        host.proxymatic_built(next, &["backend", "undrain", &backend])?.well()?;
    }
    Ok(())
}

#[test]
fn agent_with_silent_sources_does_not_take_over() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1);
    let mut web = WordReplicas::start(&lab, &[WEB], &[])?;
    web.agent.kill9()?;
    let mut next = host.agent_built(NEXT, host.cgroup(), &["--marathon", &format!("http://{}:1", host.address())])?;
    let status = eventually_ok("the next version names the serving agent", PATIENCE, || {
        let status = host.proxymatic_built(NEXT, &["status"])?;
        let said = format!("version {ABI_VERSION} still serves: version {} takes over once", ABI_VERSION + 1);
        ensure!(status.stdout.contains(&said), "{status:?}");
        Ok(status)
    })?;
    assert_eq!(status.status.code(), Some(1), "{status:?}");
    let mut client = host.tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {DESTINATION}"))?, "ok");
    assert_eq!(client.tell("peer c")?, DESTINATION);
    let rows: Vec<Value> = serde_json::from_str(&host.proxymatic(&["-j", "hook", "show"])?.well()?.stdout)?;
    assert_eq!(rows.len(), 12);
    // Nothing of it is attached, and the next agent has no problem with its pins.
    assert_eq!(bpftool::attached(host.cgroup().path())?.len(), 12);
    next.kill9()?;
    let _next = host.agent_built(NEXT, host.cgroup(), &["--marathon", &lab.marathon_url()])?;
    host.built_serves(NEXT, PATIENCE)?;
    assert_eq!(client.tell("peer c")?, DESTINATION);
    Ok(())
}

#[test]
fn detach_removes_every_version_and_nothing_foreign() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1);
    let web = WordReplicas::start(&lab, &[WEB], &[])?;
    let mut client = host.tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {DESTINATION}"))?, "ok");
    let mut next = started(&lab, web.agent, NEXT)?;
    let stranger = folder(&lab, ABI_VERSION).join("maps/stranger");
    bpftool::pin_map(&stranger, "elsewhere", 8, 1)?;
    assert_eq!(versions(&lab)?, [ABI_VERSION, ABI_VERSION + 1]);
    next.kill9()?;
    let removed = host.proxymatic_built(NEXT, &["detach"])?.well()?.stdout;
    for version in [ABI_VERSION, ABI_VERSION + 1] {
        assert!(removed.contains(&format!("v{version}/links/getpeername4")), "{removed}");
    }
    assert_eq!(bpftool::attached(host.cgroup().path())?, Vec::<String>::new());
    assert_eq!(versions(&lab)?, [ABI_VERSION]);
    let left: Vec<_> = fs::read_dir(folder(&lab, ABI_VERSION))?.collect::<io::Result<_>>()?;
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(stranger.exists());
    Ok(())
}

/// Replaces an agent by another build, with this many requests before and after.
fn replaced(lab: &Lab, agent: Process, build: &str, load: &Load) -> Result<Process> {
    replaced_with(lab, agent, build, load, &[])
}

/// Replaces an agent by another build, with more arguments for the new one.
fn replaced_with(lab: &Lab, agent: Process, build: &str, load: &Load, more: &[&str]) -> Result<Process> {
    load.reaches(200)?;
    let agent = started_with(lab, agent, build, more)?;
    load.reaches(200)?;
    Ok(agent)
}

/// Ends an agent, one build's by SIGTERM and the other's by SIGKILL, and starts another.
fn started(lab: &Lab, agent: Process, build: &str) -> Result<Process> {
    started_with(lab, agent, build, &[])
}

fn started_with(lab: &Lab, mut agent: Process, build: &str, more: &[&str]) -> Result<Process> {
    let host = lab.host(1);
    let _ended = if build == THIS { agent.kill9()? } else { agent.terminate(PATIENCE)? };
    let marathon = lab.marathon_url();
    let agent = host.agent_built(build, host.cgroup(), &[&["--marathon", &marathon], more].concat())?;
    host.built_serves(build, PATIENCE).with_context(|| agent.log())?;
    Ok(agent)
}

/// Returns the number of requests in each of the five ways; asserts that all were answered.
fn nothing_failed(load: Load) -> Result<u64> {
    let seen = load.finish()?;
    ensure!(seen.failed == 0, "{:?} {:?}", seen.errors, seen.failures.first());
    let ways: BTreeSet<_> = seen.by_replica.keys().filter_map(|key| key.split_once(':')).map(|(way, _)| way).collect();
    ensure!(ways.len() == 5, "{ways:?}");
    Ok(seen.ok)
}

fn folder(lab: &Lab, version: u32) -> PathBuf {
    lab.host(1).pins().join(format!("v{version}"))
}

/// Returns the versions that have any pins.
fn versions(lab: &Lab) -> Result<Vec<u32>> {
    let mut versions = Vec::new();
    for entry in fs::read_dir(lab.host(1).pins())? {
        let name = entry?.file_name().into_string().ok().context("an unexpected name")?;
        versions.push(name.strip_prefix('v').context("no version")?.parse()?);
    }
    versions.sort_unstable();
    Ok(versions)
}

/// Returns the tags of the attached programs, by hook.
fn programs(lab: &Lab, build: &str) -> Result<Vec<String>> {
    let said = lab.host(1).proxymatic_built(build, &["-j", "hook", "show"])?.well()?.stdout;
    let rows: Vec<Value> = serde_json::from_str(&said)?;
    rows.iter().map(|row| bpftool::tag(row["program"].as_u64().context("no program")?)).collect()
}
