//! Failing replicas cost one connect, are probed by the agent, and get connections again when they answer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use proxymatic_user::dataplane::kernel::{Maps, Pins};

use crate::fixtures::cluster::{Cluster, eject_for_an_hour, ejected_for, when_ejected};

/// Longer than the kernel alone, or a crashed agent, keeps a backend out.
const KEPT_OUT: Duration = Duration::from_secs(6);

#[test]
fn crashed_replica_costs_one_connect_and_is_readmitted_once() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 4)?;
    web.replicas[0].process.kill9()?;
    let seen = web.ask(400)?;
    assert_eq!((seen.failed, seen.errors.get("ECONNREFUSED")), (1, Some(&1)), "{seen:?}");
    assert!(seen.by_replica.keys().eq(["b", "c", "d"]), "{seen:?}");
    assert_eq!(failed_within(&web, KEPT_OUT)?, 0, "connects that were spent on it");

    let _back = lab.replica(2, web.replicas[0].address.port(), "a")?;
    eventually_ok("a gets connections again", PATIENCE, || {
        let seen = web.ask(8)?;
        ensure!(seen.failed == 0 && seen.by_replica.contains_key("a"), "{seen:?}");
        Ok(())
    })?;
    let times = ["ejected until it answers", "readmitted"].map(|words| web.agent.logged(words));
    assert_eq!(times.into_iter().collect::<anyhow::Result<Vec<_>>>()?, [1, 1], "{}", web.agent.log());
    Ok(())
}

#[test]
fn replica_ejected_for_long_leaves_the_slots_until_it_answers() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 4)?;
    let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
    let slots = || -> anyhow::Result<usize> {
        let tables = maps.tables()?;
        let service = tables.services().values().next().context("no service")?;
        Ok(tables.slots_of(service.slot_range).len())
    };
    assert_eq!(slots()?, 4);
    web.replicas[0].process.kill9()?;
    assert_eq!(web.ask(100)?.failed, 1);
    eventually_ok("it leaves the slots", 2 * PATIENCE, || {
        ensure!(slots()? == 3, "{} slots", slots()?);
        Ok(())
    })?;
    let _back = lab.replica(2, web.replicas[0].address.port(), "a")?;
    eventually_ok("it returns to the slots", PATIENCE, || {
        ensure!(slots()? == 4, "{} slots", slots()?);
        Ok(())
    })?;
    web.answers_come_from(&["a", "b", "c", "d"])?;
    Ok(())
}

#[test]
fn agent_keeps_out_what_was_ejected_before_its_start() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 4)?;
    web.agent.kill9()?;
    web.replicas[0].process.kill9()?;
    when_ejected(&lab, &mut lab.host(1).tcp_client()?)?;
    // A shorter ejection might end before the agent has started.
    eject_for_an_hour(&lab, web.replicas[0].address)?;
    web.start_agent()?;
    web.agent.logs("ejected until it answers", 1, PATIENCE)?;
    eventually_ok("the agent renews the ejection, each time for seconds", PATIENCE, || {
        let left = ejected_for(&lab, web.replicas[0].address)?;
        ensure!(left < Duration::from_secs(60), "{left:?}");
        Ok(())
    })?;
    assert_eq!(failed_within(&web, KEPT_OUT)?, 0, "connects that were spent on it");
    Ok(())
}

/// Returns how many connects fail within a time.
fn failed_within(web: &Cluster<'_>, time: Duration) -> anyhow::Result<u64> {
    let (begun, mut failed) = (Instant::now(), 0);
    while begun.elapsed() < time {
        failed += web.ask(100)?.failed;
    }
    Ok(failed)
}
