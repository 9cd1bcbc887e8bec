//! What is believed at once, what is doubted, and what ends a doubt.

use std::net::IpAddr;

use super::*;
use crate::model::{Protocol, Service, ServiceKey, Weight};

const CONFIRM: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// Services from 1000 on, each with the backends of these tasks.
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

fn service() -> Service {
    Service::default()
}

/// The backends of each service; draining ones in brackets.
fn shown(held: &PublishedState) -> Vec<String> {
    let (_, snapshot) = held.said().unwrap();
    let one = |it: &Backend| if it.state == State::Draining { format!("({})", it.task) } else { it.task.clone() };
    let all = |it: &Arc<Service>| it.backends.iter().map(one).collect::<Vec<_>>().join(" ");
    snapshot.services.values().map(all).collect()
}

/// What is held after a first answer.
fn held(services: &[&str]) -> (PublishedState, Instant) {
    let (mut held, now) = (PublishedState::default(), Instant::now());
    held.answer((now, RefreshScope::All, snapshot(services)), now, CONFIRM).unwrap();
    (held, now)
}

fn listed(held: &mut PublishedState, at: Instant, services: &[&str]) -> Vec<String> {
    held.answer((at, RefreshScope::All, snapshot(services)), at, CONFIRM).unwrap();
    shown(held)
}

fn end(held: &mut PublishedState, task: &str, lingers: bool, now: Instant) -> bool {
    held.end(End { task: task.into(), still_running: lingers }, Some("/app".into()), now)
}

#[test]
fn up_to_half_may_go_at_once_and_more_only_when_a_later_answer_says_so_too() {
    let (mut held, now) = held(&["a b c d", "x"]);
    assert_eq!(listed(&mut held, now, &["a b", "x"]), ["a b", "x"]);
    assert_eq!(held.again(CONFIRM), None);
    let doubted = now + 10 * MS;
    assert_eq!(listed(&mut held, doubted, &["a b", ""]), ["a b", "x"]);
    assert_eq!(held.again(CONFIRM), Some(doubted + CONFIRM));
    assert!(held.said().unwrap().1.warnings[0].reason.contains("1001/tcp lost more than half"));
    assert_eq!(listed(&mut held, doubted + 500 * MS, &["a b", ""]), ["a b", "x"], "too soon to be another answer");
    assert_eq!(listed(&mut held, doubted + CONFIRM, &["a b", ""]), ["a b", ""]);
    assert_eq!(held.again(CONFIRM), None);
    assert_eq!(held.said().unwrap().1.warnings, []);
}

#[test]
fn what_an_event_says_runs_is_in_until_an_answer_says_otherwise() {
    let (mut held, now) = held(&["b", "x"]);
    assert!(held.start(&snapshot(&["a", "x"])), "b stays, a is new");
    assert!(!held.start(&snapshot(&["a b"])), "said already");
    assert!(!held.start(&snapshot(&["", "", "c"])), "a service that no answer has had");
    assert_eq!(shown(&held), ["a b", "x"]);
    let mut other = snapshot(&["c"]);
    for service in other.services.values_mut() {
        Arc::make_mut(service).name = "/other".into();
    }
    assert!(!held.start(&other), "the service of another app");
    assert_eq!(listed(&mut held, now + CONFIRM, &["b", "x"]), ["b", "x"]);
}

#[test]
fn a_task_that_ends_is_not_brought_back_by_a_word_that_it_runs() {
    let (mut held, now) = held(&["a b"]);
    assert!(end(&mut held, "a", true, now));
    assert!(!held.start(&snapshot(&["a"])));
    assert_eq!(shown(&held), ["(a) b"]);
    assert!(end(&mut held, "a", false, now));
    assert!(!held.start(&snapshot(&["a"])));
    assert_eq!(shown(&held), ["b"]);
}

#[test]
fn a_task_that_was_listed_before_it_ran_gets_connections_as_it_runs() {
    let (mut held, now) = (PublishedState::default(), Instant::now());
    let mut starting = snapshot(&["a b"]);
    for service in starting.services.values_mut() {
        Arc::make_mut(service).backends[0].state = State::Warming;
    }
    held.answer((now, RefreshScope::All, starting), now, CONFIRM).unwrap();
    assert!(held.start(&snapshot(&["a"])));
    assert_eq!(held.said().unwrap().1, snapshot(&["a b"]));
}

#[test]
fn a_doubt_that_the_next_answer_does_not_share_is_over() {
    let (mut held, now) = held(&["a b c", "x"]);
    assert_eq!(listed(&mut held, now, &[]), ["a b c", "x"]);
    assert_eq!(listed(&mut held, now + CONFIRM, &["a b c", "x"]), ["a b c", "x"]);
    assert_eq!(held.again(CONFIRM), None);
    assert_eq!(listed(&mut held, now + 2 * CONFIRM, &[]), ["a b c", "x"], "a doubt of its own");
    assert_eq!(listed(&mut held, now + 3 * CONFIRM, &[]), [""; 0]);
}

#[test]
fn what_is_new_is_not_held_up_by_a_doubt() {
    let (mut held, now) = held(&["a b c"]);
    assert_eq!(listed(&mut held, now, &["d", "x"]), ["a b c d", "x"]);
}

#[test]
fn backends_that_take_the_place_of_others_are_no_loss() {
    let (mut held, now) = held(&["a b c"]);
    assert_eq!(listed(&mut held, now, &["d e"]), ["d e"]);
}

#[test]
fn an_answer_about_one_app_confirms_nothing() {
    let (mut held, now) = held(&["a b c"]);
    listed(&mut held, now, &[""]);
    let later = now + 2 * CONFIRM;
    let one = RefreshScope::Apps(["/app".to_owned()].into());
    held.answer((later, one, snapshot(&[""])), later, CONFIRM).unwrap();
    assert_eq!(shown(&held), ["a b c"]);
    assert_eq!(listed(&mut held, later, &[""]), [""]);
}

#[test]
fn nothing_at_all_as_the_first_answer_is_doubted_too() {
    let (mut held, now) = (PublishedState::default(), Instant::now());
    for (at, believed) in [(now, false), (now + 500 * MS, false), (now + CONFIRM, true)] {
        assert_eq!(held.answer((at, RefreshScope::All, snapshot(&[])), at, CONFIRM).is_ok(), believed);
        assert_eq!(held.said().is_some(), believed);
    }
}

#[test]
fn the_first_answer_is_measured_by_what_was_adopted() {
    let (mut held, now) = (PublishedState::after(snapshot(&["a b c", "x"])), Instant::now());
    assert_eq!(held.said(), None);
    assert_eq!(listed(&mut held, now, &["a", "x"]), ["a b c", "x"]);
    assert_eq!(held.again(CONFIRM), Some(now + CONFIRM));
    assert_eq!(listed(&mut held, now + CONFIRM, &["a", "x"]), ["a", "x"]);
    // Up to half may be gone, and others be there in their place.
    let mut held = PublishedState::after(snapshot(&["a b c d"]));
    assert_eq!(listed(&mut held, now, &["a e"]), ["a e"]);
    assert_eq!(held.again(CONFIRM), None);
}

#[test]
fn nothing_at_all_after_something_was_adopted_is_believed_by_the_second_answer() {
    let (mut held, now) = (PublishedState::after(snapshot(&["a b"])), Instant::now());
    assert!(held.answer((now, RefreshScope::All, snapshot(&[])), now, CONFIRM).is_err());
    assert_eq!(listed(&mut held, now + CONFIRM, &[]), [""; 0]);
}

#[test]
fn an_end_before_the_first_answer_says_nothing_and_makes_the_absence_no_wonder() {
    let (mut held, now) = (PublishedState::after(snapshot(&["a b c"])), Instant::now());
    assert!(!end(&mut held, "a", false, now) && !end(&mut held, "b", false, now));
    assert_eq!(held.said(), None);
    assert_eq!(listed(&mut held, now, &["c"]), ["c"]);
    assert_eq!(held.again(CONFIRM), None);
}

#[test]
fn what_events_say_has_ended_leaves_at_once_and_its_absence_is_no_wonder() {
    let (mut held, now) = held(&["a b c d"]);
    assert!(end(&mut held, "a", true, now));
    assert!(end(&mut held, "b", false, now));
    assert!(end(&mut held, "c", false, now));
    assert_eq!(shown(&held), ["(a) d"]);
    assert!(!end(&mut held, "b", false, now), "a second time");
    assert!(!end(&mut held, "unknown", false, now));
    assert_eq!(listed(&mut held, now + MS, &["d"]), ["d"]);
    assert_eq!(held.again(CONFIRM), None);
}

#[test]
fn an_event_alone_leaves_no_service_without_backends() {
    let (mut held, now) = held(&["a b"]);
    assert!(end(&mut held, "a", false, now));
    assert_eq!(shown(&held), ["b"]);
    assert!(end(&mut held, "b", false, now));
    assert_eq!(shown(&held), ["(b)"], "until an answer says what is there instead");
    assert_eq!(listed(&mut held, now + MS, &["c d"]), ["c d"]);
}

#[test]
fn an_answer_asked_for_before_the_event_does_not_bring_a_task_back_and_one_asked_for_later_does() {
    let (mut held, now) = held(&["a b"]);
    end(&mut held, "a", false, now + 5 * MS);
    end(&mut held, "b", true, now + 5 * MS);
    assert_eq!(listed(&mut held, now + 4 * MS, &["a b"]), ["(b)"]);
    let other = RefreshScope::Apps(["/other".to_owned()].into());
    held.answer((now + 6 * MS, other, snapshot(&["a b"])), now, CONFIRM).unwrap();
    assert_eq!(shown(&held), ["(b)"]);
    assert_eq!(listed(&mut held, now + 6 * MS, &["a b"]), ["a b"]);
}

#[test]
fn what_an_event_does_not_concern_stays_the_very_same_in_memory() {
    let (mut held, now) = held(&["a b", "c d"]);
    let [first, second] = [1000, 1001].map(|port| ServiceKey::host(port, Protocol::Tcp));
    let (_, before) = held.said().unwrap();
    assert!(end(&mut held, "a", false, now));
    let (_, after) = held.said().unwrap();
    assert_ne!(before.services[&first], after.services[&first], "what was said before is not changed");
    assert!(Arc::ptr_eq(&before.services[&second], &after.services[&second]));
    // Nor is a service copied for an event that is known already.
    let mut listed = snapshot(&["b", "c d"]);
    listed.share(&after);
    held.answer((now, RefreshScope::All, listed), now, CONFIRM).unwrap();
    let (_, answered) = held.said().unwrap();
    assert!(answered.services.iter().all(|(key, service)| Arc::ptr_eq(service, &after.services[key])));
}

#[test]
fn a_late_word_that_a_task_is_being_stopped_does_not_bring_it_back() {
    let (mut held, now) = held(&["a b"]);
    end(&mut held, "a", false, now + MS);
    end(&mut held, "a", true, now + 2 * MS);
    assert_eq!(listed(&mut held, now, &["a b"]), ["b"]);
}
