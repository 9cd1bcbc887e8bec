//! When the agent uses the snapshots of the state file, on a data plane in memory.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

mod scenario;
/// When the agent writes the state file.
#[path = "restored/written.rs"]
mod written;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use proxymatic_common::AgentState;
use proxymatic_user::{
    agent::{Agent, Event, PATIENCE, Restored, RestoredFrom, SILENCE},
    dataplane::{AgentReport, Faults, MapWriter as _, Memory},
    model::{Backend, Protocol, Service, ServiceKey, Snapshot, State, Weight},
    plan::{Capacity, plan},
    source::{Report, SourceId},
};

use self::scenario::{Driven, NO_FAULTS, with_faults_and_without};

const PATH: &str = "/var/lib/proxymatic/state.json";
const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn key(port: u16) -> ServiceKey {
    ServiceKey::host(port, Protocol::Tcp)
}

/// Services by port and name; each has tasks of its name on some hosts.
fn snapshot(services: &[(u16, &str, &[u8])]) -> Snapshot {
    let service = |(port, name, hosts): &(u16, &str, &[u8])| {
        let backend = |host: &u8| Backend {
            task: format!("{name}.{host}"),
            address: IpAddr::from([10, 0, 0, *host]),
            port: 31_000,
            weight: Weight::default(),
            maxconn: 0,
            state: State::Active,
        };
        let backends = hosts.iter().map(backend).collect();
        (
            key(*port),
            Service { name: (*name).into(), owner: Some((*name).into()), backends, ..Service::default() }.into(),
        )
    };
    Snapshot { services: services.iter().map(service).collect(), warnings: Vec::new() }
}

fn answer(source: SourceId, snapshot: Snapshot, at: Instant) -> Event {
    Event::Source(Report::Snapshot { source, snapshot, at })
}

fn failure(source: SourceId) -> Event {
    Event::Source(Report::Failed {
        source,
        url: "http://marathon.example:8080".into(),
        reason: "http://marathon.example:8080/v2/apps: connection refused".into(),
        attempt: 1,
        again_in: SECOND,
    })
}

fn restored(snapshot: Snapshot, age: Option<Duration>) -> Restored {
    Restored { snapshot, path: PATH.into(), age }
}

/// Starts an agent on these maps, with the snapshot of Marathon from a state file.
fn booted(plane: Memory, sources: &[SourceId], of_marathon: Snapshot) -> Driven {
    let restored = [(SourceId::Marathon, restored(of_marathon, Some(3 * MINUTE)))].into();
    Driven::new(Agent::adopt(plane, sources).unwrap().with_restored(restored))
}

fn empty(faults: Faults) -> Memory {
    Memory::new(Capacity::default(), faults)
}

/// Lets seconds pass; refused writes are tried again.
fn ticks(agent: &mut Driven, now: &mut Instant, seconds: u32) {
    for _ in 0..seconds {
        *now += SECOND;
        agent.handle(Event::Tick, *now);
    }
}

/// Returns the services by port, with the tasks that have slots.
fn served(agent: &Driven) -> Vec<String> {
    let tables = agent.tables();
    let row = |(frontend, id): (&proxymatic_common::Frontend, &u32)| {
        let slots = tables.slots_of(tables.services()[id].slot_range);
        let mut tasks: Vec<_> = slots.iter().map(|slot| tables.backends()[&slot.backend()].task.as_str()).collect();
        tasks.sort_unstable();
        tasks.dedup();
        (frontend.port.get(), format!("{} {}", frontend.port.get(), tasks.join(",")))
    };
    tables.frontends().iter().map(row).collect::<BTreeMap<_, _>>().into_values().collect()
}

#[test]
fn failure_of_a_source_puts_the_restored_snapshot_into_use() {
    with_faults_and_without(|faults| {
        let mut now = Instant::now();
        let kept = snapshot(&[(1, "/web", &[1, 2])]);
        let mut agent = booted(empty(faults), &[SourceId::Marathon], kept);
        agent.handle(Event::Tick, now);
        assert_eq!(served(&agent), [""; 0], "the source may answer at any moment");
        agent.handle(failure(SourceId::Marathon), now);
        if faults.one_in > 0 {
            ticks(&mut agent, &mut now, 20);
        }
        assert_eq!(served(&agent), ["1 /web.1,/web.2"]);
        let status = agent.status(now + MINUTE);
        let age = 4 * MINUTE + (if faults.one_in > 0 { 20 * SECOND } else { Duration::ZERO });
        let from = RestoredFrom { path: PATH.into(), age_s: Some(age.as_secs_f64()) };
        assert_eq!((status.sources[0].answered_s, &status.sources[0].restored), (None, &Some(from)));
        // No source has answered, so the agent stays INITIALIZING.
        assert_eq!(status.state, "INITIALIZING");
        assert_eq!(agent.plane().report, Some(AgentReport { agent: AgentState::INITIALIZING, synced: false }));
    });
}

#[test]
fn silent_source_is_restored_after_3_s() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let mut agent = booted(empty(faults), &[SourceId::Marathon], snapshot(&[(1, "/web", &[1])]));
        agent.handle(Event::Tick, now);
        agent.handle(Event::Tick, now + SILENCE - Duration::from_millis(1));
        assert_eq!(served(&agent), [""; 0]);
        let mut later = now + SILENCE;
        agent.handle(Event::Tick, later);
        ticks(&mut agent, &mut later, if faults.one_in > 0 { 20 } else { 0 });
        assert_eq!(served(&agent), ["1 /web.1"]);
    });
}

#[test]
fn first_answer_replaces_the_restored_snapshot() {
    with_faults_and_without(|faults| {
        let mut now = Instant::now();
        let kept = snapshot(&[(1, "/web", &[1, 2]), (2, "/old", &[1])]);
        let mut agent = booted(empty(faults), &[SourceId::Marathon], kept.clone());
        agent.handle(Event::Tick, now);
        agent.handle(failure(SourceId::Marathon), now);
        assert_eq!(agent.adopted(SourceId::Marathon), kept, "the loss guard compares with it");
        ticks(&mut agent, &mut now, 20);
        assert_eq!(served(&agent), ["1 /web.1,/web.2", "2 /old.1"]);
        agent.handle(answer(SourceId::Marathon, snapshot(&[(1, "/web", &[2, 3]), (3, "/new", &[1])]), now), now);
        assert_eq!(served(&agent), ["1 /web.2,/web.3", "3 /new.1"]);
        let status = agent.status(now);
        assert_eq!((status.state.as_str(), &status.sources[0].restored), ("OK", &None));
        ticks(&mut agent, &mut now, 60);
        assert!(agent.tables().garbage().is_empty(), "{:?}", agent.tables().garbage());
        assert!(agent.plane().is_complete());
    });
}

#[test]
fn answer_within_3_s_is_used_instead_of_the_file() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let mut agent = booted(empty(faults), &[SourceId::Marathon], snapshot(&[(2, "/old", &[1])]));
        agent.handle(answer(SourceId::Marathon, snapshot(&[(1, "/web", &[1])]), now), now);
        for second in 0..30 {
            agent.handle(Event::Tick, now + second * SECOND);
        }
        assert_eq!(served(&agent), ["1 /web.1"]);
        assert!(agent.plane().applied.iter().all(|op| !op.to_string().contains("/old")));
    });
}

/// Returns the maps of an agent that got this answer and was killed.
fn maps_after(last: &Snapshot, faults: Faults) -> Memory {
    let now = Instant::now();
    let mut agent = Agent::adopt(empty(NO_FAULTS), &[SourceId::Marathon]).unwrap();
    agent.handle(answer(SourceId::Marathon, last.clone(), now), now);
    let mut memory = empty(NO_FAULTS);
    for op in &agent.plane().applied {
        memory.apply(op).unwrap();
    }
    memory.complete = agent.plane().complete;
    memory.faults = faults;
    memory.applied.clear();
    memory
}

#[test]
fn complete_maps_win_over_the_file() {
    with_faults_and_without(|faults| {
        for last in [snapshot(&[(1, "/web", &[1])]), Snapshot::default()] {
            let mut now = Instant::now();
            let plane = maps_after(&last, faults);
            assert!(plane.is_complete());
            let mut agent = booted(plane, &[SourceId::Marathon], snapshot(&[(1, "/web", &[7]), (2, "/old", &[1])]));
            assert_eq!(agent.adopted(SourceId::Marathon), last);
            agent.handle(failure(SourceId::Marathon), now);
            ticks(&mut agent, &mut now, 100);
            assert_eq!(agent.plane().applied, []);
            assert_eq!(agent.status(now).sources[0].restored, None);
        }
    });
}

#[test]
fn agent_killed_after_any_write_is_completed_by_the_next() {
    let kept = snapshot(&[(1, "/web", &[1, 2]), (2, "/db", &[3])]);
    let whole = maps_after(&kept, NO_FAULTS).tables().unwrap();
    let writes = {
        let mut agent = booted(empty(NO_FAULTS), &[SourceId::Marathon], kept.clone());
        agent.handle(failure(SourceId::Marathon), Instant::now());
        agent.plane().applied.clone()
    };
    assert!(writes.len() > 10, "{writes:?}");
    for killed_after in 0..=writes.len() {
        with_faults_and_without(|faults| {
            let mut plane = empty(NO_FAULTS);
            writes.iter().take(killed_after).for_each(|op| plane.apply(op).unwrap());
            plane.faults = faults;
            let mut now = Instant::now();
            let mut agent = booted(plane, &[SourceId::Marathon], kept.clone());
            agent.handle(failure(SourceId::Marathon), now);
            ticks(&mut agent, &mut now, 30);
            assert_eq!(served(&agent), ["1 /web.1,/web.2", "2 /db.3"], "killed after {killed_after} writes");
            assert!(agent.tables().garbage().is_empty(), "{:?}", agent.tables().garbage());
            assert_eq!(agent.tables().backends().len(), whole.backends().len());
            assert_eq!(agent.tables().slots_taken(), whole.slots_taken());
        });
    }
}

/// The file is from before the reboot; the maps are newer, though no answer was applied completely.
#[test]
fn restored_snapshot_removes_nothing_from_the_maps() {
    with_faults_and_without(|faults| {
        let mut plane = maps_after(&snapshot(&[(1, "/web", &[1]), (3, "/new", &[1])]), faults);
        plane.complete = false;
        let mut now = Instant::now();
        let mut agent = booted(plane, &[SourceId::Marathon], snapshot(&[(1, "/web", &[1, 2]), (2, "/old", &[1])]));
        agent.handle(failure(SourceId::Marathon), now);
        ticks(&mut agent, &mut now, 30);
        assert_eq!(served(&agent), ["1 /web.1,/web.2", "2 /old.1", "3 /new.1"]);
        agent.handle(answer(SourceId::Marathon, snapshot(&[(2, "/old", &[1])]), now), now);
        assert_eq!(served(&agent), ["2 /old.1"]);
    });
}

#[test]
fn source_that_answers_works_beside_a_restored_one() {
    with_faults_and_without(|faults| {
        let mut now = Instant::now();
        let sources = [SourceId::Marathon, SourceId::File];
        let mut agent = booted(empty(faults), &sources, snapshot(&[(1, "/web", &[1]), (2, "/db", &[1])]));
        agent.handle(answer(SourceId::File, snapshot(&[(2, "file-db", &[9])]), now), now);
        assert_eq!(served(&agent), [""; 0], "Marathon may answer at any moment");
        agent.handle(failure(SourceId::Marathon), now);
        assert_eq!(served(&agent), ["1 /web.1", "2 file-db.9"]);
        agent.handle(answer(SourceId::File, snapshot(&[(3, "file-x", &[9])]), now), now);
        assert_eq!(served(&agent), ["1 /web.1", "2 /db.1", "3 file-x.9"]);
        assert_eq!(agent.status(now).state, "INITIALIZING");
        ticks(&mut agent, &mut now, 1 + PATIENCE.as_secs() as u32);
        let status = agent.status(now);
        assert_eq!(status.state, "OK", "as without a file");
        assert!(status.sources.iter().any(|source| source.restored.is_some()), "{status:?}");
    });
}

#[test]
fn source_without_a_snapshot_in_the_file_is_waited_for() {
    with_faults_and_without(|faults| {
        let mut now = Instant::now();
        let mut agent = booted(empty(faults), &[SourceId::Registrator], snapshot(&[(1, "/web", &[1])]));
        agent.handle(failure(SourceId::Registrator), now);
        ticks(&mut agent, &mut now, 100);
        assert_eq!(served(&agent), [""; 0], "the file has only Marathon, which is not configured");
    });
}

#[test]
fn file_from_the_future_is_used_without_an_age() {
    with_faults_and_without(|faults| {
        let mut now = Instant::now();
        let restored = [(SourceId::Marathon, restored(snapshot(&[(1, "/web", &[1])]), None))].into();
        let mut agent =
            Driven::new(Agent::adopt(empty(faults), &[SourceId::Marathon]).unwrap().with_restored(restored));
        agent.handle(failure(SourceId::Marathon), now);
        ticks(&mut agent, &mut now, 20);
        assert_eq!(served(&agent), ["1 /web.1"]);
        let from = agent.status(now).sources[0].restored.clone().unwrap();
        assert_eq!(from.age_s, None);
    });
}

#[test]
fn restored_snapshot_is_published_once() {
    let mut now = Instant::now();
    let kept = snapshot(&[(1, "/web", &[1, 2])]);
    let mut agent = booted(empty(NO_FAULTS), &[SourceId::Marathon], kept.clone());
    agent.handle(failure(SourceId::Marathon), now);
    let writes = agent.plane().applied.len();
    ticks(&mut agent, &mut now, 3600);
    assert_eq!(agent.plane().applied.len(), writes);
    let desired = proxymatic_user::plan::Desired {
        services: kept
            .services
            .into_iter()
            .map(|(key, service)| (key, (proxymatic_common::SourceCode::MARATHON, service)))
            .collect(),
        ..Default::default()
    };
    assert_eq!(plan(&desired, agent.tables()).ops, []);
}
