//! What the operator drains, on a data plane in memory: no plan undoes it, and no agent that comes after.

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

/// Tasks by name, each on the host of that number.
fn says(agent: &mut Agent<Memory>, tasks: &[(&str, u8, State)], now: Instant) {
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
    says(&mut agent, &TWO, now);
    (agent, now)
}

fn id(tables: &MapState, task: &str) -> u32 {
    *tables.backends().iter().find(|(_, entry)| entry.task == task).unwrap().0
}

/// As `backend drain` notes it.
fn drain(agent: &mut Agent<Memory>, task: &str) {
    let id = id(agent.tables(), task);
    let generation = agent.tables().backends()[&id].backend.generation;
    agent.plane_mut().drained.insert(id, generation);
}

fn state(tables: &MapState, task: &str) -> BackendState {
    tables.backends()[&id(tables, task)].backend.state
}

/// The tasks that new connections are given to.
fn drawn(tables: &MapState) -> BTreeSet<&str> {
    let head = tables.services().values().next().unwrap().head;
    tables.slots_of(head).iter().map(|slot| tables.backends()[&slot.backend()].task.as_str()).collect()
}

#[test]
fn the_next_look_round_takes_a_drained_backend_out_and_no_plan_puts_it_back() {
    let (mut agent, now) = agent();
    drain(&mut agent, "a");
    agent.handle(Event::Tick, now + Duration::from_secs(1));
    assert_eq!((state(agent.tables(), "a"), drawn(agent.tables())), (BackendState::DRAINING, ["b"].into()));
    says(&mut agent, &[TWO[0], TWO[1], ("c", 3, State::Active)], now);
    assert_eq!((state(agent.tables(), "a"), drawn(agent.tables())), (BackendState::DRAINING, ["b", "c"].into()));
}

#[test]
fn an_undrained_backend_is_what_its_source_says_by_then() {
    for (said, becomes) in [(State::Active, BackendState::ACTIVE), (State::Warming, BackendState::WARMING)] {
        let (mut agent, now) = agent();
        drain(&mut agent, "a");
        agent.handle(Event::Tick, now);
        says(&mut agent, &[("a", 1, said), TWO[1]], now);
        agent.plane_mut().drained.clear();
        agent.handle(Event::Tick, now + Duration::from_secs(1));
        assert_eq!(state(agent.tables(), "a"), becomes);
    }
}

#[test]
fn an_agent_that_starts_anew_keeps_what_is_drained() {
    let (mut agent, now) = agent();
    drain(&mut agent, "a");
    agent.handle(Event::Tick, now);
    let mut plane = Memory::new(Capacity::default(), Faults { one_in: 0, seed: 0 });
    agent.plane().applied.iter().for_each(|op| plane.apply(op).unwrap());
    plane.drained.clone_from(&agent.plane().drained);
    let mut next = Agent::adopt(plane, &MARATHON).unwrap();
    // Measured by what the source had said, not by what the operator made of it.
    let adopted = next.adopted(SourceId::Marathon);
    assert!(adopted.services.values().all(|it| it.backends.iter().all(|backend| backend.state == State::Active)));
    says(&mut next, &TWO, now);
    assert_eq!((state(next.tables(), "a"), drawn(next.tables())), (BackendState::DRAINING, ["b"].into()));
}

/// As the file has it that the task of that name is drained.
fn written(task: &str, host: u8) -> BTreeSet<Drained> {
    let (service, address) = (ServiceKey::host(1234, Protocol::Tcp), IpAddr::from([10, 0, 0, host]));
    [Drained { service, task: task.into(), address, port: 31_000 }].into()
}

fn on_new_maps(drained: BTreeSet<Drained>) -> (Agent<Memory>, Instant) {
    let plane = Memory::new(Capacity::default(), Faults { one_in: 0, seed: 0 });
    (Agent::adopt(plane, &MARATHON).unwrap().with_drained(drained), Instant::now())
}

#[test]
fn on_new_maps_what_was_written_down_is_drained_from_the_first_moment_on() {
    let (mut agent, now) = on_new_maps(written("a", 1));
    says(&mut agent, &TWO, now);
    assert_eq!((state(agent.tables(), "a"), drawn(agent.tables())), (BackendState::DRAINING, ["b"].into()));
    let a = id(agent.tables(), "a");
    assert_eq!(agent.plane().drained, [(a, agent.tables().backends()[&a].backend.generation)].into());
    // It is a wish like any other.
    agent.plane_mut().drained.clear();
    agent.handle(Event::Tick, now + Duration::from_secs(1));
    assert_eq!(drawn(agent.tables()), ["a", "b"].into());
}

#[test]
fn what_was_written_down_of_a_task_that_has_gone_drains_nobody() {
    let (mut agent, now) = on_new_maps(written("gone", 1));
    says(&mut agent, &TWO, now);
    assert_eq!((drawn(agent.tables()), agent.plane().drained.len()), (["a", "b"].into(), 0));
    // Nor does it when a task of that name comes later: all has been said by then.
    says(&mut agent, &[("gone", 1, State::Active), TWO[1]], now);
    assert_eq!(drawn(agent.tables()), ["b", "gone"].into());
}

#[test]
fn maps_that_are_complete_know_better_than_what_was_written_down() {
    let mut plane = Memory::new(Capacity::default(), Faults { one_in: 0, seed: 0 });
    plane.complete = true;
    let mut agent = Agent::adopt(plane, &MARATHON).unwrap().with_drained(written("a", 1));
    says(&mut agent, &TWO, Instant::now());
    assert_eq!(drawn(agent.tables()), ["a", "b"].into());
}

#[test]
fn a_wish_ends_with_its_backend_even_where_another_task_gets_its_place() {
    let (mut agent, now) = agent();
    drain(&mut agent, "a");
    agent.handle(Event::Tick, now);
    says(&mut agent, &[TWO[1], ("d", 1, State::Active)], now);
    assert_eq!(drawn(agent.tables()), ["b", "d"].into());
    agent.handle(Event::Tick, now + Duration::from_secs(1));
    assert!(agent.plane().drained.is_empty(), "forgotten");
}

#[test]
fn where_all_are_drained_connections_still_go_somewhere() {
    let (mut agent, now) = agent();
    drain(&mut agent, "a");
    drain(&mut agent, "b");
    agent.handle(Event::Tick, now);
    assert_eq!(drawn(agent.tables()), ["a", "b"].into());
}

#[test]
fn without_an_agent_the_same_is_planned_from_what_is_pinned_alone_and_nothing_else() {
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
