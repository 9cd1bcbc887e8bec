//! The agent with several sources, on a data plane in memory: precedence, the wait for each source, and what stays while
//! one is silent.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

mod scenario;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use proxymatic_common::{AgentState, SourceCode};
use proxymatic_user::{
    agent::{Agent, Event, PATIENCE},
    dataplane::{Faults, MapWriter as _, Memory},
    model::{Backend, Protocol, Service, ServiceKey, Snapshot, State, Weight},
    plan::{Capacity, Desired, MapState, plan},
    source::{Report, SourceId},
};

use self::scenario::{Driven, NO_FAULTS, with_faults_and_without};

const ALL: &[SourceId] = &SourceId::ALL;

/// A source answers with these services: port, and name of the service and its only task.
fn answer(source: SourceId, services: &[(u16, &str)], now: Instant) -> Event {
    let services = services.iter().map(|(port, name)| (key(*port), service(name).into())).collect();
    Event::Source(Report::Snapshot { source, snapshot: Snapshot { services, warnings: Vec::new() }, at: now })
}

fn key(port: u16) -> ServiceKey {
    ServiceKey::host(port, Protocol::Tcp)
}

fn service(name: &str) -> Service {
    let backend = Backend {
        task: name.into(),
        address: IpAddr::from([10, 0, 0, 1]),
        port: 31_000,
        weight: Weight::default(),
        maxconn: 0,
        state: State::Active,
    };
    Service { name: name.into(), backends: vec![backend], ..Service::default() }
}

/// Starts an agent on maps with these services: port, name and source.
fn adopting(faults: Faults, sources: &[SourceId], held: &[(u16, &str, SourceCode)]) -> Driven {
    let mut memory = Memory::new(Capacity::default(), NO_FAULTS);
    let services = held.iter().map(|(port, name, code)| (key(*port), (*code, service(name).into()))).collect();
    for op in plan(&Desired { services, ..Desired::default() }, &memory.tables().unwrap()).ops {
        memory.apply(&op).unwrap();
    }
    memory.faults = faults;
    Driven::new(Agent::adopt(memory, sources).unwrap())
}

fn shown(tables: &MapState) -> Vec<String> {
    let entry = |(frontend, id): (&proxymatic_common::Frontend, &u32)| {
        let entry = &tables.services()[id];
        (frontend.port.get(), format!("{} {} {}", frontend.port.get(), entry.name, entry.settings.source.name()))
    };
    tables.frontends().iter().map(entry).collect::<BTreeMap<_, _>>().into_values().collect()
}

#[test]
fn first_source_has_a_service_and_the_others_get_warnings() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        // The order of the answers does not matter.
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            let mut agent = adopting(faults, ALL, &[]);
            let events = [
                answer(SourceId::File, &[(1, "file-1")], now),
                answer(SourceId::Marathon, &[(1, "/m1"), (2, "/m2")], now),
                answer(SourceId::Registrator, &[(1, "r1"), (2, "r2"), (3, "r3")], now),
            ];
            for i in order {
                agent.handle(events.get(i).map(clone).unwrap(), now);
            }
            assert_eq!(shown(agent.tables()), ["1 file-1 file", "2 /m2 marathon", "3 r3 registrator"]);
            let warnings: Vec<_> =
                agent.status(now).warnings.into_iter().map(|it| format!("{}: {}", it.app, it.reason)).collect();
            assert_eq!(
                warnings,
                [
                    "/m1: service port 1/tcp of marathon is not used: file, which comes first, has it for file-1",
                    "r1: service port 1/tcp of registrator is not used: file, which comes first, has it for file-1",
                    "r2: service port 2/tcp of registrator is not used: marathon, which comes first, has it for /m2",
                ]
            );
        }
    });
}

fn clone(event: &Event) -> Event {
    match event {
        Event::Source(report) => Event::Source(report.clone()),
        other => panic!("{other:?} is not from a source"),
    }
}

#[test]
fn service_goes_to_the_next_source_when_the_first_drops_it() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let mut agent = adopting(faults, &[SourceId::Marathon, SourceId::Registrator], &[]);
        agent.handle(answer(SourceId::Registrator, &[(1, "r1")], now), now);
        agent.handle(answer(SourceId::Marathon, &[(1, "/m1")], now), now);
        assert_eq!(shown(agent.tables()), ["1 /m1 marathon"]);
        agent.handle(answer(SourceId::Marathon, &[], now), now);
        assert_eq!(shown(agent.tables()), ["1 r1 registrator"]);
        assert_eq!(agent.status(now).warnings, []);
    });
}

#[test]
fn every_source_is_waited_for_30_s() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let mut agent = adopting(faults, &[SourceId::Marathon, SourceId::Registrator], &[]);
        agent.handle(Event::Tick, now);
        agent.handle(answer(SourceId::Registrator, &[(1, "r1")], now), now);
        let almost = now + PATIENCE - Duration::from_secs(1);
        agent.handle(Event::Tick, almost);
        assert!(shown(agent.tables()).is_empty());
        assert_eq!(agent.plane().report.unwrap().agent, AgentState::INITIALIZING);
        agent.handle(Event::Tick, now + PATIENCE);
        assert_eq!(shown(agent.tables()), ["1 r1 registrator"]);
        assert_eq!(agent.plane().report.unwrap().agent, AgentState::OK);
        let status = agent.status(now + PATIENCE);
        let answered: Vec<_> = status.sources.iter().map(|it| (it.source.as_str(), it.answered_s)).collect();
        assert_eq!(answered, [("registrator", Some(30.0)), ("marathon", None)]);
    });
}

#[test]
fn without_an_answer_nothing_is_written_for_48_hours() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let mut agent = adopting(faults, ALL, &[(1, "/m1", SourceCode::MARATHON)]);
        let written = agent.plane().applied.len();
        for hour in 0..48 {
            agent.handle(Event::Tick, now + Duration::from_secs(3600 * hour));
        }
        assert_eq!(agent.plane().applied.len(), written);
        assert_eq!(agent.plane().report.unwrap().agent, AgentState::INITIALIZING);
    });
}

#[test]
fn adopted_services_of_a_silent_source_stay() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let held =
            [(1, "/m1", SourceCode::MARATHON), (2, "r2", SourceCode::REGISTRATOR), (3, "r3", SourceCode::REGISTRATOR)];
        let mut agent = adopting(faults, &[SourceId::Marathon, SourceId::Registrator], &held);
        agent.handle(answer(SourceId::Registrator, &[(3, "r3")], now), now);
        assert_eq!(shown(agent.tables()).len(), 3, "nothing is removed before enough is known");
        let later = now + PATIENCE;
        agent.handle(Event::Tick, later);
        assert_eq!(shown(agent.tables()), ["1 /m1 marathon", "3 r3 registrator"]);
        agent.handle(answer(SourceId::Marathon, &[], later), later);
        assert_eq!(shown(agent.tables()), ["3 r3 registrator"]);
    });
}

#[test]
fn silent_source_keeps_its_ports_from_later_sources_only() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let later = now + PATIENCE;
        let held = [(1, "/m1", SourceCode::MARATHON), (2, "/m2", SourceCode::MARATHON)];
        let mut agent = adopting(faults, ALL, &held);
        agent.handle(answer(SourceId::Registrator, &[(1, "r1")], now), now);
        agent.handle(answer(SourceId::File, &[(2, "file-2")], now), now);
        agent.handle(Event::Tick, later);
        assert_eq!(shown(agent.tables()), ["1 /m1 marathon", "2 file-2 file"]);
        let warnings = agent.status(later).warnings;
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].reason.contains("marathon, which comes first, had it and has not answered"),
            "{warnings:?}"
        );
        agent.handle(answer(SourceId::Marathon, &[(5, "/m5")], later), later);
        assert_eq!(shown(agent.tables()), ["1 r1 registrator", "2 file-2 file", "5 /m5 marathon"]);
    });
}

#[test]
fn services_of_a_removed_source_go_after_all_answers() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let held = [(1, "r1", SourceCode::REGISTRATOR), (2, "/m2", SourceCode::MARATHON)];
        let mut agent = adopting(faults, &[SourceId::Marathon, SourceId::File], &held);
        agent.handle(answer(SourceId::File, &[(3, "file-3")], now), now);
        agent.handle(Event::Tick, now + PATIENCE);
        assert_eq!(shown(agent.tables()), ["1 r1 registrator", "2 /m2 marathon", "3 file-3 file"]);
        agent.handle(answer(SourceId::Marathon, &[(1, "/m1"), (2, "/m2")], now), now);
        assert_eq!(shown(agent.tables()), ["1 /m1 marathon", "2 /m2 marathon", "3 file-3 file"]);
    });
}

#[test]
fn failure_of_one_source_does_not_delay_the_others() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let mut agent = adopting(faults, &[SourceId::Marathon, SourceId::File], &[]);
        agent.handle(answer(SourceId::File, &[(1, "file-1")], now), now);
        agent.handle(answer(SourceId::Marathon, &[(2, "/m2")], now), now);
        let failure = Report::Failed {
            source: SourceId::Marathon,
            url: "http://marathon.example:8080".into(),
            reason: "http://marathon.example:8080/v2/apps refused the connection".into(),
            attempt: 1,
            again_in: Duration::from_secs(1),
        };
        agent.handle(Event::Source(failure), now);
        agent.handle(answer(SourceId::File, &[(1, "file-1"), (3, "file-3")], now), now);
        assert_eq!(shown(agent.tables()), ["1 file-1 file", "2 /m2 marathon", "3 file-3 file"]);
        let status = agent.status(now);
        let failed: Vec<_> =
            status.sources.iter().filter(|it| it.trouble.is_some()).map(|it| it.source.as_str()).collect();
        assert_eq!(failed, ["marathon"]);
    });
}
