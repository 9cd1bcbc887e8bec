//! Rolling upgrades of tasks whose programs close their listener at SIGTERM: with the ends announced, as Marathon has
//! done since 1.8, and without.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use proxymatic_tests::eventually::eventually;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use proxymatic_tests::summary::Summary;
use proxymatic_user::dataplane::kernel::{Maps, Pins};
use serde_json::json;

use crate::fixtures::cluster::{APP, Cluster, URL};

const TASKS: usize = 5;
const UPGRADES: usize = 10;
/// The most connects per second. The verdict does not depend on it.
const RATE: &str = "2000";

#[test]
fn announced_ends_cost_ten_upgrades_no_connect() -> TestResult {
    let (announced, waits) = upgrades(true)?;
    let (control, _) = upgrades(false)?;
    let longest = waits.iter().max().context("no end")?.as_secs_f64() * 1e3;
    println!("{UPGRADES} rolling upgrades of {TASKS} tasks that close their listener at SIGTERM");
    println!("ends announced:     {}", counts(&announced));
    println!("ends not announced: {}", counts(&control));
    println!("longest time from an announcement to the drain, as a poll sees it: {longest:.0} ms");
    assert_eq!(announced.failed, 0, "{:?} {:?}", announced.errors, announced.failures);
    assert!(control.failed > 0, "without announcements the load meets closed listeners");
    Ok(())
}

fn counts(seen: &Summary) -> String {
    let Summary { ok, failed, .. } = seen;
    format!("{failed} of {} requests failed, {} of them at connect", ok + failed, seen.failed_during("connect"))
}

/// Replaces all tasks, one by one, again and again. Returns what the clients saw, and how long each drain took.
fn upgrades(announced: bool) -> Result<(Summary, Vec<Duration>)> {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, TASKS)?;
    web.sim.control("announcements", &json!({ "sent": announced }))?;
    let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
    let load = lab.load(URL, &["--threads", "8", "--linger0", "--rate", RATE])?;
    let mut waits = Vec::new();
    for nth in 0..UPGRADES * TASKS {
        web.scale()?;
        let now: Vec<_> = (nth..=nth + TASKS).collect();
        web.when_active(&now)?;
        waits.push(end(&mut web, &maps, nth, announced)?);
        web.when_active(&now[1..])?;
    }
    Ok((load.finish()?, waits))
}

/// Marathon ends a task. A real one announces the end 20 to 270 ms before SIGTERM. Here SIGTERM comes when the task has
/// no connections any more, since a busy machine stretches the agent's time too. Without an announcement nothing tells
/// how long to wait, and SIGTERM comes with `TASK_KILLING`, as it does beside a real Marathon.
fn end(web: &mut Cluster<'_>, maps: &Maps, nth: usize, announced: bool) -> Result<Duration> {
    let (task, before) = (web.tasks[nth].clone(), maps.slot_range(0).context("no service")?);
    let begun = Instant::now();
    web.sim.control("kill", &json!({ "task": task }))?;
    let mut wait = Duration::ZERO;
    if announced {
        eventually("the announced task drains", PATIENCE, || maps.slot_range(0).filter(|now| *now != before))?;
        wait = begun.elapsed();
        let leaves = web.replicas[nth].address;
        web.lab.service_when("the task that leaves drains and has no connections", APP, |web| {
            let it = web.backends.iter().find(|it| (it.address, it.port) == (leaves.ip(), leaves.port()));
            it.is_some_and(|it| it.state == "draining" && it.active == 0)
        })?;
    }
    web.replicas[nth].process.signal(Signal::SIGTERM)?;
    web.sim.state(&task, "TASK_KILLING")?;
    let left = web.replicas[nth].process.wait(PATIENCE)?;
    ensure!(left.success(), "the replica failed: {left}");
    web.sim.state(&task, "TASK_KILLED")?;
    Ok(wait)
}
