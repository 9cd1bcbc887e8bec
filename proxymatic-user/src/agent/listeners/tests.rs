//! Tests of the checks for listeners, and of what they publish.

use proxymatic_common::{Address, PROTOCOL_TCP, PROTOCOL_UDP, Port};

use super::*;

const WEB: u32 = 7;

fn check(port: u16, protocol: u8, bind_seq: u64, no_listener_seq: u64) -> ListenerCheck {
    let frontend = Frontend::new(Class::HOST, Port::new(port), protocol);
    ListenerCheck { frontend, seq: ListenerSeq { bind_seq, no_listener_seq } }
}

fn listening(on: &[(u8, u16)]) -> Listening {
    let ports = on.iter().map(|(protocol, port)| (*protocol, Port::new(*port))).collect();
    Listening { ports, ..Listening::default() }
}

fn key(port: u16) -> ListenerKey {
    ListenerKey::new(Address::from_v4_word(0), Port::new(port), PROTOCOL_UDP)
}

fn entry(flags: ListenerFlags, bind_seq: u32) -> ListenerEntry {
    ListenerEntry { flags, bind_seq }
}

#[test]
fn first_publication_waits_for_the_first_look() {
    let (mut listeners, start) = (Listeners::default(), Instant::now());
    let (none, scope) = (MapState::default(), Some(ListenerScope::All));
    assert!(!listeners.end_first_look());
    assert_eq!(listeners.first_look(&none, scope, false, start), (true, None), "the worker is busy");
    assert!(listeners.end_first_look());
    assert_eq!(listeners.first_look(&none, scope, true, start), (true, scope));
    assert_eq!(listeners.first_look(&none, scope, true, start + FIRST_LOOK / 2), (true, None));
    assert!(listeners.end_first_look() && !listeners.end_first_look());
    assert_eq!(listeners.first_look(&none, scope, true, start), (false, None));
}

#[test]
fn first_publication_waits_5_s_and_for_no_missing_worker() {
    let (none, scope, start) = (MapState::default(), Some(ListenerScope::All), Instant::now());
    for is_idle in [false, true] {
        let mut listeners = Listeners::default();
        assert!(listeners.first_look(&none, scope, is_idle, start).0);
        assert_eq!(listeners.first_look(&none, scope, is_idle, start + FIRST_LOOK), (false, None));
    }
    assert_eq!(Listeners::default().first_look(&none, None, true, start), (false, None));
}

#[test]
fn published_listeners_become_those_that_were_found() {
    let (same, other) = (ListenerFlags::ON_LOOPBACK, ListenerFlags::ANY_INTERFACE);
    let wanted = [(key(1), same), (key(2), other), (key(3), other)].into();
    let before = [(key(2), entry(other, 1)), (key(3), entry(ListenerFlags::NEW, 2)), (key(4), entry(same, 3))].into();
    let gone = Effect::PublishListener(key(4), None);
    assert_eq!(changes(&wanted, &before, &before), [publish(key(1), same), publish(key(3), other), gone]);
}

#[test]
fn listener_that_a_hook_published_during_the_check_stays() {
    let new = ListenerFlags::NEW;
    let before = [(key(1), entry(new, 1)), (key(2), entry(new, 1))].into();
    let now = [(key(1), entry(new, 2)), (key(2), entry(new, 1)), (key(3), entry(new, 3))].into();
    assert_eq!(changes(&BTreeMap::new(), &before, &now), [Effect::PublishListener(key(2), None)]);
    let wanted = [(key(1), ListenerFlags::ANY_INTERFACE)].into();
    assert_eq!(changes(&wanted, &before, &now), [Effect::PublishListener(key(2), None)], "the next check is soon");
}

#[test]
fn known_listener_is_published_before_its_new_service() {
    let (mut listeners, now) = (Listeners::default(), Instant::now());
    listeners.of_host = [(key(53), ListenerFlags::ON_LOOPBACK), (key(54), ListenerFlags::ON_LOOPBACK)].into();
    let frontend = |class, protocol| MapOp::PutFrontend(Frontend::new(class, Port::new(53), protocol), WEB);
    assert_eq!(listeners.planned(&[frontend(Class::HOST, PROTOCOL_TCP)], now), []);
    assert_eq!(listeners.planned(&[frontend(Class(7), PROTOCOL_UDP)], now), [], "a virtual address");
    let published = listeners.planned(&[frontend(Class::HOST, PROTOCOL_UDP)], now);
    assert_eq!(published, [publish(key(53), ListenerFlags::ON_LOOPBACK)]);
}

/// Returns the result of one check of services that are as `after` when it ends.
fn result(
    before: &[(u32, ListenerCheck)],
    seen: Option<&[(u8, u16)]>,
    after: &[(u32, ListenerCheck)],
) -> Vec<(u32, u64)> {
    let mut listeners = Listeners::default();
    assert!(listeners.begin(before.iter().copied().collect(), Instant::now()));
    let after: BTreeMap<_, _> = after.iter().copied().collect();
    listeners.end(seen.map(listening).as_ref(), |id| after.get(&id).copied())
}

#[test]
fn port_without_listener_gets_the_bind_count_before_the_check() {
    let new = [(WEB, check(1234, PROTOCOL_TCP, 1, 0))];
    assert_eq!(result(&new, Some(&[]), &new), [(WEB, 1)]);
    assert_eq!(result(&new, Some(&[(PROTOCOL_TCP, 1235)]), &new), [(WEB, 1)]);
    assert_eq!(result(&new, Some(&[(PROTOCOL_TCP, 1234)]), &new), []);
    let known = [(WEB, check(1234, PROTOCOL_TCP, 1, 1))];
    assert_eq!(result(&known, Some(&[]), &known), [], "written once");
}

#[test]
fn bind_during_a_check_is_not_hidden_by_its_result() {
    let before = check(1234, PROTOCOL_TCP, 3, 2);
    let after = check(1234, PROTOCOL_TCP, 4, 2);
    assert_eq!(result(&[(WEB, before)], Some(&[]), &[(WEB, after)]), [(WEB, 3)], "bind_seq is 4 now");
}

#[test]
fn incomplete_sweep_changes_nothing() {
    let new = [(WEB, check(1234, PROTOCOL_TCP, 1, 0))];
    assert_eq!(result(&new, None, &new), []);
}

#[test]
fn services_on_one_port_are_checked_by_protocol() {
    let both = [(1, check(1234, PROTOCOL_TCP, 1, 0)), (2, check(1234, PROTOCOL_UDP, 5, 0))];
    assert_eq!(result(&both, Some(&[(PROTOCOL_TCP, 1234)]), &both), [(2, 5)]);
    assert_eq!(result(&both, Some(&[(PROTOCOL_UDP, 1234)]), &both), [(1, 1)]);
    assert_eq!(result(&both, Some(&[]), &both), [(1, 1), (2, 5)]);
}

#[test]
fn listener_whose_bind_was_not_counted_is_found() {
    for bound in [0, 4] {
        let silent = check(1234, PROTOCOL_TCP, bound, bound);
        let result = result(&[(WEB, silent)], Some(&[(PROTOCOL_TCP, 1234)]), &[(WEB, silent)]);
        assert!(matches!(result[..], [(WEB, seq)] if seq != bound && seq != bound + 1), "{result:?}");
    }
}

#[test]
fn check_of_an_id_says_nothing_about_its_next_owner() {
    let before = check(1234, PROTOCOL_TCP, 1, 0);
    let new = [(WEB, before)];
    assert_eq!(result(&new, Some(&[]), &[]), []);
    assert_eq!(result(&new, Some(&[]), &[(WEB, check(1235, PROTOCOL_TCP, 1, 0))]), []);
    // Not even if the next owner has the same port: binds between the two owners were not counted.
    let (mut listeners, now) = (Listeners::default(), Instant::now());
    assert!(listeners.begin(new.into(), now));
    assert_eq!(listeners.planned(&[MapOp::ResetServiceLoad(WEB)], now), []);
    assert_eq!(listeners.end(Some(&listening(&[])), |_| Some(before)), []);
}

#[test]
fn checks_are_at_most_10_s_and_at_least_1_s_apart() {
    let (mut listeners, now) = (Listeners::default(), Instant::now());
    let at = |ms| now + Duration::from_millis(ms);
    assert!(listeners.is_due(now));
    let some = BTreeMap::from([(WEB, check(1234, PROTOCOL_TCP, 1, 0))]);
    assert!(listeners.begin(some.clone(), now));
    assert!(!listeners.is_due(at(9_999)) && listeners.is_due(at(10_000)));
    for ms in [100, 200, 900] {
        listeners.soon(at(ms));
        assert!(!listeners.is_due(at(999)) && listeners.is_due(at(1_000)));
    }
    assert!(listeners.begin(some, at(1_000)));
    listeners.soon(at(5_000));
    assert!(listeners.is_due(at(5_000)));
    assert!(!listeners.begin(BTreeMap::new(), at(5_000)), "no service to check");
}
