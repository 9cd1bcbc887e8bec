//! Histories of new backends, and of what the agent does about them.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;
use proxymatic_common::{Address, BackendState, Port, SourceCode};

use super::*;
use crate::{
    model::{Backend, Protocol, Service, Start, Weight},
    plan::{Capacity, MapOp, MapState},
};

const NEW_FOR: Duration = Duration::from_secs(5);
const MS: Duration = Duration::from_millis(1);
const WEB: ServiceKey = ServiceKey::host(80, Protocol::Tcp);

fn backend(n: u16) -> Backend {
    Backend {
        task: format!("t{n}"),
        address: [10, 0, 0, 1].into(),
        port: n,
        weight: Weight::default(),
        maxconn: 0,
        state: State::Active,
    }
}

/// A service with these backends, each without a check.
fn service(key: ServiceKey, backends: &[(u16, Start)]) -> (ServiceKey, Arc<Service>) {
    let unchecked = backends.iter().map(|(n, start)| (format!("t{n}"), *start)).collect();
    let mut backends: Vec<_> = backends.iter().map(|(n, _)| backend(*n)).collect();
    backends.sort_by(|a, b| a.task.cmp(&b.task));
    (key, Service { name: "/web".into(), backends, unchecked, ..Service::default() }.into())
}

fn snapshot(services: impl Into<BTreeMap<ServiceKey, Arc<Service>>>) -> Snapshot {
    Snapshot { services: services.into(), warnings: Vec::new() }
}

fn started(backends: &[u16], at: Instant) -> Snapshot {
    let backends: Vec<_> = backends.iter().map(|n| (*n, Start::At(at))).collect();
    snapshot([service(WEB, &backends)])
}

fn list(first_answers: &mut FirstAnswers, new: &Snapshot, before: Before<'_>, now: Instant) {
    first_answers.listed(SourceId::Marathon, new, before, now);
}

/// The parts after a first answer, at some time.
fn listed(new: &Snapshot, now: Instant) -> FirstAnswers {
    let mut first_answers = FirstAnswers::new(NEW_FOR, 1);
    list(&mut first_answers, new, Before::Adopted(&MapState::default(), None), now);
    first_answers
}

fn held(first_answers: &FirstAnswers, snapshot: &Snapshot) -> Vec<(u16, String)> {
    let code = |(key, service): (&ServiceKey, &Arc<Service>)| (*key, (SourceCode::MARATHON, Arc::clone(service)));
    let mut services: Services = snapshot.services.iter().map(code).collect();
    first_answers.hold_back(&mut services, &MapState::default());
    let warming = |service: &Service| {
        let backends = service.backends.iter().filter(|it| it.state == State::Warming);
        backends.map(|it| it.task.clone()).collect::<Vec<_>>()
    };
    services.iter().flat_map(|(key, (_, it))| warming(it).into_iter().map(|task| (key.port, task))).collect()
}

/// Handles what is due until a probe starts. Returns its number and time.
fn next_probe(first_answers: &mut FirstAnswers) -> (u64, Instant) {
    loop {
        let at = first_answers.wake_at().expect("a probe is due");
        for effect in first_answers.wake(at) {
            if let Effect::Probe(Order::Once { probe, .. }) = effect {
                return (probe, at);
            }
        }
    }
}

#[test]
fn new_backend_is_probed_and_used_at_its_first_answer() {
    let now = Instant::now() + NEW_FOR;
    let (old, new) = (now - NEW_FOR, now - Duration::from_secs(4));
    let all = snapshot([service(WEB, &[(1, Start::At(old)), (2, Start::At(new))])]);
    let mut first_answers = listed(&all, now);
    assert_eq!(held(&first_answers, &all), [(80, "t2".into())]);
    let at = first_answers.wake_at().unwrap();
    assert!(at >= now && at < now + 5 * MS, "the first probe comes at once, with jitter");
    let to = SocketAddr::from(([10, 0, 0, 1], 2));
    assert_eq!(first_answers.wake(at), [Effect::Probe(Order::Once { probe: 1, to })]);
    assert_eq!(first_answers.wake_at(), Some(new + NEW_FOR), "one probe at a time");
    let answered = Probed { probe: 1, outcome: Outcome::Answered };
    assert_eq!(first_answers.probed(answered, at + MS), [Effect::Publish(Trigger::Other)]);
    assert_eq!((held(&first_answers, &all), first_answers.wake_at()), (Vec::new(), None));
    assert_eq!(first_answers.counts(), ProbeCounts { answered: 1, ..ProbeCounts::default() });
}

#[test]
fn refused_backend_is_probed_after_growing_pauses() {
    let now = Instant::now();
    let mut first_answers = listed(&started(&[1], now), now);
    let (mut probe, mut ended) = next_probe(&mut first_answers);
    for (pause, outcome) in [
        (50, Outcome::Refused),
        (100, Outcome::Unanswered),
        (200, Outcome::Failed),
        (400, Outcome::Refused),
        (800, Outcome::Refused),
        (1000, Outcome::Refused),
        (1000, Outcome::Refused),
    ] {
        assert_eq!(first_answers.probed(Probed { probe, outcome }, ended), []);
        let next = next_probe(&mut first_answers);
        let waited = next.1 - ended;
        assert!(waited >= pause * MS && waited <= pause * MS * 5 / 4, "{waited:?} instead of {pause} ms");
        (probe, ended) = next;
    }
    let reason = first_answers.awaited.values().next().unwrap().reason(ended);
    assert!(reason.starts_with("new, without a check, and refused probe 7; used at its first answer, in "), "{reason}");
    let counts = ProbeCounts { refused: 5, unanswered: 1, failed: 1, answered: 0 };
    assert_eq!(first_answers.counts(), counts);
}

#[test]
fn backend_is_used_without_an_answer_when_it_is_no_longer_new() {
    let now = Instant::now();
    let all = started(&[1], now);
    let mut first_answers = listed(&all, now);
    let (probe, _) = next_probe(&mut first_answers);
    assert_eq!(first_answers.wake_at(), Some(now + NEW_FOR));
    assert_eq!(first_answers.wake(now + NEW_FOR - MS), []);
    assert_eq!(first_answers.wake(now + NEW_FOR), [Effect::Publish(Trigger::Other)]);
    assert_eq!(held(&first_answers, &all), []);
    // The result comes too late.
    assert_eq!(first_answers.probed(Probed { probe, outcome: Outcome::Refused }, now + NEW_FOR + MS), []);
    assert_eq!(first_answers.wake_at(), None);
}

#[test]
fn start_in_the_future_is_now() {
    let now = Instant::now();
    let first_answers = listed(&started(&[1], now + 1000 * NEW_FOR), now);
    assert_eq!(first_answers.deadlines.first().unwrap().0, now + NEW_FOR);
}

#[test]
fn backend_without_a_start_is_new_after_the_first_answer() {
    let now = Instant::now();
    let first = snapshot([service(WEB, &[(1, Start::Unknown)])]);
    let mut first_answers = listed(&first, now);
    assert_eq!(held(&first_answers, &first), []);
    let second = snapshot([service(WEB, &[(1, Start::Unknown), (2, Start::Unknown)])]);
    list(&mut first_answers, &second, Before::Answer(&first), now);
    assert_eq!(held(&first_answers, &second), [(80, "t2".into())]);
    // A later answer has the start. The backend stays new for as long.
    let third = snapshot([service(WEB, &[(1, Start::Unknown), (2, Start::At(now + MS))])]);
    list(&mut first_answers, &third, Before::Answer(&second), now + MS);
    assert_eq!(first_answers.deadlines.first().unwrap().0, now + NEW_FOR);
}

#[test]
fn source_without_checks_needs_no_list_of_unchecked_tasks() {
    let now = Instant::now();
    let file = |all: &[u16]| {
        let backends = all.iter().map(|n| backend(*n)).collect();
        snapshot([(WEB, Service { backends, ..Service::default() }.into())])
    };
    for (source, awaited) in [(SourceId::File, 1), (SourceId::Registrator, 1), (SourceId::Marathon, 0)] {
        let mut first_answers = FirstAnswers::new(NEW_FOR, 1);
        first_answers.listed(source, &file(&[1]), Before::Adopted(&MapState::default(), None), now);
        assert_eq!(first_answers.count(), 0);
        first_answers.listed(source, &file(&[1, 2]), Before::Answer(&file(&[1])), now);
        assert_eq!(first_answers.count(), awaited, "{source}");
    }
}

#[test]
fn checked_udp_and_switched_off_are_not_probed() {
    let now = Instant::now();
    let checked = Service { backends: vec![backend(1)], ..Service::default() };
    assert_eq!(listed(&snapshot([(WEB, checked.into())]), now).count(), 0);
    let udp = snapshot([service(ServiceKey::host(80, Protocol::Udp), &[(1, Start::At(now))])]);
    assert_eq!(listed(&udp, now).count(), 0);
    let mut off = FirstAnswers::new(Duration::ZERO, 1);
    list(&mut off, &started(&[1], now), Before::Adopted(&MapState::default(), None), now);
    assert_eq!(off.wake_at(), None);
}

#[test]
fn adopted_backend_is_used_at_once_unless_it_was_warming() {
    let now = Instant::now();
    let mut map_state = MapState::new(Capacity::default());
    for (id, source_state) in [(1, BackendState::ACTIVE), (2, BackendState::DRAINING), (3, BackendState::WARMING)] {
        let address = Address::from(IpAddr::from([10, 0, 0, 1]));
        let port = Port::new(id as u16);
        let entry = proxymatic_common::Backend {
            address,
            port,
            state: source_state,
            source_state,
            ..proxymatic_common::Backend::free(1)
        };
        map_state.apply(&MapOp::PutBackendName(id, format!("t{id}")));
        map_state.apply(&MapOp::PutBackend(id, entry));
    }
    for start in [Start::At(now), Start::Unknown] {
        let all = snapshot([service(WEB, &[(1, start), (2, start), (3, start)])]);
        let mut first_answers = FirstAnswers::new(NEW_FOR, 1);
        list(&mut first_answers, &all, Before::Adopted(&map_state, None), now);
        assert_eq!(held(&first_answers, &all), [(80, "t3".into())], "{start:?}");
    }
    let all = started(&[1], now);
    let mut first_answers = FirstAnswers::new(NEW_FOR, 1);
    list(&mut first_answers, &all, Before::OtherVersion, now);
    assert_eq!(first_answers.count(), 0, "another version may use it");
    let (all, restored) = (started(&[1, 2], now), started(&[1], now));
    let mut first_answers = FirstAnswers::new(NEW_FOR, 1);
    list(&mut first_answers, &all, Before::Adopted(&MapState::default(), Some(&restored)), now);
    assert_eq!(held(&first_answers, &all), [(80, "t2".into())], "the state file has the other one");
}

#[test]
fn backend_of_two_services_is_held_in_both_or_in_none() {
    let now = Instant::now();
    let other = ServiceKey::host(81, Protocol::Tcp);
    let one = snapshot([service(WEB, &[(1, Start::Unknown)])]);
    let both = snapshot([service(WEB, &[(1, Start::Unknown)]), service(other, &[(1, Start::Unknown)])]);
    let mut first_answers = listed(&one, now);
    list(&mut first_answers, &both, Before::Answer(&one), now);
    assert_eq!(held(&first_answers, &both), [], "a service has used it");
    let mut first_answers = listed(&Snapshot::default(), now);
    list(&mut first_answers, &one, Before::Answer(&Snapshot::default()), now);
    list(&mut first_answers, &both, Before::Answer(&one), now);
    assert_eq!(held(&first_answers, &both), [(80, "t1".into()), (81, "t1".into())]);
    assert_eq!(first_answers.count(), 1);
}

#[test]
fn gone_backend_is_forgotten_and_not_probed_twice_at_once() {
    let now = Instant::now();
    let (all, none) = (started(&[1], now), snapshot([service(WEB, &[])]));
    let mut first_answers = listed(&all, now);
    let (probe, at) = next_probe(&mut first_answers);
    list(&mut first_answers, &none, Before::Answer(&all), at);
    assert_eq!((first_answers.count(), first_answers.wake_at()), (0, None));
    list(&mut first_answers, &all, Before::Answer(&none), at);
    for _ in 0..10 {
        let due = first_answers.wake_at().unwrap();
        assert_eq!(first_answers.wake(due), [], "the first probe has no result yet");
    }
    assert_eq!(
        first_answers.probed(Probed { probe, outcome: Outcome::Answered }, at + 900 * MS),
        [Effect::Publish(Trigger::Other)]
    );
}

#[test]
fn answers_of_many_backends_share_plans() {
    let now = Instant::now();
    let mut first_answers = listed(&started(&(1..=100).collect::<Vec<_>>(), now), now);
    let (mut plans, mut last) = (0, now);
    for _ in 0..100 {
        let (probe, at) = next_probe_counting(&mut first_answers, &mut plans);
        plans += first_answers.probed(Probed { probe, outcome: Outcome::Answered }, at).len();
        last = at;
    }
    let (spent, most) = (last - now, ((last - now).as_millis() / BETWEEN_PLANS.as_millis()) as usize + 1);
    assert!(spent >= 99 * rate::SPACING && plans <= most && plans > 10, "{plans} plans in {spent:?}");
    assert!(first_answers.changed || first_answers.count() == 0);
}

fn next_probe_counting(first_answers: &mut FirstAnswers, plans: &mut usize) -> (u64, Instant) {
    loop {
        let at = first_answers.wake_at().expect("a probe is due");
        for effect in first_answers.wake(at) {
            match effect {
                Effect::Probe(Order::Once { probe, .. }) => return (probe, at),
                Effect::Publish(_) => *plans += 1,
                other => panic!("{other:?}"),
            }
        }
    }
}

/// One task of a history.
#[derive(Clone, Debug)]
struct TaskHistory {
    /// When the task is listed first, and its age then; in milliseconds.
    listed: u64,
    age: u64,
    /// The time from the task's listing until it accepts connections, and the duration of each probe.
    accepts: u64,
    probe_takes: u64,
}

fn task_history() -> impl Strategy<Value = TaskHistory> {
    let listed = prop_oneof![3 => Just(0_u64), 1 => 0_u64..3_000];
    let accepts = prop_oneof![0_u64..7_000, Just(0), Just(u64::MAX / 2)];
    (listed, 0_u64..6_000, accepts, 1_u64..=1_000).prop_map(|(listed, age, accepts, probe_takes)| TaskHistory {
        listed,
        age,
        accepts,
        probe_takes,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// At most 200 probes a second, never two at once of one backend; each new backend is used at its first answer or when
    /// it is no longer new, whichever is first.
    #[test]
    fn probes_are_few_and_each_backend_is_used_in_time(tasks in prop::collection::vec(task_history(), 1..300), seed in any::<u64>()) {
        let begin = Instant::now() + 10 * NEW_FOR;
        let at = |millis: u64| begin + Duration::from_millis(millis);
        let mut first_answers = FirstAnswers::new(NEW_FOR, seed);
        let mut listings: Vec<u64> = tasks.iter().map(|it| it.listed).collect();
        listings.sort_unstable();
        listings.dedup();
        listings.reverse();
        let (mut known, map_state) = (None, MapState::default());
        let mut results: BTreeMap<(Instant, u64), (u16, Outcome)> = BTreeMap::new();
        let (mut started, mut answered) = (Vec::new(), BTreeMap::new());
        let mut last_held = BTreeMap::new();
        loop {
            let listing = listings.last().map(|millis| at(*millis));
            let result = results.keys().next().map(|(moment, _)| *moment);
            let Some(now) = [listing, result, first_answers.wake_at()].into_iter().flatten().min() else { break };
            for identity in first_answers.awaited.keys() {
                last_held.insert(identity.at.port(), now);
            }
            let effects = if listing == Some(now) {
                let millis = listings.pop().unwrap_or_default();
                let is_listed = |(_, it): &(usize, &TaskHistory)| it.listed <= millis;
                let all: Vec<_> = tasks.iter().enumerate().filter(is_listed).map(|(n, it)| {
                    (n as u16 + 1, Start::At(at(it.listed) - Duration::from_millis(it.age)))
                }).collect();
                let new = snapshot([service(WEB, &all)]);
                let before = known.as_ref().map_or(Before::Adopted(&map_state, None), Before::Answer);
                list(&mut first_answers, &new, before, now);
                known = Some(new);
                Vec::new()
            } else if result == Some(now) {
                let ((_, probe), (n, outcome)) = results.pop_first().unwrap();
                if outcome == Outcome::Answered {
                    answered.entry(n).or_insert(now);
                }
                first_answers.probed(Probed { probe, outcome }, now)
            } else {
                first_answers.wake(now)
            };
            for effect in effects {
                let Effect::Probe(Order::Once { probe, to }) = effect else { continue };
                let (n, task) = (to.port(), &tasks[usize::from(to.port()) - 1]);
                prop_assert!(results.values().all(|(other, _)| *other != n), "probed twice at once");
                started.push(now);
                let accepts = now >= at(task.listed.saturating_add(task.accepts).min(1 << 40));
                let outcome = if accepts { Outcome::Answered } else { Outcome::Refused };
                results.insert((now + Duration::from_millis(task.probe_takes), probe), (n, outcome));
            }
        }
        for window in started.windows(201) {
            prop_assert!(window[200] - window[0] >= Duration::from_secs(1), "more than 200 probes in a second");
        }
        for (n, task) in (1_u16..).zip(&tasks) {
            let deadline = at(task.listed) - Duration::from_millis(task.age) + NEW_FOR;
            let expected = (deadline > at(task.listed)).then(|| {
                answered.get(&n).copied().filter(|answered| *answered < deadline).unwrap_or(deadline)
            });
            prop_assert_eq!(last_held.get(&n).copied(), expected, "task {}: {:?}", n, task);
        }
        prop_assert_eq!(first_answers.count(), 0);
    }
}
