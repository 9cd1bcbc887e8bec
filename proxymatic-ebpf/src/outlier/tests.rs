//! Tests of ejection and of round trip times.

use std::vec::Vec;

use proxymatic_common::{Slot, Socket};

use super::*;
use crate::{
    Choice, Environment as _, Verdict,
    hash::hash64,
    on_connect, on_release, route,
    testing::{
        FakeCaller,
        tables::{FakeTables, flow},
    },
};

fn connect(tables: &FakeTables) -> (Socket, Choice) {
    let (mut socket, flow) = (Socket::NEW, flow("127.0.0.1", 1234));
    let Verdict::Translate(choice) = route(tables, &FakeCaller::default(), &flow) else { panic!("not translated") };
    on_connect(tables, &mut socket, &flow, &choice);
    (socket, choice)
}

/// Connects until a backend is selected, and makes that connection fail.
fn fail(tables: &FakeTables, backend: u32) {
    for _ in 0..10_000 {
        let (mut socket, choice) = connect(tables);
        if choice.backend == backend {
            on_connect_failed(tables, &mut socket);
        }
        on_release(tables, &mut socket);
        if choice.backend == backend {
            return;
        }
    }
    panic!("backend {backend} was never drawn");
}

fn counted(tables: &FakeTables, reason: Reason) -> u64 {
    tables.counted().iter().find(|(counted, _)| *counted == reason).map_or(0, |(_, n)| *n)
}

/// Returns for how many seconds from now a backend is ejected.
fn ejected(tables: &FakeTables, backend: usize) -> f64 {
    tables.backend_stats[backend].ejected_until.get().saturating_sub(tables.now()) as f64 / 1e9
}

#[test]
fn ejection_time_doubles_up_to_thirty_seconds() {
    let tables = FakeTables::with_weights(&[1, 1]);
    for wanted in [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0] {
        fail(&tables, 0);
        let time = ejected(&tables, 0);
        assert!(time <= wanted && time >= wanted * 0.87, "{time} for {wanted}");
        tables.pass(31.0);
    }
    assert_eq!(counted(&tables, Reason::Ejected), 7);
    let events: Vec<_> = tables.events().iter().map(|event| (event.kind, event.backend)).collect();
    assert_eq!(events, [(EventKind::FAILED, 0); 7]);
}

#[test]
fn success_ends_ejection_and_resets_backoff() {
    let tables = FakeTables::with_weights(&[1, 1]);
    fail(&tables, 0);
    tables.pass(1.0);
    fail(&tables, 0);
    tables.pass(2.0);
    let (socket, choice) = loop {
        let (socket, choice) = connect(&tables);
        if choice.backend == 0 {
            break (socket, choice);
        }
    };
    on_established(&tables, &socket, 150);
    assert_eq!((ejected(&tables, 0), tables.backend_stats[0].rtt_us.get()), (0.0, 150));
    assert_eq!(tables.backend_stats[choice.backend as usize].established.get(), 1);
    fail(&tables, 0);
    assert!(ejected(&tables, 0) <= 1.0);
}

#[test]
fn failures_before_ejection_cause_one_ejection() {
    let tables = FakeTables::with_weights(&[1, 1]);
    let mut sockets: Vec<_> = (0..20).map(|_| connect(&tables)).filter(|(_, choice)| choice.backend == 0).collect();
    for (socket, _) in &mut sockets {
        on_connect_failed(&tables, socket);
    }
    assert_eq!(tables.backend_stats[0].failed.get(), sockets.len() as u64);
    assert_eq!((counted(&tables, Reason::Ejected), tables.backend_stats[0].consecutive_failures.get()), (1, 1));
}

#[test]
fn close_within_a_second_does_not_blame_the_backend() {
    let tables = FakeTables::with_weights(&[1, 1]);
    for (waited, reason) in [(0.2, Reason::Abandoned), (1.2, Reason::Failed)] {
        let (mut socket, _) = connect(&tables);
        tables.pass(waited);
        on_release(&tables, &mut socket);
        on_connect_failed(&tables, &mut socket);
        assert_eq!(counted(&tables, reason), 1, "after {waited} s: {:?}", tables.counted());
    }
}

#[test]
fn at_most_half_of_backends_are_ejected_for_any_weights() {
    for weights in [&[1, 1, 1, 1][..], &[1, 9], &[9, 1], &[1; 5], &[1, 1, 30, 30]] {
        let tables = FakeTables::with_weights(weights);
        for (id, _) in weights.iter().enumerate() {
            // By a direct call: an ejected backend is not selected any more.
            eject(&tables, 0, id as u32);
        }
        let out = (0..weights.len()).filter(|id| ejected(&tables, *id) > 0.0).count();
        assert_eq!(out, weights.len() / 2, "{weights:?}");
        assert_eq!(counted(&tables, Reason::EjectionCapped), (weights.len() - out) as u64);
    }
}

#[test]
fn ejection_cap_holds_on_a_sample_of_slots() {
    // As many slots as an exposed service has: 2039, a prime, shuffled.
    for backends in 2..=6_u32 {
        let (mut allowed, mut more) = (0, 0);
        for run in 0..500_u32 {
            let mut tables = FakeTables::with_weights(&std::vec![1; backends as usize]);
            let shuffled = |at: u32| hash64(u64::from(at), u64::from(run)) as u32 % backends;
            tables.slots = (0..2_039).map(|at| Slot::new(shuffled(at), 7)).collect();
            tables.slot_ranges[0] = SlotRange::new(1, 2_039, 0).unwrap();
            // Other random numbers for each run.
            for _ in 0..run {
                let _ = tables.random();
            }
            (0..backends / 2 - 1).for_each(|id| tables.backend_stats[id as usize].ejected_until.set(u64::MAX));
            allowed += u32::from(eject(&tables, 0, backends / 2 - 1) != 0);
            tables.backend_stats[backends as usize / 2 - 1].ejected_until.set(u64::MAX);
            more += u32::from(eject(&tables, 0, backends / 2) != 0);
        }
        std::println!("{backends} backends: {allowed} of 500 to half, {more} beyond");
        assert!(allowed >= 450 && more <= 50, "{backends} backends: {allowed} of 500 to half, {more} beyond");
    }
}

#[test]
fn failed_connection_is_closed_though_socket_stays() {
    let tables = FakeTables::with_weights(&[1]);
    let (mut socket, _) = connect(&tables);
    on_connect_failed(&tables, &mut socket);
    assert_eq!((tables.backend_stats[0].active(), tables.service_stats.active()), (0, 0));
    on_release(&tables, &mut socket);
    assert_eq!(tables.backend_stats[0].closed.get(), 1, "once");
}

#[test]
fn only_backend_is_never_ejected() {
    let tables = FakeTables::with_weights(&[1]);
    fail(&tables, 0);
    assert_eq!((ejected(&tables, 0), counted(&tables, Reason::EjectionCapped)), (0.0, 1));
}

#[test]
fn rtt_average_rises_at_once_and_falls_slowly() {
    let tables = FakeTables::with_weights(&[1]);
    let (socket, _) = connect(&tables);
    let after = |rtt| {
        on_established(&tables, &socket, rtt);
        tables.backend_stats[0].rtt_us.get()
    };
    assert_eq!([after(200), after(8_200), after(200)], [200, 8_200, 7_200]);
    tables.pass(10.0);
    let (socket, _) = connect(&tables);
    on_established(&tables, &socket, 200);
    let half = tables.backend_stats[0].rtt_us.get();
    assert!((3_690..=3_710).contains(&half), "{half}");
}

#[test]
fn results_for_id_with_new_owner_are_ignored() {
    let mut tables = FakeTables::with_weights(&[1, 1]);
    let (mut socket, choice) = connect(&tables);
    tables.backends[choice.backend as usize].generation += 1;
    on_connect_failed(&tables, &mut socket);
    on_established(&tables, &socket, 100);
    let stats = &tables.backend_stats[choice.backend as usize];
    assert_eq!((stats.failed.get(), stats.established.get(), stats.rtt_us.get()), (0, 0, 0));
}

#[test]
fn rtt_histogram_steps_are_inclusive() {
    let tables = FakeTables::with_weights(&[1]);
    for rtt in [0, 1, 100, 101, 400, 102_400, 102_401, u32::MAX] {
        let (socket, _) = connect(&tables);
        on_established(&tables, &socket, rtt);
    }
    let stats = &tables.backend_stats[0];
    assert_eq!(stats.rtts.each_ref().map(proxymatic_common::Cell64::get), [2, 2, 0, 0, 0, 1, 2]);
    assert_eq!(stats.rtt_sum_us.get(), 1 + 100 + 101 + 400 + 102_400 + 102_401 + u64::from(u32::MAX));
    stats.reset();
    assert!(stats.rtts.iter().all(|cell| cell.get() == 0) && stats.rtt_sum_us.get() == 0);
}
