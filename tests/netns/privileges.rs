//! Capabilities of the agent's threads once it serves.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use proxymatic_user::privileges::{EnabledFeatures, Thread, capabilities_of};
use serde_json::json;

use crate::fixtures::cluster::Cluster;
use crate::fixtures::file_source::FileSource;
use crate::self_test::helper;

/// From linux/capability.h: needed only until all sockets listen.
const NET_BIND_SERVICE: u64 = 1 << 10;

#[test]
fn each_thread_has_exactly_the_documented_capabilities() -> TestResult {
    let lab = Lab::start(2)?;
    let state = lab.run_dir().join("state.json").display().to_string();
    let web = Cluster::on(&lab, lab.sim()?, 1, json!({}), &["--self-test", "1", "--state-file", &state])?;
    hold(web.agent.pid()?.as_raw(), EnabledFeatures::default(), || read(&web))?;
    let helper = eventually_ok("the self-test has its process", PATIENCE, || helper(lab.host(1))?.context("none"))?;
    for (_, status) in threads(helper)? {
        assert_eq!(["CapEff", "CapPrm", "CapInh", "CapAmb"].map(|set| bits(&status, set).ok()), [Some(0); 4]);
        assert_eq!((word(&status, "NoNewPrivs")?, word(&status, "Seccomp")?), ("1", "2"));
    }
    Ok(())
}

#[test]
fn bypass_mark_and_services_file_cost_one_capability_each() -> TestResult {
    let lab = Lab::start(2)?;
    let state = lab.run_dir().join("state.json").display().to_string();
    let agent = FileSource::start(&lab, &[], &["--bypass-mark", "7", "--state-file", &state])?;
    // The agent reads the file each second.
    hold(
        agent.agent.pid()?.as_raw(),
        EnabledFeatures { bypass_mark: true, file: true, ..EnabledFeatures::default() },
        || Ok(()),
    )
}

#[test]
fn interfaces_thread_has_no_other_privilege() -> TestResult {
    let lab = Lab::start(2)?;
    let state = lab.run_dir().join("state.json").display().to_string();
    let web = Cluster::on(&lab, lab.sim()?, 1, json!({}), &["--interface", "lab0", "--state-file", &state])?;
    hold(web.agent.pid()?.as_raw(), EnabledFeatures { interfaces: true, ..EnabledFeatures::default() }, || read(&web))
}

#[test]
fn pins_are_for_root_only() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    let mut seen = 0;
    for_all(&lab.host(1).pins(), &mut |path, mode| {
        seen += 1;
        let wanted = if path.is_dir() { 0o700 } else { 0o600 };
        ensure!(mode & 0o777 == wanted, "{} has mode {mode:o}", path.display());
        Ok(())
    })?;
    assert!(seen > 40, "{seen} pins and folders");
    Ok(())
}

/// Makes the agent read Marathon's answers.
fn read(web: &Cluster<'_>) -> Result<()> {
    web.sim.control("streams/close", &json!({})).map(drop)
}

/// Asserts that all threads of an agent have exactly the capabilities of the table, and that each kind of thread
/// exists. Reader threads end after some idle time and start with the process's capabilities. `work` keeps them alive,
/// and their initial state passes.
fn hold(agent: i32, uses: EnabledFeatures, work: impl Fn() -> Result<()>) -> TestResult {
    let mut worked: Option<Instant> = None;
    eventually_ok("each thread has the documented capabilities", PATIENCE, || {
        let held = is_held(agent, uses);
        if held.is_err() && worked.is_none_or(|at| at.elapsed() > Duration::from_secs(3)) {
            worked = Some(Instant::now());
            work()?;
        }
        held
    })?;
    Ok(())
}

fn is_held(agent: i32, uses: EnabledFeatures) -> Result<()> {
    // If this test process lacks a capability, its children lack it too.
    let ours = bits(&fs::read_to_string("/proc/self/status")?, "CapPrm")?;
    let wanted = |thread| capabilities_of(thread, uses).fold(0, |all, right| all | 1_u64 << right.number) & ours;
    let all = Thread::ALL.into_iter().fold(0, |all, thread| all | wanted(thread)) | NET_BIND_SERVICE & ours;
    let mut kinds = BTreeMap::new();
    for (name, status) in threads(agent)? {
        let thread = Thread::ALL.into_iter().find(|thread| thread.name() == name);
        let thread = thread.with_context(|| format!("a thread that the table does not know: {name}"))?;
        let sets = ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"];
        let has: Vec<_> = sets.iter().map(|set| bits(&status, set)).collect::<Result<_>>()?;
        ensure!(has == [wanted(thread), wanted(thread), all, 0, 0], "{name}: {sets:?} are {has:x?}");
        ensure!((word(&status, "NoNewPrivs")?, word(&status, "Seccomp")?) == ("1", "2"), "{name}: {status}");
        *kinds.entry(name).or_insert(0) += 1;
    }
    // The thread that reads the maps exists only during a request.
    let there = |thread: &Thread| *thread != Thread::Look && (*thread != Thread::Interfaces || uses.interfaces);
    let mut expected = Thread::ALL.into_iter().filter(there);
    ensure!(expected.all(|kind| kinds.contains_key(kind.name())), "{kinds:?}");
    Ok(())
}

/// The threads of a process: name and status.
fn threads(process: i32) -> Result<Vec<(String, String)>> {
    let tasks = fs::read_dir(format!("/proc/{process}/task"))?;
    let read = |path: &Path, file: &str| fs::read_to_string(path.join(file));
    // Idle readers come and go.
    let thread = |path: &Path| Some((read(path, "comm").ok()?.trim_end().to_owned(), read(path, "status").ok()?));
    Ok(tasks.filter_map(|task| thread(&task.ok()?.path())).collect())
}

fn bits(status: &str, set: &str) -> Result<u64> {
    Ok(u64::from_str_radix(word(status, set)?, 16)?)
}

fn word<'a>(status: &'a str, name: &str) -> Result<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(line.with_context(|| format!("no {name} in {status}"))?.trim())
}

fn for_all(path: &Path, each: &mut impl FnMut(&Path, u32) -> Result<()>) -> Result<()> {
    each(path, fs::metadata(path)?.permissions().mode())?;
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            for_all(&entry?.path(), each)?;
        }
    }
    Ok(())
}
