//! The agent on a data plane in memory: what it writes after each event, with and without refused writes.

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
    let service = Service { name: "/web".into(), owner: Some("/web".into()), backends, ..Service::default() };
    let key = ServiceKey::host(1234, Protocol::Tcp);
    Snapshot { services: BTreeMap::from([(key, service.into())]), warnings: Vec::new() }
}

fn answer(snapshot: Snapshot, at: Instant) -> Event {
    Event::Source(Report::Snapshot { source: SourceId::Marathon, snapshot, at })
}

fn failure() -> Event {
    Event::Source(Report::Failed {
        source: SourceId::Marathon,
        url: "http://marathon.example:8080".into(),
        reason: "http://marathon.example:8080/v2/apps: connection refused".into(),
        attempt: 1,
        again_in: Duration::from_secs(1),
    })
}

/// Returns the tasks whose backends are active.
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
        agent.handle(failure(), now);
        agent.handle(Event::Tick, now);
        assert_eq!(agent.plane().applied, []);
        assert_eq!(agent.plane().report, Some(AgentReport { agent: AgentState::INITIALIZING, synced: false }));
        let status = agent.status(now);
        assert_eq!(status.state, "INITIALIZING");
        assert!(
            status.sources[0].trouble.as_ref().is_some_and(|trouble| trouble.reason.contains("connection refused"))
        );

        agent.handle(answer(snapshot(&[("a", 1)]), now), now);
        assert_eq!(active(agent.tables()), ["a"]);
        assert_eq!(agent.tables().addresses().len(), 1, "the addresses from before the answer are kept");
        assert_eq!(agent.plane().report, Some(AgentReport { agent: AgentState::OK, synced: true }));
        assert_eq!(agent.status(now).sources[0].trouble, None);
    });
}

#[test]
fn takeover_waits_for_all_sources_and_the_addresses() {
    let now = Instant::now();
    let mut agent =
        Agent::adopt(Memory::new(Capacity::default(), NO_FAULTS), &[SourceId::File, SourceId::Marathon]).unwrap();
    let answer = |source| Event::Source(Report::Snapshot { source, snapshot: snapshot(&[("a", 1)]), at: now });
    agent.handle(Event::Addresses([IpAddr::from([192, 0, 2, 1])].into()), now);
    agent.handle(answer(SourceId::File), now);
    let later = now + PATIENCE;
    agent.handle(Event::Tick, later);
    assert_eq!(active(agent.tables()), ["a"], "answers so far are in the maps");
    assert_eq!(agent.plane().takeovers, 0, "another version may serve what Marathon would answer");
    agent.handle(answer(SourceId::Marathon), later);
    assert_eq!(agent.plane().takeovers, 1);

    let mut agent = self::agent(NO_FAULTS);
    agent.handle(answer(SourceId::Marathon), now);
    assert_eq!(agent.plane().takeovers, 0, "the host's own addresses are not in the maps");
    // An empty set is an answer too.
    agent.handle(Event::Addresses([].into()), now);
    assert_eq!(agent.plane().takeovers, 1);
}

#[test]
fn restarted_agent_keeps_addresses_until_it_knows_them() {
    let now = Instant::now();
    let mut first = agent(NO_FAULTS);
    first.handle(Event::Addresses([IpAddr::from([192, 0, 2, 1])].into()), now);
    first.handle(answer(snapshot(&[("a", 1)]), now), now);
    let mut maps = Memory::new(Capacity::default(), NO_FAULTS);
    for op in &first.plane().applied {
        maps.apply(op).unwrap();
    }
    let mut second = Agent::adopt(maps, &[SourceId::Marathon]).unwrap();
    second.handle(answer(snapshot(&[("a", 1)]), now), now);
    assert_eq!(second.tables().addresses().len(), 1);
    second.handle(Event::Addresses([IpAddr::from([192, 0, 2, 2])].into()), now);
    assert_eq!(
        second.tables().addresses().keys().map(|it| IpAddr::from(*it)).collect::<Vec<_>>(),
        [IpAddr::from([192, 0, 2, 2])]
    );
}

#[test]
fn failure_after_an_answer_changes_nothing() {
    with_faults_and_without(|faults| {
        let mut agent = agent(faults);
        let now = Instant::now();
        agent.handle(answer(snapshot(&[("a", 1), ("b", 2)]), now), now);
        let before = agent.tables().clone();
        for minute in 1..60 {
            agent.handle(failure(), now + Duration::from_secs(60 * minute));
            agent.handle(Event::Tick, now + Duration::from_secs(60 * minute));
        }
        assert_eq!(*agent.tables(), before);
        assert_eq!(agent.status(now).state, "OK");
    });
}

#[test]
fn agent_that_adopts_maps_writes_only_the_difference() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let mut first = agent(faults);
        first.handle(answer(snapshot(&[("a", 1), ("b", 2)]), now), now);
        let mut second = Driven::new(Agent::adopt(adopted(first.tables(), faults), &[SourceId::Marathon]).unwrap());
        let already = second.plane().applied.len();
        second.handle(answer(snapshot(&[("a", 1), ("b", 2)]), now), now);
        assert_eq!(second.plane().applied.len(), already, "{:?}", &second.plane().applied[already..]);
        second.handle(answer(snapshot(&[("b", 2)]), now), now);
        assert_eq!(active(second.tables()), ["b"]);
    });
}

#[test]
fn adopted_snapshot_is_the_last_answer() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let mut first = agent(faults);
        let last = snapshot(&[("a", 1), ("b", 2)]);
        first.handle(answer(last.clone(), now), now);
        let second = Driven::new(Agent::adopt(adopted(first.tables(), faults), &[SourceId::Marathon]).unwrap());
        assert_eq!(second.adopted(SourceId::Marathon), last);
        assert_eq!(second.adopted(SourceId::File), Snapshot::default());
    });
}

/// Returns a data plane that holds these maps already.
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
fn maps_get_complete_with_one_write_in_ten_or_three_refused() {
    // If one in three is refused, all tries of some writes are, and the plan is given up.
    for (one_in, seed) in (1..50).map(|seed| (if seed % 2 == 0 { 10 } else { 3 }, seed)) {
        let plane = Memory::new(Capacity::default(), Faults { one_in, seed });
        let mut agent = Agent::adopt(plane, &[SourceId::Marathon]).unwrap();
        let mut now = Instant::now();
        for round in 0_u8..20 {
            let tasks = [(format!("a{round}"), 1), (format!("b{}", round / 2), 2), ("c".into(), 3)];
            let tasks: Vec<(&str, u8)> = tasks.iter().map(|(task, host)| (task.as_str(), *host)).collect();
            agent.handle(answer(snapshot(&tasks), now), now);
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
        let mut snapshot = snapshot(&[("a", 1)]);
        let warning = Warning { app: "/odd".into(), reason: "label servicePort is not a port".into() };
        snapshot.warnings.push(warning.clone());
        let udp = ServiceKey::host(53, Protocol::Udp);
        let own = Settings { allow: Some(["cgroup:/gone".parse().unwrap()].into()), ..Settings::default() };
        snapshot.services.insert(udp, Service { name: "/dns".into(), settings: own, ..Service::default() }.into());
        agent.handle(answer(snapshot, now), now);
        let apps: Vec<_> = agent.status(now).warnings.into_iter().map(|warning| warning.app).collect();
        assert_eq!(apps, ["/dns", "/odd"]);
    });
}

#[test]
fn global_settings_hold_for_all_and_follow_their_cgroups() {
    with_faults_and_without(|faults| {
        let settings =
            GlobalSettings { max_connections: 7, excluded: ["/docker".to_owned()].into(), ..GlobalSettings::default() };
        let mut plane = Memory::new(Capacity::default(), faults);
        plane.cgroups.insert("/docker".into(), 5);
        let mut agent = Driven::new(Agent::adopt(plane, &[SourceId::Marathon]).unwrap().with_settings(settings));
        let now = Instant::now();
        let mut snapshot = snapshot(&[("a", 1)]);
        let allow = Some(["cgroup:/mesos".parse().unwrap()].into());
        snapshot
            .services
            .values_mut()
            .for_each(|service| std::sync::Arc::make_mut(service).settings.allow.clone_from(&allow));
        agent.handle(answer(snapshot, now), now);
        assert_eq!(agent.tables().services()[&0].settings.maxconn, 7);
        assert_eq!(*agent.tables().excluded(), [5].into());
        assert_eq!(agent.status(now).warnings.len(), 1, "the cgroup does not exist");
        agent.plane_mut().cgroups = [("/mesos".to_owned(), 9)].into();
        agent.handle(Event::Tick, now);
        assert_eq!(agent.tables().services()[&0].allow_cgroups, [9].into());
        assert!(agent.tables().excluded().is_empty(), "the other cgroup is gone");
    });
}

#[test]
fn stop_is_announced_and_leaves_the_maps() {
    with_faults_and_without(|faults| {
        let mut agent = agent(faults);
        let now = Instant::now();
        agent.handle(answer(snapshot(&[("a", 1)]), now), now);
        let before = agent.tables().clone();
        assert!(!agent.handle(Event::Stop, now));
        assert_eq!(agent.plane().report.map(|report| report.agent), Some(AgentState::TERMINATING));
        assert_eq!(*agent.tables(), before);
    });
}

/// The other tests rely on this: a scenario with faults has refused writes.
#[test]
fn scenario_with_faults_has_refused_writes() {
    let (rounds, hit) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    with_faults_and_without(|faults| {
        let mut agent = agent(faults);
        let now = Instant::now();
        agent.handle(answer(snapshot(&[("a", 1), ("b", 2), ("c", 3)]), now), now);
        rounds.set(rounds.get() + 1);
        hit.set(hit.get() + usize::from(agent.plane().refused > 0));
        assert!(faults.one_in > 0 || agent.plane().refused == 0, "no faults are configured");
    });
    assert!(hit.get() * 3 > rounds.get() * 2, "{hit:?} of {rounds:?} had a write refused");
}

/// Time jumps by hours on a machine that was suspended; a busy machine handles two events at one time.
#[test]
fn time_between_two_events_may_be_nothing_or_days() {
    with_faults_and_without(|faults| {
        let mut agent = agent(faults);
        let mut now = Instant::now();
        for (round, jump) in [0, 7 * 3600, 1, 40 * 86_400, 0, 5, 86_400].into_iter().enumerate() {
            now += Duration::from_secs(jump);
            let tasks = [(format!("a{round}"), 1), ("b".into(), 2)];
            let tasks: Vec<(&str, u8)> = tasks.iter().map(|(task, host)| (task.as_str(), *host)).collect();
            agent.handle(answer(snapshot(&tasks), now), now);
            agent.handle(failure(), now);
            now += Duration::from_secs(jump);
            agent.handle(Event::Tick, now);
            let mut there = active(agent.tables());
            there.sort_unstable();
            assert_eq!(there, [tasks[0].0, "b"], "after {jump} s");
            assert_eq!(agent.status(now).state, "OK");
            assert_eq!(agent.status(now).sources[0].answered_s, Some(jump as f64));
        }
        // An event with an earlier time than the one before.
        agent.handle(Event::Tick, now - Duration::from_secs(3600));
        assert_eq!(active(agent.tables()).len(), 2);
        for second in 0..60 {
            agent.handle(Event::Tick, now + Duration::from_secs(second));
        }
        assert!(agent.tables().garbage().is_empty(), "{:?}", agent.tables().garbage());
    });
}
