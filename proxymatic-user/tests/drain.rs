//! Drains by the operator, on a data plane in memory: they outlast every plan and every agent.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use proxymatic_common::BackendState;
use proxymatic_user::{
    agent::{Agent, Event},
    dataplane::{Faults, MapWriter as _, Memory},
    model::{Backend, Protocol, Service, ServiceKey, Snapshot, State, Weight},
    plan::{Capacity, Desired, MapOp, MapState, plan},
    source::{Report, SourceId},
    state::Drained,
};

const MARATHON: [SourceId; 1] = [SourceId::Marathon];

/// Marathon answers with these tasks: name, host number and state.
fn answer(agent: &mut Agent<Memory>, tasks: &[(&str, u8, State)], now: Instant) {
    let backend = |(task, host, state): &(&str, u8, State)| Backend {
        task: (*task).into(),
        address: IpAddr::from([10, 0, 0, *host]),
        port: 31_000,
        weight: Weight::default(),
        maxconn: 0,
        state: *state,
    };
    let service = Service { name: "/web".into(), backends: tasks.iter().map(backend).collect(), ..Service::default() };
    let services = BTreeMap::from([(ServiceKey::host(1234, Protocol::Tcp), service.into())]);
    let snapshot = Snapshot { services, warnings: Vec::new() };
    agent.handle(Event::Source(Report::Snapshot { source: SourceId::Marathon, snapshot, at: now }), now);
}

const TWO: [(&str, u8, State); 2] = [("a", 1, State::Active), ("b", 2, State::Active)];

fn agent() -> (Agent<Memory>, Instant) {
    let plane = Memory::new(Capacity::default(), Faults { one_in: 0, seed: 0 });
    let (mut agent, now) = (Agent::adopt(plane, &MARATHON).unwrap(), Instant::now());
    answer(&mut agent, &TWO, now);
    (agent, now)
}

fn id(tables: &MapState, task: &str) -> u32 {
    *tables.backends().iter().find(|(_, entry)| entry.task == task).unwrap().0
}

/// Writes the drain as `backend drain` does.
fn drain(agent: &mut Agent<Memory>, task: &str) {
    let id = id(agent.tables(), task);
    let generation = agent.tables().backends()[&id].backend.generation;
    agent.plane_mut().drained.insert(id, generation);
}

fn state(tables: &MapState, task: &str) -> BackendState {
    tables.backends()[&id(tables, task)].backend.state
}

/// Returns the tasks that have slots.
fn drawn(tables: &MapState) -> BTreeSet<&str> {
    let range = tables.services().values().next().unwrap().slot_range;
    tables.slots_of(range).iter().map(|slot| tables.backends()[&slot.backend()].task.as_str()).collect()
}

#[test]
fn drained_backend_loses_its_slots_and_no_plan_returns_them() {
    let (mut agent, now) = agent();
    drain(&mut agent, "a");
    agent.handle(Event::Tick, now + Duration::from_secs(1));
    assert_eq!((state(agent.tables(), "a"), drawn(agent.tables())), (BackendState::DRAINING, ["b"].into()));
    answer(&mut agent, &[TWO[0], TWO[1], ("c", 3, State::Active)], now);
    assert_eq!((state(agent.tables(), "a"), drawn(agent.tables())), (BackendState::DRAINING, ["b", "c"].into()));
}

#[test]
fn undrained_backend_gets_the_current_state_of_its_source() {
    for (current, becomes) in [(State::Active, BackendState::ACTIVE), (State::Warming, BackendState::WARMING)] {
        let (mut agent, now) = agent();
        drain(&mut agent, "a");
        agent.handle(Event::Tick, now);
        answer(&mut agent, &[("a", 1, current), TWO[1]], now);
        agent.plane_mut().drained.clear();
        agent.handle(Event::Tick, now + Duration::from_secs(1));
        assert_eq!(state(agent.tables(), "a"), becomes);
    }
}

#[test]
fn next_agent_keeps_drained_backends() {
    let (mut agent, now) = agent();
    drain(&mut agent, "a");
    agent.handle(Event::Tick, now);
    let mut plane = Memory::new(Capacity::default(), Faults { one_in: 0, seed: 0 });
    agent.plane().applied.iter().for_each(|op| plane.apply(op).unwrap());
    plane.drained.clone_from(&agent.plane().drained);
    let mut next = Agent::adopt(plane, &MARATHON).unwrap();
    // The adopted snapshot has the state of the source, not that of the operator.
    let adopted = next.adopted(SourceId::Marathon);
    assert!(adopted.services.values().all(|it| it.backends.iter().all(|backend| backend.state == State::Active)));
    answer(&mut next, &TWO, now);
    assert_eq!((state(next.tables(), "a"), drawn(next.tables())), (BackendState::DRAINING, ["b"].into()));
}

/// Returns the state file's entry for a drained task.
fn saved(task: &str, host: u8) -> BTreeSet<Drained> {
    let (service, address) = (ServiceKey::host(1234, Protocol::Tcp), IpAddr::from([10, 0, 0, host]));
    [Drained { service, task: task.into(), address, port: 31_000 }].into()
}

fn on_new_maps(drained: BTreeSet<Drained>) -> (Agent<Memory>, Instant) {
    let plane = Memory::new(Capacity::default(), Faults { one_in: 0, seed: 0 });
    (Agent::adopt(plane, &MARATHON).unwrap().with_drained(drained), Instant::now())
}

#[test]
fn new_maps_drain_saved_backends_with_the_first_plan() {
    let (mut agent, now) = on_new_maps(saved("a", 1));
    answer(&mut agent, &TWO, now);
    assert_eq!((state(agent.tables(), "a"), drawn(agent.tables())), (BackendState::DRAINING, ["b"].into()));
    let a = id(agent.tables(), "a");
    assert_eq!(agent.plane().drained, [(a, agent.tables().backends()[&a].backend.generation)].into());
    // The operator can end it like any other drain.
    agent.plane_mut().drained.clear();
    agent.handle(Event::Tick, now + Duration::from_secs(1));
    assert_eq!(drawn(agent.tables()), ["a", "b"].into());
}

#[test]
fn saved_drain_of_a_gone_task_is_dropped() {
    let (mut agent, now) = on_new_maps(saved("gone", 1));
    answer(&mut agent, &TWO, now);
    assert_eq!((drawn(agent.tables()), agent.plane().drained.len()), (["a", "b"].into(), 0));
    // Nor does it apply to a task of that name that comes later: all sources had answered by then.
    answer(&mut agent, &[("gone", 1, State::Active), TWO[1]], now);
    assert_eq!(drawn(agent.tables()), ["b", "gone"].into());
}

#[test]
fn complete_maps_win_over_saved_drains() {
    let mut plane = Memory::new(Capacity::default(), Faults { one_in: 0, seed: 0 });
    plane.complete = true;
    let mut agent = Agent::adopt(plane, &MARATHON).unwrap().with_drained(saved("a", 1));
    answer(&mut agent, &TWO, Instant::now());
    assert_eq!(drawn(agent.tables()), ["a", "b"].into());
}

#[test]
fn drain_ends_with_its_backend_if_a_task_gets_its_address() {
    let (mut agent, now) = agent();
    drain(&mut agent, "a");
    agent.handle(Event::Tick, now);
    answer(&mut agent, &[TWO[1], ("d", 1, State::Active)], now);
    assert_eq!(drawn(agent.tables()), ["b", "d"].into());
    agent.handle(Event::Tick, now + Duration::from_secs(1));
    assert!(agent.plane().drained.is_empty(), "forgotten");
}

#[test]
fn service_with_all_backends_drained_still_has_slots() {
    let (mut agent, now) = agent();
    drain(&mut agent, "a");
    drain(&mut agent, "b");
    agent.handle(Event::Tick, now);
    assert_eq!(drawn(agent.tables()), ["a", "b"].into());
}

#[test]
fn plan_from_maps_alone_writes_only_the_drain() {
    let (agent, _) = agent();
    let mut tables = agent.tables().clone();
    assert_eq!(plan(&Desired::from_maps(&tables, BTreeSet::new()), &tables).ops, []);
    let before = tables.clone();
    let drained: BTreeSet<_> = [id(&tables, "a")].into();
    for op in plan(&Desired::from_maps(&tables, drained.clone()), &tables).ops {
        assert!(matches!(op, MapOp::PutSlots(..) | MapOp::PutSlotRange(..) | MapOp::DemoteBackend(..)), "{op}");
        tables.apply(&op);
        assert!(!drawn(&tables).is_empty());
    }
    assert_eq!((state(&tables, "a"), drawn(&tables)), (BackendState::DRAINING, ["b"].into()));
    assert_eq!(plan(&Desired::from_maps(&tables, drained), &tables).ops, [], "once");
    for op in plan(&Desired::from_maps(&tables, BTreeSet::new()), &tables).ops {
        tables.apply(&op);
    }
    assert_eq!((state(&tables, "a"), drawn(&tables)), (state(&before, "a"), drawn(&before)));
}
