//! Replicas that fail cost one connect, are probed by the agent, and get connections again when they answer.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use proxymatic_user::dataplane::kernel::{Maps, Pins};

use crate::served::Served;

#[test]
fn measured_a_replica_that_crashes_costs_one_connect_and_is_readmitted_within_a_second_of_its_return() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Served::start(&lab, 4)?;
    web.replicas[0].process.kill9()?;
    let seen = web.ask(400)?;
    assert_eq!((seen.failed, seen.errors.get("ECONNREFUSED")), (1, Some(&1)), "{seen:?}");
    assert!(seen.by_replica.keys().eq(["b", "c", "d"]), "{seen:?}");

    // Longer than the kernel alone would keep it out.
    let (crashed, mut more) = (Instant::now(), 0);
    while crashed.elapsed() < Duration::from_secs(6) {
        let seen = web.ask(100)?;
        more += seen.failed;
    }
    assert_eq!(more, 0, "connects that were spent on it");

    let _back = lab.replica(2, web.replicas[0].address.port(), "a")?;
    let back = Instant::now();
    eventually_ok("a gets connections again", PATIENCE, || {
        let seen = web.ask(8)?;
        ensure!(seen.failed == 0 && seen.by_replica.contains_key("a"), "{seen:?}");
        Ok(())
    })?;
    println!("readmitted {:?} after its return", back.elapsed());
    assert!(back.elapsed() < Duration::from_millis(1_200), "{:?}", back.elapsed());
    let log = web.agent.log();
    assert_eq!(log.matches("ejected until it answers").count(), 1, "{log}");
    assert_eq!(log.matches("readmitted").count(), 1, "{log}");
    Ok(())
}

#[test]
fn a_replica_that_is_out_for_ten_seconds_leaves_the_slots_until_it_answers() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Served::start(&lab, 4)?;
    let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
    let slots = || -> anyhow::Result<usize> {
        let tables = maps.tables()?;
        let service = tables.services().values().next().context("no service")?;
        Ok(tables.slots_of(service.head).len())
    };
    assert_eq!(slots()?, 4);
    web.replicas[0].process.kill9()?;
    assert_eq!(web.ask(100)?.failed, 1);
    eventually_ok("it leaves the slots", Duration::from_secs(15), || {
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
fn an_agent_that_starts_finds_what_was_ejected_without_it() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Served::start(&lab, 4)?;
    web.agent.kill9()?;
    web.replicas[0].process.kill9()?;
    assert_eq!(web.ask(100)?.failed, 1);
    web.start_agent()?;
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(4) {
        let seen = web.ask(100)?;
        assert_eq!(seen.failed, 0, "{seen:?}");
    }
    Ok(())
}
