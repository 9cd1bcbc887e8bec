//! The order of writes, the reuse of ids, and what does not fit.

use std::time::{Duration, Instant};

use proxymatic_common::SourceCode;
use proxymatic_user::{
    model::{Protocol, ServiceKey},
    plan::{Capacity, Desired, MapState, Quarantine, plan},
};

use super::{
    active, one_service, printed, publish,
    strategies::{service, small},
};

#[test]
fn new_service_is_published_by_the_last_write() {
    let mut tables = small();
    expect_test::expect![[r#"
        reset counters of backend 0
        reset counters of backend 1
        reset counters of service 0
        name backend 0 a
        name backend 1 b
        put backend 0 10.0.0.1:31000 active weight 500
        put backend 1 10.0.0.2:31000 active weight 500
        put slots 0..2
        put service 0 leastconn connect 3000ms
        name service 0 /app
        switch service 0 to 2 slots from 0
        set port 1234/tcp
        put frontend 1234/tcp class 1 service 0
    "#]]
    .assert_eq(&publish(&mut tables, &one_service(vec![active("a", 1), active("b", 2)])));
}

#[test]
fn ended_task_leaves_the_slots_before_it_becomes_gone() {
    let mut tables = small();
    publish(&mut tables, &one_service(vec![active("a", 1), active("b", 2)]));
    expect_test::expect![[r#"
        put slots 2..3
        switch service 0 to 1 slots from 2
        demote backend 0 10.0.0.1:31000 gone weight 500
    "#]]
    .assert_eq(&publish(&mut tables, &one_service(vec![active("b", 2)])));
}

#[test]
fn ended_service_is_withdrawn_first() {
    let mut tables = small();
    publish(&mut tables, &one_service(vec![active("a", 1)]));
    expect_test::expect![[r#"
        delete frontend 1234/tcp class 1
        clear port 1234/tcp
        demote backend 0 10.0.0.1:31000 gone weight 500
    "#]]
    .assert_eq(&publish(&mut tables, &Desired::default()));
}

#[test]
fn ids_stay_in_quarantine_for_five_seconds_and_while_in_use() {
    let mut tables = small();
    let mut quarantine = Quarantine::default();
    publish(&mut tables, &one_service(vec![active("a", 1), active("b", 2)]));
    publish(&mut tables, &one_service(vec![active("b", 2)]));
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(quarantine.release(&tables, |_| 0, at(0)), []);
    assert_eq!(quarantine.release(&tables, |_| 0, at(4)), []);
    let ops = quarantine.release(&tables, |_| 1, at(5));
    assert_eq!(printed(&ops), "clear slots 0..2\n", "a socket still uses the backend");
    ops.iter().for_each(|op| tables.apply(op));
    let ops = quarantine.release(&tables, |_| 0, at(60));
    assert_eq!(printed(&ops), "delete name of backend 0\nfree backend 0\n");
    ops.iter().for_each(|op| tables.apply(op));
    // The next owner of the id has another generation, which no slot and no socket of the first owner matches.
    publish(&mut tables, &one_service(vec![active("b", 2), active("c", 3)]));
    assert_eq!(tables.backends()[&0].backend.generation, 2);
}

#[test]
fn new_task_on_the_address_of_an_ended_one_is_another_backend() {
    let mut tables = small();
    publish(&mut tables, &one_service(vec![active("a", 1)]));
    publish(&mut tables, &one_service(vec![active("z", 1)]));
    let entries = tables.backends().values();
    let states: Vec<_> = entries.map(|entry| (entry.task.as_str(), entry.backend.state.name())).collect();
    assert_eq!(states, [("a", "gone"), ("z", "active")]);
}

#[test]
fn service_that_does_not_fit_is_left_out_completely() {
    for (capacity, word) in [
        (Capacity { services: 1, ..small().capacity }, "--max-services"),
        (Capacity { backends: 1, ..small().capacity }, "--max-backends"),
        (Capacity { slots: 1, ..small().capacity }, "--max-slots"),
    ] {
        let mut tables = MapState::new(capacity);
        let mut desired = one_service(vec![active("a", 1)]);
        let key = ServiceKey::host(4321, Protocol::Tcp);
        desired.services.insert(key, (SourceCode::MARATHON, service(vec![active("b", 2), active("c", 3)]).into()));
        let planned = plan(&desired, &tables);
        assert_eq!(planned.warnings.len(), 1, "{:?}", planned.warnings);
        assert!(planned.warnings[0].reason.contains(word), "{:?}", planned.warnings);
        planned.ops.iter().for_each(|op| tables.apply(op));
        assert_eq!(tables.frontends().len(), 1);
        assert_eq!(tables.backends().len(), 1, "the service must not be written in part");
    }
}

/// Otherwise each plan that stops before the address would take more service ids, until the map is full.
#[test]
fn plan_after_a_stopped_one_makes_no_frontend_twice() {
    let key = ServiceKey { address: Some([198, 51, 100, 1].into()), port: 53, protocol: Protocol::Udp };
    let services = [(key, (SourceCode::MARATHON, service(vec![active("a", 1)]).into()))].into();
    let desired = Desired { services, ..Desired::default() };
    let ops = plan(&desired, &small()).ops;
    for stop in 0..=ops.len() {
        let mut tables = small();
        ops[..stop].iter().for_each(|op| tables.apply(op));
        let next = printed(&plan(&desired, &tables).ops);
        assert!(!next.contains("delete frontend"), "after {}comes {next}", printed(&ops[..stop]));
    }
}
