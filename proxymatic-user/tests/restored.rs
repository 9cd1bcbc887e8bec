//! What the agent makes of the state file, on a data plane in memory: when it uses what was restored.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is the report too")]

mod scenario;
/// What the agent has written down.
#[path = "restored/written.rs"]
mod written;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use proxymatic_common::AgentState;
use proxymatic_user::{
    agent::{Agent, Event, PATIENCE, Restored, SILENCE},
    dataplane::{AgentReport, Faults, MapWriter as _, Memory},
    model::{Backend, Protocol, Service, ServiceKey, Snapshot, State, Weight},
    plan::{Capacity, plan},
    source::{Report, SourceId},
    surface::RestoredFrom,
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
        (key(*port), Service { name: (*name).into(), backends, ..Service::default() }.into())
    };
    Snapshot { services: services.iter().map(service).collect(), warnings: Vec::new() }
}

fn says(source: SourceId, snapshot: Snapshot, at: Instant) -> Event {
    Event::Source(Report::Snapshot { source, snapshot, at })
}

fn trouble(source: SourceId) -> Event {
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

/// An agent on these maps, with what a file has of Marathon.
fn booted(plane: Memory, sources: &[SourceId], of_marathon: Snapshot) -> Driven {
    let restored = [(SourceId::Marathon, restored(of_marathon, Some(3 * MINUTE)))].into();
    Driven::new(Agent::adopt(plane, sources).unwrap().with_restored(restored))
}

fn empty(faults: Faults) -> Memory {
    Memory::new(Capacity::default(), faults)
}

/// Seconds pass, and refused writes are tried again.
fn ticks(agent: &mut Driven, now: &mut Instant, seconds: u32) {
    for _ in 0..seconds {
        *now += SECOND;
        agent.handle(Event::Tick, *now);
    }
}

/// The services that can be found, and the tasks that get connections.
fn served(agent: &Driven) -> Vec<String> {
    let tables = agent.tables();
    let row = |(frontend, id): (&proxymatic_common::Frontend, &u32)| {
        let slots = tables.slots_of(tables.services()[id].head);
        let mut tasks: Vec<_> = slots.iter().map(|slot| tables.backends()[&slot.backend()].task.as_str()).collect();
        tasks.sort_unstable();
        tasks.dedup();
        (frontend.port.get(), format!("{} {}", frontend.port.get(), tasks.join(",")))
    };
    tables.frontends().iter().map(row).collect::<BTreeMap<_, _>>().into_values().collect()
}

#[test]
fn with_empty_maps_and_a_source_that_says_it_cannot_be_asked_what_was_kept_is_served_at_once() {
    with_faults_and_without(|faults| {
        let mut now = Instant::now();
        let kept = snapshot(&[(1, "/web", &[1, 2])]);
        let mut agent = booted(empty(faults), &[SourceId::Marathon], kept);
        agent.handle(Event::Tick, now);
        assert_eq!(served(&agent), [""; 0], "it may answer any moment");
        agent.handle(trouble(SourceId::Marathon), now);
        if faults.one_in > 0 {
            ticks(&mut agent, &mut now, 20);
        }
        assert_eq!(served(&agent), ["1 /web.1,/web.2"]);
        let status = agent.status(now + MINUTE);
        let age = 4 * MINUTE + (if faults.one_in > 0 { 20 * SECOND } else { Duration::ZERO });
        let from = RestoredFrom { path: PATH.into(), age_s: Some(age.as_secs_f64()) };
        assert_eq!((status.sources[0].answered_s, &status.sources[0].restored), (None, &Some(from)));
        // No source has answered: the agent has not begun its work.
        assert_eq!(status.state, "INITIALIZING");
        assert_eq!(agent.plane().report, Some(AgentReport { agent: AgentState::INITIALIZING, synced: false }));
    });
}

#[test]
fn a_source_that_says_nothing_is_waited_for_but_not_for_long() {
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
fn the_first_answer_takes_the_place_of_what_was_restored() {
    with_faults_and_without(|faults| {
        let mut now = Instant::now();
        let kept = snapshot(&[(1, "/web", &[1, 2]), (2, "/old", &[1])]);
        let mut agent = booted(empty(faults), &[SourceId::Marathon], kept.clone());
        agent.handle(Event::Tick, now);
        agent.handle(trouble(SourceId::Marathon), now);
        assert_eq!(agent.adopted(SourceId::Marathon), kept, "the first answer is measured by it");
        ticks(&mut agent, &mut now, 20);
        assert_eq!(served(&agent), ["1 /web.1,/web.2", "2 /old.1"]);
        agent.handle(says(SourceId::Marathon, snapshot(&[(1, "/web", &[2, 3]), (3, "/new", &[1])]), now), now);
        assert_eq!(served(&agent), ["1 /web.2,/web.3", "3 /new.1"]);
        let status = agent.status(now);
        assert_eq!((status.state.as_str(), &status.sources[0].restored), ("OK", &None));
        ticks(&mut agent, &mut now, 60);
        assert!(agent.tables().garbage().is_empty(), "{:?}", agent.tables().garbage());
        assert!(agent.plane().is_complete());
    });
}

#[test]
fn an_answer_in_time_is_used_and_the_file_is_not() {
    with_faults_and_without(|faults| {
        let now = Instant::now();
        let mut agent = booted(empty(faults), &[SourceId::Marathon], snapshot(&[(2, "/old", &[1])]));
        agent.handle(says(SourceId::Marathon, snapshot(&[(1, "/web", &[1])]), now), now);
        for second in 0..30 {
            agent.handle(Event::Tick, now + second * SECOND);
        }
        assert_eq!(served(&agent), ["1 /web.1"]);
        assert!(agent.plane().applied.iter().all(|op| !op.to_string().contains("/old")));
    });
}

/// The maps of an agent that was told this, killed and started again on the same machine.
fn maps_after(told: &Snapshot, faults: Faults) -> Memory {
    let now = Instant::now();
    let mut agent = Agent::adopt(empty(NO_FAULTS), &[SourceId::Marathon]).unwrap();
    agent.handle(says(SourceId::Marathon, told.clone(), now), now);
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
fn maps_that_an_answer_was_applied_to_win_over_the_file() {
    with_faults_and_without(|faults| {
        for told in [snapshot(&[(1, "/web", &[1])]), Snapshot::default()] {
            let mut now = Instant::now();
            let plane = maps_after(&told, faults);
            assert!(plane.is_complete());
            let mut agent = booted(plane, &[SourceId::Marathon], snapshot(&[(1, "/web", &[7]), (2, "/old", &[1])]));
            assert_eq!(agent.adopted(SourceId::Marathon), told);
            agent.handle(trouble(SourceId::Marathon), now);
            ticks(&mut agent, &mut now, 100);
            assert_eq!(agent.plane().applied, []);
            assert_eq!(agent.status(now).sources[0].restored, None);
        }
    });
}

#[test]
fn an_agent_that_died_while_it_published_the_file_leaves_the_rest_to_the_next_one() {
    let kept = snapshot(&[(1, "/web", &[1, 2]), (2, "/db", &[3])]);
    let whole = maps_after(&kept, NO_FAULTS).tables().unwrap();
    let writes = {
        let mut agent = booted(empty(NO_FAULTS), &[SourceId::Marathon], kept.clone());
        agent.handle(trouble(SourceId::Marathon), Instant::now());
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
            agent.handle(trouble(SourceId::Marathon), now);
            ticks(&mut agent, &mut now, 30);
            assert_eq!(served(&agent), ["1 /web.1,/web.2", "2 /db.3"], "killed after {killed_after} writes");
            assert!(agent.tables().garbage().is_empty(), "{:?}", agent.tables().garbage());
            assert_eq!(agent.tables().backends().len(), whole.backends().len());
            assert_eq!(agent.tables().slots_taken(), whole.slots_taken());
        });
    }
}

/// The file is from before the reboot; what somebody said since is newer, though it was not applied whole.
#[test]
fn what_was_restored_removes_nothing_that_the_maps_have() {
    with_faults_and_without(|faults| {
        let mut plane = maps_after(&snapshot(&[(1, "/web", &[1]), (3, "/new", &[1])]), faults);
        plane.complete = false;
        let mut now = Instant::now();
        let mut agent = booted(plane, &[SourceId::Marathon], snapshot(&[(1, "/web", &[1, 2]), (2, "/old", &[1])]));
        agent.handle(trouble(SourceId::Marathon), now);
        ticks(&mut agent, &mut now, 30);
        assert_eq!(served(&agent), ["1 /web.1,/web.2", "2 /old.1", "3 /new.1"]);
        agent.handle(says(SourceId::Marathon, snapshot(&[(2, "/old", &[1])]), now), now);
        assert_eq!(served(&agent), ["2 /old.1"]);
    });
}

#[test]
fn a_source_that_answers_goes_on_beside_one_that_was_restored() {
    with_faults_and_without(|faults| {
        let mut now = Instant::now();
        let sources = [SourceId::Marathon, SourceId::File];
        let mut agent = booted(empty(faults), &sources, snapshot(&[(1, "/web", &[1]), (2, "/db", &[1])]));
        agent.handle(says(SourceId::File, snapshot(&[(2, "file-db", &[9])]), now), now);
        assert_eq!(served(&agent), [""; 0], "Marathon may answer any moment");
        agent.handle(trouble(SourceId::Marathon), now);
        assert_eq!(served(&agent), ["1 /web.1", "2 file-db.9"]);
        agent.handle(says(SourceId::File, snapshot(&[(3, "file-x", &[9])]), now), now);
        assert_eq!(served(&agent), ["1 /web.1", "2 /db.1", "3 file-x.9"]);
        assert_eq!(agent.status(now).state, "INITIALIZING");
        ticks(&mut agent, &mut now, 1 + PATIENCE.as_secs() as u32);
        let status = agent.status(now);
        assert_eq!(status.state, "OK", "as without a file");
        assert!(status.sources.iter().any(|source| source.restored.is_some()), "{status:?}");
    });
}

#[test]
fn a_source_without_anything_in_the_file_is_waited_for_as_ever() {
    with_faults_and_without(|faults| {
        let mut now = Instant::now();
        let mut agent = booted(empty(faults), &[SourceId::Registrator], snapshot(&[(1, "/web", &[1])]));
        agent.handle(trouble(SourceId::Registrator), now);
        ticks(&mut agent, &mut now, 100);
        assert_eq!(served(&agent), [""; 0], "the file has Marathon's, who is not asked");
    });
}

#[test]
fn a_file_from_the_future_is_used_and_its_age_is_not_known() {
    with_faults_and_without(|faults| {
        let mut now = Instant::now();
        let restored = [(SourceId::Marathon, restored(snapshot(&[(1, "/web", &[1])]), None))].into();
        let mut agent =
            Driven::new(Agent::adopt(empty(faults), &[SourceId::Marathon]).unwrap().with_restored(restored));
        agent.handle(trouble(SourceId::Marathon), now);
        ticks(&mut agent, &mut now, 20);
        assert_eq!(served(&agent), ["1 /web.1"]);
        let from = agent.status(now).sources[0].restored.clone().unwrap();
        assert_eq!(from.age_s, None);
    });
}

/// The plans of what was restored are plans like any other: nothing is left to do after them.
#[test]
fn what_was_restored_is_published_once() {
    let mut now = Instant::now();
    let kept = snapshot(&[(1, "/web", &[1, 2])]);
    let mut agent = booted(empty(NO_FAULTS), &[SourceId::Marathon], kept.clone());
    agent.handle(trouble(SourceId::Marathon), now);
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
