//! The agent's loop on a data plane in memory: what it does with each event, and that it gets there in spite of faults.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

mod scenario;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use proxymatic_common::{AgentState, BackendState};
use proxymatic_user::{
    agent::{Agent, Event, GlobalSettings, PATIENCE},
    dataplane::{AgentReport, Faults, MapWriter as _, Memory},
    model::{Backend, Protocol, Service, ServiceKey, Settings, Snapshot, State, Warning, Weight},
    plan::{Capacity, Desired, MapState, plan},
    source::{Report, SourceId},
};

use self::scenario::{Driven, NO_FAULTS, with_faults_and_without};

fn agent(faults: Faults) -> Driven {
    Driven::new(Agent::adopt(Memory::new(Capacity::default(), faults), &[SourceId::Marathon]).unwrap())
}

fn snapshot(tasks: &[(&str, u8)]) -> Snapshot {
    let backend = |(task, host): &(&str, u8)| Backend {
        task: (*task).into(),
        address: IpAddr::from([10, 0, 0, *host]),
        port: 31_000,
        weight: Weight::default(),
        maxconn: 0,
        state: State::Active,
    };
    let backends = tasks.iter().map(backend).collect();
    let service = Service { name: "/web".into(), backends, ..Service::default() };
    let key = ServiceKey::host(1234, Protocol::Tcp);
    Snapshot { services: BTreeMap::from([(key, service.into())]), warnings: Vec::new() }
}

fn says(snapshot: Snapshot, at: Instant) -> Event {
    Event::Source(Report::Snapshot { source: SourceId::Marathon, snapshot, at })
}

fn trouble() -> Event {
    Event::Source(Report::Failed {
        source: SourceId::Marathon,
        url: "http://marathon.example:8080".into(),
        reason: "http://marathon.example:8080/v2/apps: connection refused".into(),
        attempt: 1,
        again_in: Duration::from_secs(1),
    })
}

/// The tasks that take new connections.
fn active(tables: &MapState) -> Vec<&str> {
    let entries = tables.backends().values().filter(|entry| entry.backend.state == BackendState::ACTIVE);
    entries.map(|entry| entry.task.as_str()).collect()
}

#[test]
fn nothing_is_written_before_the_first_complete_answer() {
    with_faults_and_without(|faults| {
        let mut agent = agent(faults);
        let now = Instant::now();
        agent.handle(Event::Addresses([IpAddr::from([192, 0, 2, 1])].into()), now);
        agent.handle(trouble(), now);
        agent.handle(Event::Tick, now);
        assert_eq!(agent.plane().applied, []);
        assert_eq!(agent.plane().report, Some(AgentReport { agent: AgentState::INITIALIZING, synced: false }));
        let status = agent.status(now);
        assert_eq!(status.state, "INITIALIZING");
        assert!(
            status.sources[0].trouble.as_ref().is_some_and(|trouble| trouble.reason.contains("connection refused"))
        );

        agent.handle(says(snapshot(&[("a", 1)]), now), now);
        assert_eq!(active(agent.tables()), ["a"]);
        assert_eq!(agent.tables().addresses().len(), 1, "what was heard of the host before is not lost");
        assert_eq!(agent.plane().report, Some(AgentReport { agent: AgentState::OK, synced: true }));
        assert_eq!(agent.status(now).sources[0].trouble, None);
    });
}

#[test]
fn connections_go_by_these_tables_only_when_every_source_has_answered_and_the_addresses_are_known() {
    let now = Instant::now();
    let mut agent =
        Agent::adopt(Memory::new(Capacity::default(), NO_FAULTS), &[SourceId::File, SourceId::Marathon]).unwrap();
    let answers = |source| Event::Source(Report::Snapshot { source, snapshot: snapshot(&[("a", 1)]), at: now });
    agent.handle(Event::Addresses([IpAddr::from([192, 0, 2, 1])].into()), now);
    agent.handle(answers(SourceId::File), now);
    let later = now + PATIENCE;
    agent.handle(Event::Tick, later);
    assert_eq!(active(agent.tables()), ["a"], "what has been told is in the tables");
    assert_eq!(agent.plane().takeovers, 0, "what Marathon would say may be served by another version");
    agent.handle(answers(SourceId::Marathon), later);
    assert_eq!(agent.plane().takeovers, 1);

    let mut agent = self::agent(NO_FAULTS);
    agent.handle(answers(SourceId::Marathon), now);
    assert_eq!(agent.plane().takeovers, 0, "the host's own addresses would lead nowhere");
    // Even where there are none.
    agent.handle(Event::Addresses([].into()), now);
    assert_eq!(agent.plane().takeovers, 1);
}

#[test]
fn the_hosts_addresses_lead_to_services_while_an_agent_that_was_restarted_does_not_know_them_yet() {
    let now = Instant::now();
    let mut first = agent(NO_FAULTS);
    first.handle(Event::Addresses([IpAddr::from([192, 0, 2, 1])].into()), now);
    first.handle(says(snapshot(&[("a", 1)]), now), now);
    let mut maps = Memory::new(Capacity::default(), NO_FAULTS);
    for op in &first.plane().applied {
        maps.apply(op).unwrap();
    }
    let mut second = Agent::adopt(maps, &[SourceId::Marathon]).unwrap();
    second.handle(says(snapshot(&[("a", 1)]), now), now);
    assert_eq!(second.tables().addresses().len(), 1);
    second.handle(Event::Addresses([IpAddr::from([192, 0, 2, 2])].into()), now);
    assert_eq!(
        second.tables().addresses().keys().map(|it| IpAddr::from(*it)).collect::<Vec<_>>(),
        [IpAddr::from([192, 0, 2, 2])]
    );
}

#[test]
fn trouble_after_an_answer_changes_nothing() {
    with_faults_and_without(|faults| {
        let mut agent = agent(faults);
        let now = Instant::now();
        agent.handle(says(snapshot(&[("a", 1), ("b", 2)]), now), now);
        let before = agent.tables().clone();
        for minute in 1..60 {
            agent.handle(trouble(), now + Duration::from_secs(60 * minute));
            agent.handle(Event::Tick, now + Duration::from_secs(60 * minute));
        }
        assert_eq!(*agent.tables(), before);
        assert_eq!(agent.status(now).state, "OK");
    });
}

#[test]
fn an_agent_that_starts_on_full_maps_writes_only_the_difference() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let mut first = agent(faults);
        first.handle(says(snapshot(&[("a", 1), ("b", 2)]), now), now);
        let mut second = Driven::new(Agent::adopt(adopted(first.tables(), faults), &[SourceId::Marathon]).unwrap());
        let already = second.plane().applied.len();
        second.handle(says(snapshot(&[("a", 1), ("b", 2)]), now), now);
        assert_eq!(second.plane().applied.len(), already, "{:?}", &second.plane().applied[already..]);
        second.handle(says(snapshot(&[("b", 2)]), now), now);
        assert_eq!(active(second.tables()), ["b"]);
    });
}

#[test]
fn what_an_agent_adopts_is_what_the_one_before_it_was_told() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let mut first = agent(faults);
        let told = snapshot(&[("a", 1), ("b", 2)]);
        first.handle(says(told.clone(), now), now);
        let second = Driven::new(Agent::adopt(adopted(first.tables(), faults), &[SourceId::Marathon]).unwrap());
        assert_eq!(second.adopted(SourceId::Marathon), told);
        assert_eq!(second.adopted(SourceId::File), Snapshot::default());
    });
}

/// A data plane that already holds what these tables do.
fn adopted(tables: &MapState, faults: Faults) -> Memory {
    let mut memory = Memory::new(tables.capacity, NO_FAULTS);
    let snapshot = snapshot(&[("a", 1), ("b", 2)]);
    let owned = |(key, service)| (key, (proxymatic_common::SourceCode::MARATHON, service));
    let desired = Desired { services: snapshot.services.into_iter().map(owned).collect(), ..Desired::default() };
    for op in plan(&desired, &memory.tables().unwrap()).ops {
        memory.apply(&op).unwrap();
    }
    assert_eq!(memory.tables().unwrap(), *tables);
    memory.faults = faults;
    memory
}

#[test]
fn with_one_write_in_ten_or_three_refused_the_maps_still_get_there() {
    // Of one in three some are refused as often as they are tried, and the plan is given up.
    for (one_in, seed) in (1..50).map(|seed| (if seed % 2 == 0 { 10 } else { 3 }, seed)) {
        let plane = Memory::new(Capacity::default(), Faults { one_in, seed });
        let mut agent = Agent::adopt(plane, &[SourceId::Marathon]).unwrap();
        let mut now = Instant::now();
        for round in 0_u8..20 {
            let tasks = [(format!("a{round}"), 1), (format!("b{}", round / 2), 2), ("c".into(), 3)];
            let tasks: Vec<(&str, u8)> = tasks.iter().map(|(task, host)| (task.as_str(), *host)).collect();
            agent.handle(says(snapshot(&tasks), now), now);
            for _ in 0..40 {
                now += Duration::from_secs(1);
                agent.handle(Event::Tick, now);
            }
            let mut wanted: Vec<&str> = tasks.iter().map(|(task, _)| *task).collect();
            let mut there = active(agent.tables());
            wanted.sort_unstable();
            there.sort_unstable();
            assert_eq!(there, wanted, "seed {seed}, round {round}");
            assert_eq!(agent.status(now).refused, None);
        }
        assert!(agent.tables().garbage().is_empty(), "{:?}", agent.tables().garbage());
    }
}

#[test]
fn warnings_of_sources_and_plans_are_in_the_status() {
    with_faults_and_without(|faults| {
        let mut agent = agent(faults);
        let now = Instant::now();
        let mut said = snapshot(&[("a", 1)]);
        let warning = Warning { app: "/odd".into(), reason: "label servicePort is not a port".into() };
        said.warnings.push(warning.clone());
        let udp = ServiceKey::host(53, Protocol::Udp);
        let settings = Settings { allow: Some(["cgroup:/gone".parse().unwrap()].into()), ..Settings::default() };
        said.services.insert(udp, Service { name: "/dns".into(), settings, ..Service::default() }.into());
        agent.handle(says(said, now), now);
        let apps: Vec<_> = agent.status(now).warnings.into_iter().map(|warning| warning.app).collect();
        assert_eq!(apps, ["/dns", "/odd"]);
    });
}

#[test]
fn what_the_operator_wishes_holds_for_all_services_and_cgroups_may_come_later() {
    with_faults_and_without(|faults| {
        let wishes =
            GlobalSettings { max_connections: 7, excluded: ["/docker".to_owned()].into(), ..GlobalSettings::default() };
        let mut plane = Memory::new(Capacity::default(), faults);
        plane.cgroups.insert("/docker".into(), 5);
        let mut agent = Driven::new(Agent::adopt(plane, &[SourceId::Marathon]).unwrap().with_settings(wishes));
        let now = Instant::now();
        let mut said = snapshot(&[("a", 1)]);
        let allow = Some(["cgroup:/mesos".parse().unwrap()].into());
        said.services
            .values_mut()
            .for_each(|service| std::sync::Arc::make_mut(service).settings.allow.clone_from(&allow));
        agent.handle(says(said, now), now);
        assert_eq!(agent.tables().services()[&0].settings.maxconn, 7);
        assert_eq!(*agent.tables().excluded(), [5].into());
        assert_eq!(agent.status(now).warnings.len(), 1, "the cgroup is not there");
        agent.plane_mut().cgroups = [("/mesos".to_owned(), 9)].into();
        agent.handle(Event::Tick, now);
        assert_eq!(agent.tables().services()[&0].allow_cgroups, [9].into());
        assert!(agent.tables().excluded().is_empty(), "and the other one went");
    });
}

#[test]
fn a_stop_is_announced_and_leaves_the_tables() {
    with_faults_and_without(|faults| {
        let mut agent = agent(faults);
        let now = Instant::now();
        agent.handle(says(snapshot(&[("a", 1)]), now), now);
        let before = agent.tables().clone();
        assert!(!agent.handle(Event::Stop, now));
        assert_eq!(agent.plane().report.map(|report| report.agent), Some(AgentState::TERMINATING));
        assert_eq!(*agent.tables(), before);
    });
}

/// What the other scenarios rest on: there are faults in what they are run with.
#[test]
fn a_scenario_with_faults_has_writes_refused() {
    let (rounds, hit) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    with_faults_and_without(|faults| {
        let mut agent = agent(faults);
        let now = Instant::now();
        agent.handle(says(snapshot(&[("a", 1), ("b", 2), ("c", 3)]), now), now);
        rounds.set(rounds.get() + 1);
        hit.set(hit.get() + usize::from(agent.plane().refused > 0));
        assert!(faults.one_in > 0 || agent.plane().refused == 0, "none were asked for");
    });
    assert!(hit.get() * 3 > rounds.get() * 2, "{hit:?} of {rounds:?} had a write refused");
}

/// By hours forwards, as on a machine that was suspended; and not at all, as one that is busy sees it.
#[test]
fn whatever_time_passes_between_two_events_nothing_is_lost_by_it() {
    with_faults_and_without(|faults| {
        let mut agent = agent(faults);
        let mut now = Instant::now();
        for (round, jump) in [0, 7 * 3600, 1, 40 * 86_400, 0, 5, 86_400].into_iter().enumerate() {
            now += Duration::from_secs(jump);
            let tasks = [(format!("a{round}"), 1), ("b".into(), 2)];
            let tasks: Vec<(&str, u8)> = tasks.iter().map(|(task, host)| (task.as_str(), *host)).collect();
            agent.handle(says(snapshot(&tasks), now), now);
            agent.handle(trouble(), now);
            now += Duration::from_secs(jump);
            agent.handle(Event::Tick, now);
            let mut there = active(agent.tables());
            there.sort_unstable();
            assert_eq!(there, [tasks[0].0, "b"], "after {jump} s");
            assert_eq!(agent.status(now).state, "OK");
            assert_eq!(agent.status(now).sources[0].answered_s, Some(jump as f64));
        }
        // An event that was stamped before the one that was handled last.
        agent.handle(Event::Tick, now - Duration::from_secs(3600));
        assert_eq!(active(agent.tables()).len(), 2);
        for second in 0..60 {
            agent.handle(Event::Tick, now + Duration::from_secs(second));
        }
        assert!(agent.tables().garbage().is_empty(), "{:?}", agent.tables().garbage());
    });
}
