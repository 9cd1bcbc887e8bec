//! What is believed at once, what is doubted, and what ends a doubt.

use super::*;
use crate::model::{Protocol, State, Weight};

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
    let service = |(port, tasks): (u16, &&str)| {
        let backends = tasks.split_whitespace().map(backend).collect();
        let service = Service { name: format!("/{port}"), backends, ..Service::default() };
        (ServiceKey::host(port, Protocol::Tcp), Arc::new(service))
    };
    Snapshot { services: (1000..).zip(services).map(service).collect(), warnings: Vec::new() }
}

fn asked(at: Instant) -> Asked {
    Asked { at, now: at, confirm: CONFIRM, whole: true }
}

/// What becomes of an answer, and the warnings.
fn weighed(doubts: &mut LossGuard, before: &[&str], fresh: &[&str], asked: &Asked) -> (Snapshot, Vec<String>) {
    let mut fresh = snapshot(fresh);
    doubts.filter(&snapshot(before), &mut fresh, &BTreeSet::new(), asked);
    let reasons = std::mem::take(&mut fresh.warnings).into_iter().map(|it| it.reason).collect();
    (fresh, reasons)
}

#[test]
fn half_may_go_at_once_and_so_may_all_where_others_come() {
    let now = Instant::now();
    for (before, fresh) in [("a b c d", "a b"), ("a b c d", "e f"), ("a b", "b"), ("a", "b"), ("", "")] {
        let mut doubts = LossGuard::default();
        assert_eq!(weighed(&mut doubts, &[before], &[fresh], &asked(now)), (snapshot(&[fresh]), vec![]), "{before}");
        assert_eq!(doubts.again(CONFIRM), None);
    }
}

#[test]
fn more_than_half_stay_beside_what_is_listed_until_a_later_answer_about_everything() {
    let (mut doubts, now) = (LossGuard::default(), Instant::now());
    let before = ["a b c d e", "x", "y z"];
    let kept = snapshot(&["a b c d e f", "x", "y"]);
    let later = now + CONFIRM;
    let part = Asked { whole: false, ..asked(later) };
    let (early, late) = (now + CONFIRM / 2, asked(later));
    for asked in [asked(now), asked(early), part] {
        let (fresh, reasons) = weighed(&mut doubts, &before, &["a f", "", "y"], &asked);
        assert_eq!(fresh, kept, "{asked:?}");
        assert!(
            matches!(&reasons[..], [one] if one.contains("1000/tcp and 1 others lost more than half")),
            "{reasons:?}"
        );
        assert_eq!(doubts.again(CONFIRM), Some(later), "since the first");
    }
    assert_eq!(weighed(&mut doubts, &before, &["a f", "", "y"], &late), (snapshot(&["a f", "", "y"]), vec![]));
    assert_eq!(doubts.again(CONFIRM), None);
}

#[test]
fn an_answer_without_the_doubt_ends_it_and_the_next_one_is_a_doubt_of_its_own() {
    let (mut doubts, now) = (LossGuard::default(), Instant::now());
    for (seconds, fresh, kept) in [(0, "", "a"), (1, "a", "a"), (2, "", "a"), (3, "", "")] {
        let (fresh, _) = weighed(&mut doubts, &["a"], &[fresh], &asked(now + seconds * CONFIRM));
        assert_eq!(fresh, snapshot(&[kept]), "{seconds}");
    }
}

#[test]
fn what_is_about_to_leave_is_not_missed_and_not_kept() {
    let (mut doubts, now) = (LossGuard::default(), Instant::now());
    let leaving = ["a", "b"].map(String::from).into();
    let mut fresh = snapshot(&["c"]);
    doubts.filter(&snapshot(&["a b c"]), &mut fresh, &leaving, &asked(now));
    assert_eq!(fresh, snapshot(&["c"]));
    let mut fresh = snapshot(&[""]);
    doubts.filter(&snapshot(&["a b c"]), &mut fresh, &leaving, &asked(now));
    assert_eq!(fresh.services, snapshot(&["c"]).services);
}

#[test]
fn that_there_is_nothing_at_all_is_believed_when_it_is_said_later_again() {
    let (mut doubts, now) = (LossGuard::default(), Instant::now());
    assert!(doubts.nothing(&asked(now)));
    assert_eq!(doubts.again(CONFIRM), Some(now + CONFIRM));
    assert!(doubts.nothing(&asked(now + CONFIRM / 2)));
    assert!(!doubts.nothing(&asked(now + CONFIRM)));
    // And so is what the same answers lack of what was there before.
    assert_eq!(weighed(&mut doubts, &["a"], &[], &asked(now + CONFIRM)), (snapshot(&[]), vec![]));
}
