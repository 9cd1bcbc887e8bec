//! Which losses are published at once, which must be confirmed, and what confirms them.

use super::*;
use crate::model::{Protocol, Service, ServiceKey, Start, Weight};

const CONFIRM: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Returns services from port 1000 on, each with the backends of these tasks.
fn snapshot(services: &[&str]) -> Snapshot {
    let backend = |task: &str| Backend {
        task: task.into(),
        address: IpAddr::from([10, 0, 0, 1]),
        port: 1,
        weight: Weight::default(),
        maxconn: 0,
        state: State::Active,
    };
    let service = |(nth, tasks): (u16, &&str)| {
        let backends = tasks.split_whitespace().map(backend).collect();
        let service = Service { name: format!("/{nth}"), backends, ..service() };
        (ServiceKey::host(1000 + nth, Protocol::Tcp), Arc::new(service))
    };
    Snapshot { services: (0..).zip(services).map(service).collect(), warnings: Vec::new() }
}

fn of(at: Instant, scope: RefreshScope, snapshot: Snapshot) -> Response {
    Response { at, scope, snapshot, notes: TaskNotes::default(), awaited: BTreeMap::new() }
}

/// Returns the state after an earlier agent that has published these services.
fn after(services: &[&str]) -> PublishedState {
    PublishedState::after(snapshot(services), Snapshot::default())
}

fn service() -> Service {
    Service::default()
}

/// Returns the backends of each service, draining ones in brackets.
fn shown(published: &PublishedState) -> Vec<String> {
    let (_, snapshot) = published.latest().unwrap();
    let one = |it: &Backend| if it.state == State::Draining { format!("({})", it.task) } else { it.task.clone() };
    let all = |it: &Arc<Service>| it.backends.iter().map(one).collect::<Vec<_>>().join(" ");
    snapshot.services.values().map(all).collect()
}

/// Returns the state after a first response with these services.
fn published(services: &[&str]) -> (PublishedState, Instant) {
    let (mut published, now) = (PublishedState::default(), Instant::now());
    published.on_response(of(now, RefreshScope::All, snapshot(services)), now, CONFIRM).unwrap();
    (published, now)
}

fn listed(published: &mut PublishedState, at: Instant, services: &[&str]) -> Vec<String> {
    published.on_response(of(at, RefreshScope::All, snapshot(services)), at, CONFIRM).unwrap();
    shown(published)
}

fn end(published: &mut PublishedState, task: &str, still_running: bool, now: Instant) -> bool {
    published.task_ended(TaskEnded { task: task.into(), still_running }, Some("/app".into()), now)
}

#[test]
fn loss_of_more_than_half_needs_a_second_response() {
    let (mut published, now) = published(&["a b c d", "x"]);
    assert_eq!(listed(&mut published, now, &["a b", "x"]), ["a b", "x"]);
    assert_eq!(published.confirm_at(CONFIRM), None);
    let lost = now + 10 * MS;
    assert_eq!(listed(&mut published, lost, &["a b", ""]), ["a b", "x"]);
    assert_eq!(published.confirm_at(CONFIRM), Some(lost + CONFIRM));
    assert!(published.latest().unwrap().1.warnings[0].reason.contains("1001/tcp lost more than half"));
    assert_eq!(listed(&mut published, lost + 500 * MS, &["a b", ""]), ["a b", "x"], "too soon to confirm the loss");
    assert_eq!(listed(&mut published, lost + CONFIRM, &["a b", ""]), ["a b", ""]);
    assert_eq!(published.confirm_at(CONFIRM), None);
    assert_eq!(published.latest().unwrap().1.warnings, []);
}

#[test]
fn started_task_without_a_check_is_published_as_new() {
    let (mut published, now) = published(&["b"]);
    let mut started = snapshot(&["a"]);
    for service in started.services.values_mut() {
        Arc::make_mut(service).unchecked.insert("a".into(), Start::Unknown);
    }
    assert!(published.task_started(&started, now));
    let (_, latest) = published.latest().unwrap();
    let unchecked: Vec<_> = latest.services.values().flat_map(|it| &it.unchecked).collect();
    assert_eq!(unchecked, [(&"a".to_owned(), &Start::Unknown)]);
}

#[test]
fn started_task_is_published_until_a_response() {
    let (mut published, now) = published(&["b", "x"]);
    assert!(published.task_started(&snapshot(&["a", "x"]), now), "b stays, a is new");
    assert!(!published.task_started(&snapshot(&["a b"]), now), "published already");
    assert!(!published.task_started(&snapshot(&["", "", "c"]), now), "a service that no response has had");
    assert_eq!(shown(&published), ["a b", "x"]);
    let mut other = snapshot(&["c"]);
    for service in other.services.values_mut() {
        Arc::make_mut(service).name = "/other".into();
    }
    assert!(!published.task_started(&other, now), "the service of another app");
    assert_eq!(listed(&mut published, now + CONFIRM, &["b", "x"]), ["b", "x"]);
}

#[test]
fn ended_task_does_not_start_again_by_an_event() {
    let (mut published, now) = published(&["a b"]);
    assert!(end(&mut published, "a", true, now));
    assert!(!published.task_started(&snapshot(&["a"]), now));
    assert_eq!(shown(&published), ["(a) b"]);
    assert!(end(&mut published, "a", false, now));
    assert!(!published.task_started(&snapshot(&["a"]), now));
    assert_eq!(shown(&published), ["b"]);
}

#[test]
fn warming_task_becomes_active_when_it_starts() {
    let (mut published, now) = (PublishedState::default(), Instant::now());
    let mut starting = snapshot(&["a b"]);
    for service in starting.services.values_mut() {
        Arc::make_mut(service).backends[0].state = State::Warming;
    }
    published.on_response(of(now, RefreshScope::All, starting), now, CONFIRM).unwrap();
    assert!(published.task_started(&snapshot(&["a"]), now));
    assert_eq!(published.latest().unwrap().1, snapshot(&["a b"]));
}

#[test]
fn loss_that_the_next_response_refutes_is_forgotten() {
    let (mut published, now) = published(&["a b c", "x"]);
    assert_eq!(listed(&mut published, now, &[]), ["a b c", "x"]);
    assert_eq!(listed(&mut published, now + CONFIRM, &["a b c", "x"]), ["a b c", "x"]);
    assert_eq!(published.confirm_at(CONFIRM), None);
    assert_eq!(listed(&mut published, now + 2 * CONFIRM, &[]), ["a b c", "x"], "another loss");
    assert_eq!(listed(&mut published, now + 3 * CONFIRM, &[]), [""; 0]);
}

#[test]
fn new_backends_are_published_during_a_loss() {
    let (mut published, now) = published(&["a b c"]);
    assert_eq!(listed(&mut published, now, &["d", "x"]), ["a b c d", "x"]);
}

#[test]
fn replaced_backends_are_not_a_loss() {
    let (mut published, now) = published(&["a b c"]);
    assert_eq!(listed(&mut published, now, &["d e"]), ["d e"]);
}

#[test]
fn response_about_one_app_confirms_no_loss() {
    let (mut published, now) = published(&["a b c"]);
    listed(&mut published, now, &[""]);
    let later = now + 2 * CONFIRM;
    let one = RefreshScope::Apps(["/app".to_owned()].into());
    published.on_response(of(later, one, snapshot(&[""])), later, CONFIRM).unwrap();
    assert_eq!(shown(&published), ["a b c"]);
    assert_eq!(listed(&mut published, later, &[""]), [""]);
}

#[test]
fn empty_first_response_needs_a_second_response() {
    let (mut published, now) = (PublishedState::default(), Instant::now());
    for (at, confirmed) in [(now, false), (now + 500 * MS, false), (now + CONFIRM, true)] {
        assert_eq!(published.on_response(of(at, RefreshScope::All, snapshot(&[])), at, CONFIRM).is_ok(), confirmed);
        assert_eq!(published.latest().is_some(), confirmed);
    }
}

#[test]
fn first_response_is_compared_with_adopted_services() {
    let (mut published, now) = (after(&["a b c", "x"]), Instant::now());
    assert_eq!(published.latest(), None);
    assert_eq!(listed(&mut published, now, &["a", "x"]), ["a b c", "x"]);
    assert_eq!(published.confirm_at(CONFIRM), Some(now + CONFIRM));
    assert_eq!(listed(&mut published, now + CONFIRM, &["a", "x"]), ["a", "x"]);
    // Up to half may be gone, and others may replace them.
    let mut published = after(&["a b c d"]);
    assert_eq!(listed(&mut published, now, &["a e"]), ["a e"]);
    assert_eq!(published.confirm_at(CONFIRM), None);
}

#[test]
fn empty_response_after_adoption_needs_a_second_response() {
    let (mut published, now) = (after(&["a b"]), Instant::now());
    assert!(published.on_response(of(now, RefreshScope::All, snapshot(&[])), now, CONFIRM).is_err());
    assert_eq!(listed(&mut published, now + CONFIRM, &[]), [""; 0]);
}

#[test]
fn task_ended_before_the_first_response_is_not_a_loss() {
    let (mut published, now) = (after(&["a b c"]), Instant::now());
    assert!(!end(&mut published, "a", false, now) && !end(&mut published, "b", false, now));
    assert_eq!(published.latest(), None);
    assert_eq!(listed(&mut published, now, &["c"]), ["c"]);
    assert_eq!(published.confirm_at(CONFIRM), None);
}

#[test]
fn ended_task_leaves_at_once_and_is_not_a_loss() {
    let (mut published, now) = published(&["a b c d"]);
    assert!(end(&mut published, "a", true, now));
    assert!(end(&mut published, "b", false, now));
    assert!(end(&mut published, "c", false, now));
    assert_eq!(shown(&published), ["(a) d"]);
    assert!(!end(&mut published, "b", false, now), "a second time");
    assert!(!end(&mut published, "unknown", false, now));
    assert_eq!(listed(&mut published, now + MS, &["d"]), ["d"]);
    assert_eq!(published.confirm_at(CONFIRM), None);
}

#[test]
fn last_task_of_a_service_only_drains_by_an_event() {
    let (mut published, now) = published(&["a b"]);
    assert!(end(&mut published, "a", false, now));
    assert_eq!(shown(&published), ["b"]);
    assert!(end(&mut published, "b", false, now));
    assert_eq!(shown(&published), ["(b)"], "until a response names the next ones");
    assert_eq!(listed(&mut published, now + MS, &["c d"]), ["c d"]);
}

#[test]
fn only_a_request_after_the_event_brings_a_task_back() {
    let (mut published, now) = published(&["a b"]);
    end(&mut published, "a", false, now + 5 * MS);
    end(&mut published, "b", true, now + 5 * MS);
    assert_eq!(listed(&mut published, now + 4 * MS, &["a b"]), ["(b)"]);
    let other = RefreshScope::Apps(["/other".to_owned()].into());
    published.on_response(of(now + 6 * MS, other, snapshot(&["a b"])), now, CONFIRM).unwrap();
    assert_eq!(shown(&published), ["(b)"]);
    assert_eq!(listed(&mut published, now + 6 * MS, &["a b"]), ["a b"]);
}

#[test]
fn unchanged_services_stay_shared_in_memory() {
    let (mut published, now) = published(&["a b", "c d"]);
    let [first, second] = [1000, 1001].map(|port| ServiceKey::host(port, Protocol::Tcp));
    let (_, before) = published.latest().unwrap();
    assert!(end(&mut published, "a", false, now));
    let (_, after) = published.latest().unwrap();
    assert_ne!(
        before.services[&first], after.services[&first],
        "the snapshot that was published before does not change"
    );
    assert!(Arc::ptr_eq(&before.services[&second], &after.services[&second]));
    // An event that is known already copies no service either.
    let mut listed = snapshot(&["b", "c d"]);
    listed.share(&after);
    published.on_response(of(now, RefreshScope::All, listed), now, CONFIRM).unwrap();
    let (_, next) = published.latest().unwrap();
    assert!(next.services.iter().all(|(key, service)| Arc::ptr_eq(service, &after.services[key])));
}

#[test]
fn late_event_of_a_stop_does_not_bring_a_task_back() {
    let (mut published, now) = published(&["a b"]);
    end(&mut published, "a", false, now + MS);
    end(&mut published, "a", true, now + 2 * MS);
    assert_eq!(listed(&mut published, now, &["a b"]), ["b"]);
}

/// Returns the backends after a response with these notes.
fn noted(
    published: &mut PublishedState,
    at: Instant,
    services: &[&str],
    unplaced: &[&str],
    unreachable: &[&str],
) -> Vec<String> {
    let of_app = |tasks: &[&str]| tasks.iter().map(|task| ((*task).to_owned(), "/app".to_owned())).collect();
    let notes = TaskNotes { unplaced: of_app(unplaced), unreachable: of_app(unreachable), ..TaskNotes::default() };
    let response = Response { notes, ..of(at, RefreshScope::All, snapshot(services)) };
    published.on_response(response, at, CONFIRM).unwrap();
    shown(published)
}

#[test]
fn task_of_an_app_that_is_left_out_stays_nowhere() {
    for (unplaced, unreachable) in [(&["x"][..], &[][..]), (&[], &["x"])] {
        let (mut published, now) = published(&["a b x", "x"]);
        let of_app = |tasks: &[&str]| tasks.iter().map(|task| ((*task).to_owned(), "/evil".to_owned())).collect();
        let left_out = [(ServiceKey::host(1000, Protocol::Tcp), "/evil".to_owned())].into();
        let (unplaced, unreachable) = (of_app(unplaced), of_app(unreachable));
        let notes = TaskNotes { unplaced, unreachable, left_out, ..TaskNotes::default() };
        let response = Response { notes, ..of(now + CONFIRM, RefreshScope::All, snapshot(&["a b", ""])) };
        published.on_response(response, now + CONFIRM, CONFIRM).unwrap();
        assert_eq!(shown(&published), ["a b", "(x)"], "it stays in the service that it may join");
    }
}

#[test]
fn task_without_a_known_place_drains_where_it_was() {
    let (mut published, now) = published(&["a b", "c"]);
    let later = now + CONFIRM;
    assert_eq!(noted(&mut published, later, &["b", ""], &["a", "c"], &[]), ["(a) b", "(c)"]);
    assert_eq!(published.confirm_at(CONFIRM), None, "that is no loss");
    assert_eq!(
        noted(&mut published, later, &["b"], &["a", "c"], &[]),
        ["(a) b", "(c)"],
        "a service of only such tasks"
    );
    end(&mut published, "a", false, later);
    assert_eq!(noted(&mut published, later, &["b", ""], &["a", "c"], &[]), ["b", "(c)"]);
    assert_eq!(listed(&mut published, later + CONFIRM, &["b", "c"]), ["b", "c"]);
    assert_eq!(listed(&mut published, later + CONFIRM, &["b", "d"]), ["b", "d"]);
}

#[test]
fn unreachable_task_stays_until_its_service_has_an_active_one() {
    let (mut published, now) = published(&["a b", "x"]);
    published.task_unreachable("a".into(), now);
    published.task_unreachable("b".into(), now);
    published.task_unreachable("x".into(), now);
    assert_eq!(listed(&mut published, now, &["", "x"]), ["(a) (b)", "x"]);
    assert_eq!(published.confirm_at(CONFIRM), None, "that is no loss");
    assert_eq!(listed(&mut published, now + CONFIRM, &["", ""]), ["(a) (b)", "x"], "x has come back");
    let mut warming = snapshot(&["c", "y"]);
    for service in warming.services.values_mut() {
        Arc::make_mut(service).backends[0].state = State::Warming;
    }
    published.on_response(of(now + 2 * CONFIRM, RefreshScope::All, warming), now + 2 * CONFIRM, CONFIRM).unwrap();
    assert_eq!(shown(&published)[0], "(a) (b) c", "a replacement that warms up does not push them out");
    end(&mut published, "a", false, now + 2 * CONFIRM);
    assert_eq!(shown(&published)[0], "(b) c");
    assert_eq!(listed(&mut published, now + 3 * CONFIRM, &["c", "y"]), ["c", "y"]);
}

#[test]
fn unreachable_task_stays_beside_a_new_one_without_a_check() {
    let (mut published, now) = published(&["a"]);
    published.task_unreachable("a".into(), now);
    let mut replaced = snapshot(&["c"]);
    for service in replaced.services.values_mut() {
        Arc::make_mut(service).unchecked.insert("c".into(), Start::At(now));
    }
    published.on_response(of(now, RefreshScope::All, replaced), now, CONFIRM).unwrap();
    assert_eq!(shown(&published), ["(a) c"]);
    assert_eq!(listed(&mut published, now + CONFIRM, &["c"]), ["c"], "it is no longer new");
}

#[test]
fn unreachable_task_is_forgotten_after_five_minutes() {
    let (mut published, now) = published(&["a", "x"]);
    assert_eq!(noted(&mut published, now, &["a", "x"], &[], &["a"]), ["a", "x"]);
    let last = now + UNREACHABLE - MS;
    assert_eq!(listed(&mut published, last, &["", "x"]), ["(a)", "x"]);
    assert_eq!(listed(&mut published, last + MS, &["", "x"]), ["(a)", "x"], "a loss that must be confirmed");
    assert_eq!(listed(&mut published, last + MS + CONFIRM, &["", "x"]), ["", "x"]);
}

#[test]
fn first_event_of_an_instance_announces_no_end() {
    let (mut published, now) = published(&["b"]);
    assert!(published.task_started(&snapshot(&["a.i._app.1"]), now));
    let running = |at| InstanceChanged { instance: "a.i".into(), is_running: true, at: Some(at) };
    assert_eq!(published.instance_changed(running(1), now), (false, false), "its task runs since a moment");
    assert_eq!(published.instance_changed(running(2), now), (true, true));
    assert_eq!(shown(&published), ["(a.i._app.1) b"]);
    assert_eq!(listed(&mut published, now + CONFIRM, &["a.i._app.1 b"]), ["(a.i._app.1) b"]);
    assert_eq!(listed(&mut published, now + 6 * CONFIRM, &["a.i._app.1 b"]), ["a.i._app.1 b"], "no end has followed");
}

#[test]
fn unreachable_task_that_has_ended_since_is_no_last_resort() {
    let (mut published, now) = published(&["a.i._app.1 a.j._app.1"]);
    published.task_unreachable("a.i._app.1".into(), now);
    published.task_unreachable("a.j._app.1".into(), now);
    assert_eq!(listed(&mut published, now, &[""]), ["(a.i._app.1) (a.j._app.1)"]);
    published.replaced_ended("a.i");
    assert_eq!(listed(&mut published, now, &[""]), ["(a.j._app.1)"]);
}
