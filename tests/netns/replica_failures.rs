//! Replicas that crash or stop answering under a load of 200 connects per second: the cost, with the agent and without
//! it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::{eventually_ok, until};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, Load, PATIENCE, Replica, Watcher};
use proxymatic_tests::net::host_address;
use proxymatic_tests::stalls::Stalls;
use proxymatic_tests::summary::{Failed, Summary};
use serde_json::Value;

use crate::fixtures::cluster::URL;
use crate::fixtures::file_source::{FileSource, backend, backends, replicas, service};

/// How long TCP_SYNCNT lets a connect to a silent replica last, by the default `timeout.connect` of 3 s. One more SYN
/// makes it 7 s.
const SILENCE: std::ops::Range<f64> = 2.9..7.0;
/// The kernel alone ejects a replica for one second; a crashed agent keeps it out for three.
const KEPT_OUT: Duration = Duration::from_secs(4);
/// The number of connections that the load has at a time.
const THREADS: usize = 16;
/// How much times in the records of two processes may differ: each process adds the age of an event to its own clock.
const SLACK: f64 = 0.2;

#[test]
fn killed_replica_costs_one_connect_and_is_readmitted() -> TestResult {
    let lab = Lab::start(2)?;
    let mut four = replicas(&lab, 4)?;
    let written = FileSource::start(&lab, &[service(&backends(&four), &[])], &[])?;
    let load = steady(&lab)?;
    load.reaches(200)?;
    let stalls = Stalls::watch();
    four[0].process.kill9()?;
    written.agent.logs("ejected until it answers", 1, PATIENCE)?;
    until(Instant::now() + KEPT_OUT);
    let dead = load.reaches(200)?;
    let _back = lab.replica(2, four[0].address.port(), "a")?;
    returns(&load, "a", dead.by_replica["a"])?;
    written.agent.logs("readmitted", 1, PATIENCE)?;
    let seen = load.finish()?;
    println!("{} connects, {} failed", seen.ok, connects(&seen).len());
    assert_only_what_could_not_know(&seen, &stalls);
    let times = ["ejected until it answers", "readmitted"].map(|words| written.agent.logged(words));
    assert_eq!(times.into_iter().collect::<Result<Vec<_>>>()?, [1, 1], "{}", written.agent.log());
    Ok(())
}

#[test]
fn kernel_alone_ejects_a_dead_replica_for_1_2_4_and_8_seconds() -> TestResult {
    let lab = Lab::start(2)?;
    let mut four = replicas(&lab, 4)?;
    let mut written = FileSource::start(&lab, &[service(&backends(&four), &[])], &[])?;
    written.agent.kill9()?;
    let watcher = lab.host(1).watch()?;
    let load = steady(&lab)?;
    load.reaches(200)?;
    four[0].process.kill9()?;
    let ejections = ejections(&watcher, 4)?;
    println!("ejected for {:.2?} s", ejections.iter().map(|it| it.lasts).collect::<Vec<_>>());
    for (ejection, most) in ejections.iter().zip([1.0, 2.0, 4.0, 8.0]) {
        // Jitter makes an ejection up to an eighth shorter, so that hosts do not retry together.
        assert!((0.875 * most..=most).contains(&ejection.lasts), "{ejections:?}");
    }
    let dead = load.so_far()?;
    let _back = lab.replica(2, four[0].address.port(), "a")?;
    returns(&load, "a", dead.by_replica["a"])?;
    assert_none_while_ejected(&watcher, &ejections, &load.finish()?)
}

#[test]
fn silent_replica_costs_only_connects_begun_before_its_ejection() -> TestResult {
    let lab = Lab::start(3)?;
    let (three, silent, written) = with_one_elsewhere(&lab)?;
    let written = FileSource::start(&lab, &[service(&written, &[])], &[])?;
    let load = steady(&lab)?;
    load.reaches(200)?;
    let stalls = Stalls::watch();
    drop_answers(&lab, "add")?;
    written.agent.logs("ejected until it answers", 1, PATIENCE)?;
    until(Instant::now() + KEPT_OUT);
    let dead = load.reaches(200)?;
    drop_answers(&lab, "delete")?;
    returns(&load, "far", dead.by_replica["far"])?;
    // The answer may be to a request from before the silence.
    written.agent.logs("readmitted", 1, PATIENCE)?;
    let seen = load.finish()?;
    let took: Vec<_> = connects(&seen).iter().map(|it| it.took_us as f64 / 1e6).collect();
    println!("{} connects, {took:.2?} s to fail", seen.ok);
    assert!(!took.is_empty() && took.iter().all(|it| SILENCE.contains(it)), "{took:?}");
    assert!(stalls.any_long() || few_wait(took.len()), "{} of {THREADS} clients waited for it at once", took.len());
    assert_only_what_could_not_know(&seen, &stalls);
    let times = ["ejected until it answers", "readmitted"].map(|words| written.agent.logged(words));
    assert_eq!(times.into_iter().collect::<Result<Vec<_>>>()?, [1, 1], "{}", written.agent.log());
    drop((three, silent));
    Ok(())
}

#[test]
fn kernel_alone_ejects_a_silent_replica_with_backoff() -> TestResult {
    let lab = Lab::start(3)?;
    let (three, silent, written) = with_one_elsewhere(&lab)?;
    let mut written = FileSource::start(&lab, &[service(&written, &[])], &[])?;
    written.agent.kill9()?;
    let watcher = lab.host(1).watch()?;
    let load = steady(&lab)?;
    load.reaches(200)?;
    drop_answers(&lab, "add")?;
    let ejections = ejections(&watcher, 2)?;
    let dead = load.so_far()?;
    drop_answers(&lab, "delete")?;
    returns(&load, "far", dead.by_replica["far"])?;
    let failed = watcher.all("failed")?;
    let took: Vec<_> = failed.iter().filter_map(|it| it["after_s"].as_f64()).collect();
    println!(
        "failed after {took:.2?} s, ejected for {:.2?} s",
        ejections.iter().map(|it| it.lasts).collect::<Vec<_>>()
    );
    assert!(took.len() == failed.len() && took.iter().all(|it| SILENCE.contains(it)), "{failed:?}");
    for (ejection, most) in ejections.iter().zip([1.0, 2.0]) {
        assert!((0.875 * most..=most).contains(&ejection.lasts), "{ejections:?}");
    }
    // After each readmission some connects try the replica, until the first of them fails.
    let waited = took.len().div_ceil(ejections.len());
    assert!(few_wait(waited), "{waited} of {THREADS} clients waited for it at once");
    assert_none_while_ejected(&watcher, &ejections, &load.finish()?)?;
    drop((three, silent));
    Ok(())
}

/// Starts a load of 200 connects per second, limited by the number of parallel connections.
fn steady(lab: &Lab) -> Result<Load> {
    let threads = THREADS.to_string();
    lab.load(URL, &["--threads", &threads, "--rate", "200", "--linger0"])
}

/// Starts three replicas on host 2, and one named `far` on host 3, which can be silenced alone.
fn with_one_elsewhere(lab: &Lab) -> Result<(Vec<Replica>, Replica, Vec<Value>)> {
    let three = replicas(lab, 3)?;
    let silent = lab.replica(3, 8001, "far")?;
    let mut written = backends(&three);
    written.push(backend(silent.address));
    Ok((three, silent, written))
}

/// Drops all packets from host 3 to host 1, or stops that.
fn drop_answers(lab: &Lab, verb: &str) -> Result<()> {
    lab.host(3).net().ip(&["route", verb, "blackhole", &format!("{}/32", host_address(1))])
}

/// Waits until a replica has answered more than this many times.
fn returns(load: &Load, replica: &str, answered: u64) -> Result<()> {
    eventually_ok(&format!("{replica} gets connections again"), PATIENCE, || {
        let seen = load.so_far()?;
        ensure!(seen.by_replica[replica] > answered, "{seen:?}");
        Ok(())
    })
}

/// Returns the failed connects, without requests that were under way when their replica was killed.
fn connects(seen: &Summary) -> Vec<&Failed> {
    seen.failures.iter().filter(|it| it.during == "connect").collect()
}

/// Asserts that every failed connect began before the first one failed: until then no hook could know. If the machine has
/// stalled, the ejection may have ended.
#[expect(clippy::print_stdout, reason = "what was not judged; the log of the test keeps it")]
fn assert_only_what_could_not_know(seen: &Summary, stalls: &Stalls) {
    let failed = connects(seen);
    let known = failed.iter().map(|it| it.at + it.took_us as f64 / 1e6).fold(f64::INFINITY, f64::min);
    let late: Vec<_> = failed.iter().filter(|it| it.at > known).collect();
    assert!(stalls.any_long() || late.is_empty(), "known at {known}: {failed:?}");
    if !late.is_empty() {
        println!("not judged because the machine has stalled: {late:?}");
    }
}

/// Whether few clients waited for a silent replica. Connections that wait for it count as open, so leastconn gives it no
/// more of them than the others have. With random, all clients would soon wait for it.
fn few_wait(waited: usize) -> bool {
    (1..=THREADS / 2).contains(&waited)
}

/// An ejection, as the hook has reported it.
#[derive(Debug)]
struct Ejection {
    /// Seconds since the epoch.
    at: f64,
    /// Seconds.
    lasts: f64,
}

/// Waits until a replica has been ejected this many times. A connect that fails during an ejection is reported with the
/// remaining time; each ejection is longer than the one before.
fn ejections(watcher: &Watcher, times: usize) -> Result<Vec<Ejection>> {
    eventually_ok(&format!("it is ejected {times} times"), 4 * PATIENCE, || {
        let mut ejections: Vec<Ejection> = Vec::new();
        for event in watcher.all("ejected")? {
            let lasts = event["for_s"].as_f64().context("no time")?;
            if ejections.last().is_none_or(|last| lasts > last.lasts) {
                ejections.push(Ejection { at: event["time"].as_f64().context("no time")?, lasts });
            }
        }
        ensure!(ejections.len() >= times, "{ejections:?}");
        Ok(ejections)
    })
}

/// Asserts that no failed connect began during an ejection, and that the hooks have reported each failed connect.
fn assert_none_while_ejected(watcher: &Watcher, ejections: &[Ejection], seen: &Summary) -> TestResult {
    let failed = connects(seen).len();
    eventually_ok("every failed connect is reported", PATIENCE, || {
        let told = watcher.all("failed")?.len();
        ensure!(told >= failed, "{told} of {failed}");
        Ok(())
    })?;
    let told = watcher.all("failed")?;
    assert_eq!(told.len(), failed, "{told:?} {seen:?}");
    for event in told {
        let (ended, age) = (event["time"].as_f64().context("no time")?, event["after_s"].as_f64().context("no age")?);
        let begun = ended - age;
        let during = |it: &&Ejection| (it.at + SLACK..it.at + it.lasts - SLACK).contains(&begun);
        let ejection = ejections.iter().find(during);
        assert!(ejection.is_none(), "begun at {begun}, while it was ejected: {ejection:?}: {event}");
    }
    Ok(())
}
