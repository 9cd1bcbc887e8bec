//! A rolling update: each new replica starts before an old one is drained and stopped.

use anyhow::{Result, ensure};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;

use crate::fixtures::cluster::{APP, Cluster};

const REPLICAS: usize = 4;
const REQUESTS: u64 = 10_000;

#[test]
fn rolling_replacement_fails_none_of_ten_thousand_requests() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, REPLICAS)?;
    // Each request takes a while, so that the leaving replica always has open ones.
    let load = lab.load("http://localhost:1234/slow?ms=5", &["--threads", "24", "--linger0"])?;
    load.reaches(REQUESTS / 10)?;
    for nth in 0..REPLICAS {
        web.scale()?;
        let now: Vec<_> = (nth..=nth + REPLICAS).collect();
        web.when_active(&now)?;
        roll(&mut web, nth, &now[1..])?;
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

/// TASK_KILLING, SIGTERM once it is drained, and TASK_KILLED when the process has ended.
fn roll(web: &mut Cluster<'_>, nth: usize, others: &[usize]) -> Result<()> {
    web.sim.state(&web.tasks[nth], "TASK_KILLING")?;
    web.when_active(others)?;
    let leaves = web.replicas[nth].address;
    web.lab.service_when("the one that leaves has no connections", APP, |web| {
        let open = web.backends.iter().filter(|it| (it.address, it.port) == (leaves.ip(), leaves.port()));
        open.map(|it| it.active).sum::<u64>() == 0
    })?;
    let left = web.replicas[nth].terminate()?;
    ensure!(left.success(), "the replica failed: {left}");
    web.sim.state(&web.tasks[nth], "TASK_KILLED")
}
