//! Replicas that die or fall silent under a steady 200 connects a second: what it costs, with the agent and without it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::{eventually_ok, until};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, Load, PATIENCE, Replica};
use proxymatic_tests::net::host_address;
use proxymatic_tests::summary::{Failed, Summary};
use serde_json::Value;

use crate::served::URL;
use crate::written::{Written, backend, backends, replicas, service};

/// What TCP_SYNCNT makes of the default `timeout.connect` of 3 s, and what a busy machine adds.
const SILENCE: [Duration; 2] = [Duration::from_millis(2_900), Duration::from_millis(3_500)];

#[test]
fn measured_a_replica_that_is_killed_under_load_costs_one_connect_and_is_back_within_a_second_of_answering()
-> TestResult {
    let lab = Lab::start(2)?;
    let mut four = replicas(&lab, 4)?;
    let _agent = Written::start(&lab, &[service(&backends(&four), &[])], &[])?;
    let load = steady(&lab)?;
    load.reaches(200)?;
    four[0].process.kill9()?;
    until(Instant::now() + Duration::from_secs(3));
    let dead = load.so_far()?;
    let _back = lab.replica(2, four[0].address.port(), "a")?;
    let readmitted = returns(&load, "a", dead.by_replica["a"])?;
    let seen = load.finish()?;
    println!("{} connects, {} failed; back {readmitted:?} after it answered", seen.ok, failed(&seen));
    assert!(failed(&seen) <= 1, "{seen:?}");
    assert!(readmitted < Duration::from_secs(1), "{readmitted:?}");
    Ok(())
}

#[test]
fn measured_without_an_agent_the_kernel_tries_a_dead_replica_after_1_2_and_4_seconds_and_no_more() -> TestResult {
    let lab = Lab::start(2)?;
    let mut four = replicas(&lab, 4)?;
    let mut agent = Written::start(&lab, &[service(&backends(&four), &[])], &[])?;
    agent.agent.kill9()?;
    let load = steady(&lab)?;
    load.reaches(200)?;
    four[0].process.kill9()?;
    until(Instant::now() + Duration::from_secs(10));
    let seen = load.so_far()?;
    let gaps = gaps(&connects(&seen));
    println!("{} failed connects in 10 s, {gaps:.2?} s apart", failed(&seen));
    // One when it died, one after each ejection, of which each is up to an eighth shorter; the fifth comes after 13 s.
    assert_eq!(failed(&seen), 4, "{seen:?}");
    for (gap, ejected) in gaps.iter().zip([1.0, 2.0, 4.0]) {
        assert!((0.87 * ejected..ejected + 0.5).contains(gap), "{gaps:.2?}");
    }
    let _back = lab.replica(2, four[0].address.port(), "a")?;
    let readmitted = returns(&load, "a", seen.by_replica["a"])?;
    println!("back {readmitted:?} after it answered");
    assert!(readmitted < Duration::from_secs(8), "{readmitted:?}");
    assert_eq!(failed(&load.finish()?), 4);
    Ok(())
}

#[test]
fn measured_a_replica_that_falls_silent_costs_what_is_under_way_for_3_s_and_is_back_within_a_second_of_answering()
-> TestResult {
    let lab = Lab::start(3)?;
    let (three, silent, written) = with_one_elsewhere(&lab)?;
    let _agent = Written::start(&lab, &[service(&written, &[])], &[])?;
    let load = steady(&lab)?;
    load.reaches(200)?;
    drop_answers(&lab, "add")?;
    until(Instant::now() + Duration::from_secs(6));
    let dead = load.so_far()?;
    drop_answers(&lab, "delete")?;
    let readmitted = returns(&load, "far", dead.by_replica["far"])?;
    let seen = load.finish()?;
    let took: Vec<_> = connects(&seen).iter().map(|it| Duration::from_micros(it.took_us)).collect();
    println!("{} connects, {took:.2?} to fail; back {readmitted:?} after it answered", seen.ok);
    assert!(!took.is_empty() && took.iter().all(|it| (SILENCE[0]..SILENCE[1]).contains(it)), "{took:?}");
    // Its open connections count, so that leastconn gives it few: not a quarter of the 600 of three seconds.
    assert!(took.len() <= 10, "{}", took.len());
    let begun: Vec<_> = connects(&seen).iter().map(|it| it.at).collect();
    assert!(begun.iter().all(|at| at - begun[0] < SILENCE[1].as_secs_f64()), "after the ejection: {begun:?}");
    assert!(readmitted < Duration::from_secs(1), "{readmitted:?}");
    drop((three, silent));
    Ok(())
}

#[test]
fn measured_without_an_agent_a_silent_replica_is_ejected_by_the_kernel_and_tried_ever_more_rarely() -> TestResult {
    let lab = Lab::start(3)?;
    let (three, silent, written) = with_one_elsewhere(&lab)?;
    let mut agent = Written::start(&lab, &[service(&written, &[])], &[])?;
    agent.agent.kill9()?;
    let load = steady(&lab)?;
    load.reaches(200)?;
    drop_answers(&lab, "add")?;
    until(Instant::now() + Duration::from_secs(10));
    let dead = load.so_far()?;
    drop_answers(&lab, "delete")?;
    let readmitted = returns(&load, "far", dead.by_replica["far"])?;
    let seen = load.finish()?;
    let (took, begun): (Vec<_>, Vec<_>) = connects(&seen).iter().map(|it| (it.took_us / 1_000, it.at)).unzip();
    let since: Vec<_> = begun.iter().map(|at| at - begun[0]).collect();
    println!("failed after {took:?} ms, begun at {since:.1?} s; back {readmitted:?} after it answered");
    assert!(took.iter().all(|ms| (SILENCE[0].as_millis()..SILENCE[1].as_millis()).contains(&(*ms).into())));
    // Three seconds to notice, one of ejection, three more, two of ejection.
    assert!((1..=20).contains(&took.len()), "{took:?}");
    assert!(!since.iter().any(|at| (3.6..3.8).contains(at)), "while it was ejected: {since:?}");
    assert!(readmitted < Duration::from_secs(5), "{readmitted:?}");
    drop((three, silent));
    Ok(())
}

/// 200 connects a second, whatever becomes of the ones before.
fn steady(lab: &Lab) -> Result<Load> {
    lab.load(URL, &["--threads", "64", "--rate", "200", "--linger0", "--timeout", "20000"])
}

/// Three replicas on host 2, and one called `far` on host 3, which can fall silent alone.
fn with_one_elsewhere(lab: &Lab) -> Result<(Vec<Replica>, Replica, Vec<Value>)> {
    let three = replicas(lab, 3)?;
    let silent = lab.replica(3, 8001, "far")?;
    let mut written = backends(&three);
    written.push(backend(silent.address));
    Ok((three, silent, written))
}

/// All that host 3 says to host 1 is dropped, or no longer.
fn drop_answers(lab: &Lab, verb: &str) -> Result<()> {
    lab.host(3).net().ip(&["route", verb, "blackhole", &format!("{}/32", host_address(1))])
}

/// Waits until a replica answers more often than so many times: how long that takes.
fn returns(load: &Load, replica: &str, answered: u64) -> Result<Duration> {
    let begun = Instant::now();
    eventually_ok(&format!("{replica} gets connections again"), PATIENCE, || {
        let seen = load.so_far()?;
        ensure!(seen.by_replica[replica] > answered, "{seen:?}");
        Ok(begun.elapsed())
    })
}

/// Those that failed to connect. A request that was under way when its replica was killed is another matter.
fn connects(seen: &Summary) -> Vec<&Failed> {
    let mut failed: Vec<_> = seen.failures.iter().filter(|it| it.during == "connect").collect();
    failed.sort_by(|a, b| a.at.total_cmp(&b.at));
    failed
}

fn failed(seen: &Summary) -> usize {
    seen.failed_during("connect")
}

/// Seconds between one and the next.
fn gaps(failed: &[&Failed]) -> Vec<f64> {
    failed.windows(2).map(|pair| pair[1].at - pair[0].at).collect()
}
