//! Failing replicas cost one connect, are probed by the agent, and get connections again when they answer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use proxymatic_tests::stalls::Stalls;
use proxymatic_user::dataplane::kernel::{Maps, Pins};

use crate::fixtures::cluster::{Cluster, eject_for_an_hour, ejected_for, when_ejected};

/// Longer than the kernel alone, or a crashed agent, keeps a backend out.
const KEPT_OUT: Duration = Duration::from_secs(6);

#[test]
fn crashed_replica_costs_one_connect_and_is_readmitted_once() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 4)?;
    let stalls = Stalls::watch();
    web.replicas[0].process.kill9()?;
    let seen = web.ask(400)?;
    assert!(seen.errors.keys().eq(["ECONNREFUSED"]) && (seen.failed == 1 || stalls.any_long()), "{seen:?}");
    if seen.failed > 1 {
        println!("{} connects were spent on it, not judged because the machine has stalled", seen.failed);
    }
    assert!(seen.by_replica.keys().eq(["b", "c", "d"]), "{seen:?}");
    none_fails_within(&web, KEPT_OUT, &stalls)?;

    let _back = lab.replica(2, web.replicas[0].address.port(), "a")?;
    eventually_ok("a gets connections again", PATIENCE, || {
        let seen = web.ask(8)?;
        ensure!(seen.failed == 0 && seen.by_replica.contains_key("a"), "{seen:?}");
        Ok(())
    })?;
    // A client may reach it before the agent has the answer to its probe.
    web.agent.logs("readmitted", 1, PATIENCE)?;
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
    assert!(web.ask(100)?.failed > 0, "no connect was spent on it");
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
    let stalls = Stalls::watch();
    web.start_agent()?;
    web.agent.logs("ejected until it answers", 1, PATIENCE)?;
    eventually_ok("the agent renews the ejection, each time for seconds", PATIENCE, || {
        let left = ejected_for(&lab, web.replicas[0].address)?;
        ensure!(left < Duration::from_secs(60), "{left:?}");
        Ok(())
    })?;
    none_fails_within(&web, KEPT_OUT, &stalls)?;
    Ok(())
}

/// Asserts that no connect fails within a time, unless the machine has stalled: then the ejection may have ended.
#[expect(clippy::print_stdout, reason = "what was not judged; the log of the test keeps it")]
fn none_fails_within(web: &Cluster<'_>, time: Duration, stalls: &Stalls) -> anyhow::Result<()> {
    let (begun, mut failed) = (Instant::now(), 0);
    while begun.elapsed() < time {
        failed += web.ask(100)?.failed;
    }
    ensure!(failed == 0 || stalls.any_long(), "{failed} connects were spent on it");
    if failed > 0 {
        println!("{failed} connects were spent on it, not judged because the machine has stalled");
    }
    Ok(())
}
