//! Tests of the selection of a backend.

use std::{
    collections::{BTreeSet, VecDeque},
    vec,
    vec::Vec,
};

use proxymatic_common::{Backend, BackendState, Families, SlotRange};

use super::*;
use crate::{Environment as _, testing::tables::FakeTables};

fn draw(tables: &FakeTables) -> Result<(u32, Reason), Reason> {
    by(tables, 0)
}

fn by(tables: &FakeTables, hash: u64) -> Result<(u32, Reason), Reason> {
    select(tables, 0, SelectParams::new(tables.service.policy, Families::V4, false), hash)
}

/// Returns the shares in percent of 50,000 connections, of which `held` are open at any time.
fn shares(tables: &FakeTables, held: usize) -> Vec<f64> {
    let (mut open, mut counts) = (VecDeque::new(), vec![0_u32; tables.backends.len()]);
    for _ in 0..50_000 {
        let id = draw(tables).unwrap().0 as usize;
        tables.backend_stats[id].opened.add(1);
        counts[id] += 1;
        open.push_back(id);
        if open.len() > held {
            tables.backend_stats[open.pop_front().unwrap()].closed.add(1);
        }
    }
    counts.iter().map(|n| f64::from(*n) / 500.0).collect()
}

#[test]
fn shares_follow_weights_idle_or_busy() {
    // With one or two held, the load of the busy backend outweighs any weight.
    for policy in [Policy::LEASTCONN, Policy::RANDOM, Policy::ROUNDROBIN, Policy::LATENCY] {
        for held in [0, 10, 100] {
            if held != 0 && policy == Policy::LATENCY {
                continue;
            }
            let tables = FakeTables::with_weights(&[1, 3, 6]).policy(policy);
            for (share, expected) in shares(&tables, held).into_iter().zip([10.0, 30.0, 60.0]) {
                assert!(
                    (share - expected).abs() < 2.0,
                    "{} with {held} held: {share:.1} for {expected}",
                    policy.name()
                );
            }
        }
    }
}

#[test]
fn busier_of_two_backends_gets_nothing() {
    let tables = FakeTables::with_weights(&[1, 1]);
    tables.backend_stats[0].opened.add(1);
    for _ in 0..1000 {
        assert_eq!(draw(&tables).unwrap().0, 1);
    }
}

#[test]
fn load_is_compared_in_proportion_to_weight() {
    let mut tables = FakeTables::with_weights(&[1, 1]);
    for (backend, weight) in tables.backends.iter_mut().zip([300, 100]) {
        (backend.weight, backend.inverse_weight) = (weight, Backend::inverse_weight(weight));
    }
    tables.backend_stats[0].opened.add(5);
    tables.backend_stats[1].opened.add(2);
    for _ in 0..100 {
        assert_eq!(draw(&tables).unwrap().0, 0, "5 of 300 is less than 2 of 100");
    }
}

#[test]
fn equal_load_per_weight_is_a_tie() {
    let mut tables = FakeTables::with_weights(&[1, 1]);
    for (backend, weight) in tables.backends.iter_mut().zip([300, 100]) {
        (backend.weight, backend.inverse_weight) = (weight, Backend::inverse_weight(weight));
    }
    tables.backend_stats[0].opened.add(3);
    tables.backend_stats[1].opened.add(1);
    let first = (0..1000).filter(|_| draw(&tables).unwrap().0 == 0).count();
    assert!((400..600).contains(&first), "{first} of 1000");
}

#[test]
fn one_more_connection_counts_at_any_weight_and_load() {
    for (weight, open) in [(1000, 0), (1000, 100_000), (1, 0), (1, 8_000)] {
        let mut tables = FakeTables::with_weights(&[1, 1]);
        for backend in &mut tables.backends {
            (backend.weight, backend.inverse_weight) = (weight, Backend::inverse_weight(weight));
        }
        tables.backend_stats[0].opened.add(open + 1);
        tables.backend_stats[1].opened.add(open);
        for _ in 0..20 {
            assert_eq!(draw(&tables).unwrap().0, 1, "weight {weight}, {open} open");
        }
    }
}

#[test]
fn round_robin_takes_turns_and_skips_ineligible() {
    let mut tables = FakeTables::with_weights(&[1, 1, 1]).policy(Policy::ROUNDROBIN);
    let turns = |tables: &FakeTables, n| (0..n).map(|_| draw(tables).unwrap().0).collect::<Vec<_>>();
    assert_eq!(turns(&tables, 6), [0, 1, 2, 0, 1, 2]);
    tables.backends[1].state = BackendState::DRAINING;
    assert_eq!(turns(&tables, 6), [0, 2, 2, 0, 2, 2]);
}

#[test]
fn hash_selects_same_backend_while_it_is_eligible() {
    for policy in [Policy::SOURCE, Policy::MAGLEV] {
        let tables = FakeTables::with_weights(&[1; 20]).policy(policy);
        let of = |tables: &FakeTables| (0..2_000).map(|n| by(tables, hash64(n, 7)).unwrap().0).collect::<Vec<_>>();
        let before = of(&tables);
        assert_eq!(of(&tables), before, "the same again");
        assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 20, "all are used");
        tables.backend_stats[3].ejected_until.set(u64::MAX);
        for (was, is) in before.iter().zip(of(&tables)) {
            assert!(if *was == 3 { is != 3 } else { is == *was }, "{was} became {is}");
        }
    }
}

#[test]
fn latency_prefers_faster_backend_and_forgets_old_rtt() {
    let tables = FakeTables::with_weights(&[1, 1]).policy(Policy::LATENCY);
    for (load, rtt) in tables.backend_stats.iter().zip([100_000, 200]) {
        load.rtt_us.set(rtt);
        load.rtt_at.set(tables.now());
    }
    assert_eq!(shares(&tables, 0), [0.0, 100.0]);
    tables.backend_stats[0].rtt_us.set(201);
    assert_eq!(shares(&tables, 0), [0.0, 100.0], "a microsecond more");
    tables.pass(100_000.0);
    tables.backend_stats[1].rtt_at.set(tables.now());
    assert_eq!(draw(&tables).unwrap().0, 0, "slow long ago may be fast now");
}

#[test]
fn backend_at_maxconn_is_skipped_and_all_full_is_a_reason() {
    let mut tables = FakeTables::with_weights(&[1, 1]);
    for (backend, load) in tables.backends.iter_mut().zip(&tables.backend_stats) {
        backend.maxconn = 2;
        load.opened.add(1);
    }
    tables.backend_stats[0].opened.add(1);
    for _ in 0..100 {
        assert_eq!(draw(&tables).unwrap().0, 1);
    }
    tables.backend_stats[1].opened.add(1);
    assert_eq!(draw(&tables), Err(Reason::BackendsFull));
    // Panic mode never exceeds maxconn.
    tables.backend_stats[0].ejected_until.set(u64::MAX);
    assert_eq!(draw(&tables), Err(Reason::BackendsFull));
    tables.backend_stats[0].ejected_until.set(0);
    tables.backend_stats[0].closed.add(1);
    assert_eq!(draw(&tables).unwrap().0, 0);
}

#[test]
fn ejected_backend_is_skipped_unless_nothing_else_is_left() {
    let mut tables = FakeTables::with_weights(&[1, 1]);
    tables.backend_stats[0].ejected_until.set(tables.now() + 1_000_000_000);
    for _ in 0..100 {
        assert_eq!(draw(&tables), Ok((1, Reason::Translated)));
    }
    tables.backends[1].state = BackendState::FREE;
    assert_eq!(draw(&tables), Ok((0, Reason::PanicMode)));
    tables.pass(1.0);
    assert_eq!(draw(&tables), Ok((0, Reason::Translated)));
}

#[test]
fn draining_backend_is_last_but_before_ejected() {
    let mut tables = FakeTables::with_weights(&[1, 1]);
    tables.backends[0].state = BackendState::DRAINING;
    for _ in 0..100 {
        assert_eq!(draw(&tables), Ok((1, Reason::Translated)));
    }
    tables.backend_stats[1].ejected_until.set(u64::MAX);
    assert_eq!(draw(&tables), Ok((0, Reason::Drained)));
}

#[test]
fn stale_slot_range_does_not_refuse_a_connect() {
    for state in [BackendState::WARMING, BackendState::GONE] {
        let mut tables = FakeTables::with_weights(&[1, 1]);
        tables.backends.iter_mut().for_each(|backend| backend.state = state);
        assert_eq!(draw(&tables).map(|(_, reason)| reason), Ok(Reason::Drained), "{state:?}");
    }
}

#[test]
fn free_and_unknown_states_are_ineligible() {
    for state in [BackendState::FREE, BackendState(99)] {
        let mut tables = FakeTables::with_weights(&[1]);
        tables.backends[0].state = state;
        assert_eq!(draw(&tables), Err(Reason::NoBackend), "{state:?}");
    }
}

#[test]
fn backend_of_other_family_is_ineligible() {
    let tables = FakeTables::with_weights(&[1, 1]);
    let of = |families| select(&tables, 0, SelectParams::new(Policy::LEASTCONN, families, false), 0);
    assert_eq!(of(Families::V6), Err(Reason::NoBackend));
    assert!(of(Families::BOTH).is_ok());
}

#[test]
fn slot_of_earlier_owner_is_skipped_and_counted() {
    let mut tables = FakeTables::with_weights(&[1, 1]);
    tables.backends[0].generation += 1;
    for _ in 0..100 {
        assert_eq!(draw(&tables).unwrap().0, 1);
    }
    assert!(tables.counted().iter().any(|(reason, n)| *reason == Reason::StaleSlot && *n > 0));
}

#[test]
fn slots_and_ids_outside_the_maps_are_ineligible() {
    let mut tables = FakeTables::with_weights(&[1]);
    tables.slot_ranges[0] = SlotRange::new(0, 20, 5).unwrap();
    assert_eq!(draw(&tables), Err(Reason::NoBackend));
}

#[test]
fn unknown_policy_draws_one_slot_by_weight() {
    let tables = FakeTables::with_weights(&[1, 1]).policy(Policy(200));
    assert!(draw(&tables).is_ok());
}

#[test]
fn counters_read_at_different_times_never_wrap() {
    let tables = FakeTables::with_weights(&[1]);
    tables.backend_stats[0].closed.add(1);
    assert_eq!(tables.backend_stats[0].active(), 0);
}
