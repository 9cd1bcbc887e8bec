//! Which losses are kept back, and what confirms them.

use super::*;
use crate::model::{Protocol, State, Weight};

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
    let service = |(port, tasks): (u16, &&str)| {
        let backends = tasks.split_whitespace().map(backend).collect();
        let service = Service { name: format!("/{port}"), backends, ..Service::default() };
        (ServiceKey::host(port, Protocol::Tcp), Arc::new(service))
    };
    Snapshot { services: (1000..).zip(services).map(service).collect(), warnings: Vec::new() }
}

fn response(at: Instant) -> Response {
    Response { at, now: at, confirm: CONFIRM, whole: true, published: true }
}

/// Returns the filtered response, and the warnings.
fn filtered(guard: &mut LossGuard, before: &[&str], fresh: &[&str], response: &Response) -> (Snapshot, Vec<String>) {
    let mut fresh = snapshot(fresh);
    guard.filter(&snapshot(before), &mut fresh, &BTreeSet::new(), response);
    let reasons = std::mem::take(&mut fresh.warnings).into_iter().map(|it| it.reason).collect();
    (fresh, reasons)
}

#[test]
fn half_may_go_at_once_and_all_if_others_come() {
    let now = Instant::now();
    for (before, fresh) in [("a b c d", "a b"), ("a b c d", "e f"), ("a b", "b"), ("a", "b"), ("", "")] {
        let mut guard = LossGuard::default();
        assert_eq!(filtered(&mut guard, &[before], &[fresh], &response(now)), (snapshot(&[fresh]), vec![]), "{before}");
        assert_eq!(guard.confirm_at(CONFIRM), None);
    }
}

#[test]
fn lost_backends_stay_until_a_later_full_response() {
    let (mut guard, now) = (LossGuard::default(), Instant::now());
    let before = ["a b c d e", "x", "y z"];
    let kept = snapshot(&["a b c d e f", "x", "y"]);
    let later = now + CONFIRM;
    let part = Response { whole: false, ..response(later) };
    let (early, late) = (now + CONFIRM / 2, response(later));
    for response in [response(now), response(early), part] {
        let (fresh, reasons) = filtered(&mut guard, &before, &["a f", "", "y"], &response);
        assert_eq!(fresh, kept, "{response:?}");
        assert!(
            matches!(&reasons[..], [one] if one.contains("1000/tcp and 1 others lost more than half")),
            "{reasons:?}"
        );
        assert_eq!(guard.confirm_at(CONFIRM), Some(later), "counted from the first response");
    }
    assert_eq!(filtered(&mut guard, &before, &["a f", "", "y"], &late), (snapshot(&["a f", "", "y"]), vec![]));
    assert_eq!(guard.confirm_at(CONFIRM), None);
}

#[test]
fn refuted_loss_is_forgotten_and_the_next_one_is_new() {
    let (mut guard, now) = (LossGuard::default(), Instant::now());
    for (seconds, fresh, kept) in [(0, "", "a"), (1, "a", "a"), (2, "", "a"), (3, "", "")] {
        let (fresh, _) = filtered(&mut guard, &["a"], &[fresh], &response(now + seconds * CONFIRM));
        assert_eq!(fresh, snapshot(&[kept]), "{seconds}");
    }
}

#[test]
fn leaving_task_is_neither_lost_nor_kept() {
    let (mut guard, now) = (LossGuard::default(), Instant::now());
    let leaving = ["a", "b"].map(String::from).into();
    let mut fresh = snapshot(&["c"]);
    guard.filter(&snapshot(&["a b c"]), &mut fresh, &leaving, &response(now));
    assert_eq!(fresh, snapshot(&["c"]));
    let mut fresh = snapshot(&[""]);
    guard.filter(&snapshot(&["a b c"]), &mut fresh, &leaving, &response(now));
    assert_eq!(fresh.services, snapshot(&["c"]).services);
}

#[test]
fn empty_first_response_counts_if_a_later_one_confirms_it() {
    let (mut guard, now) = (LossGuard::default(), Instant::now());
    assert!(guard.holds_empty(&response(now)));
    assert_eq!(guard.confirm_at(CONFIRM), Some(now + CONFIRM));
    assert!(guard.holds_empty(&response(now + CONFIRM / 2)));
    assert!(!guard.holds_empty(&response(now + CONFIRM)));
    // The same responses confirm the loss of earlier backends.
    assert_eq!(filtered(&mut guard, &["a"], &[], &response(now + CONFIRM)), (snapshot(&[]), vec![]));
}

#[test]
fn new_owner_counts_after_a_second_response_confirms_it() {
    let owned = |owner: &str, tasks: &str| {
        let mut snapshot = snapshot(&[tasks]);
        snapshot.services.values_mut().for_each(|it| Arc::make_mut(it).owner = Some(owner.to_owned()));
        snapshot
    };
    let (mut guard, now, before) = (LossGuard::default(), Instant::now(), owned("/web", "a b"));
    let mut seen = |fresh: &Snapshot, response: &Response| {
        let mut fresh = fresh.clone();
        guard.filter(&before, &mut fresh, &BTreeSet::new(), response);
        fresh.services
    };
    let other = owned("/evil", "x y");
    assert_eq!(seen(&other, &response(now)), before.services, "nothing of the other app is used yet");
    assert_eq!(seen(&before, &response(now)), before.services);
    assert_eq!(seen(&other, &response(now + CONFIRM)), before.services, "it was refuted");
    assert_eq!(seen(&other, &response(now + CONFIRM * 2)), other.services, "it is confirmed");
    let adopted = Response { published: false, ..response(now) };
    assert_eq!(seen(&other, &adopted), other.services, "the settings of adopted services are not known");
}
