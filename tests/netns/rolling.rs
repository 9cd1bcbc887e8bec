//! All replicas replaced one by one, as a deployment does it: a new one first, then the old one is told and drained.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::until;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;

use crate::served::Served;

const REPLICAS: usize = 4;
const REQUESTS: u64 = 10_000;
/// How long a replica goes on after it was told to stop, before it closes its listener.
const LAME: Duration = Duration::from_millis(250);

#[test]
fn measured_a_rolling_replacement_of_all_replicas_fails_none_of_ten_thousand_requests() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Served::start(&lab, REPLICAS)?;
    // Each request takes a while, so that there are always some open to the one that leaves.
    let load = lab.load("http://localhost:1234/slow?ms=5", &["--threads", "24", "--linger0"])?;
    load.reaches(REQUESTS / 10)?;
    for nth in 0..REPLICAS {
        web.scale()?;
        let now: Vec<_> = (nth..=nth + REPLICAS).collect();
        web.when_active(&now)?;
        roll(&mut web, nth)?;
        web.when_active(&now[1..])?;
        load.reaches(REQUESTS / 10)?;
    }
    load.reaches(REQUESTS.saturating_sub(load.so_far()?.ok))?;
    let seen = load.finish()?;
    println!("{} requests over the replacement of {REPLICAS} replicas, {} failed", seen.ok, seen.failed);
    assert_eq!(seen.failed, 0, "{seen:?}");
    assert!(seen.ok >= REQUESTS && seen.by_replica.len() == 2 * REPLICAS, "{seen:?}");
    Ok(())
}

/// TASK_KILLING and SIGTERM, and TASK_KILLED when the process has finished what it had.
fn roll(web: &mut Served<'_>, nth: usize) -> Result<()> {
    web.sim.state(&web.tasks[nth], "TASK_KILLING")?;
    until(Instant::now() + LAME);
    let left = web.replicas[nth].terminate()?;
    ensure!(left.success(), "the replica failed: {left}");
    web.sim.state(&web.tasks[nth], "TASK_KILLED")
}
