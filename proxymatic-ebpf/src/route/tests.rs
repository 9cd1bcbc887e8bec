//! Tests of verdicts on flows.

use proxymatic_common::{BackendState, PROTOCOL_UDP};

use super::*;
use crate::testing::{
    FakeCaller,
    tables::{FakeTables, address, flow},
};

fn verdict(tables: &FakeTables, caller: FakeCaller, to: &str) -> Verdict {
    route(tables, &caller, &flow(to, 1234))
}

fn chosen(tables: &FakeTables, to: &str, port: u16) -> Option<Address> {
    match route(tables, &FakeCaller::default(), &flow(to, port)) {
        Verdict::Translate(choice) => Some(choice.address),
        Verdict::Pass => None,
        other => panic!("{to}:{port}: {other:?}"),
    }
}

#[test]
fn service_port_on_host_address_is_translated() {
    let tables = FakeTables::with_weights(&[1]).address("10.0.0.1", Class::HOST);
    assert_eq!(chosen(&tables, "10.0.0.1", 1234), Some(address("10.9.0.0")));
    assert_eq!(chosen(&tables, "10.0.0.2", 1234), None, "another host's address");
    assert_eq!(chosen(&tables, "10.0.0.1", 1235), None, "another port");
    let udp = Flow { protocol: PROTOCOL_UDP, ..flow("10.0.0.1", 1234) };
    assert!(matches!(route(&tables, &FakeCaller::default(), &udp), Verdict::Translate(_)), "UDP has a service too");
    let sctp = Flow { protocol: 132, ..flow("10.0.0.1", 1234) };
    assert_eq!(route(&tables, &FakeCaller::default(), &sctp), Verdict::Pass, "another protocol");
    assert_eq!(tables.counted(), [], "a pass is not counted");
}

#[test]
fn address_of_other_class_is_another_service() {
    let tables = FakeTables::with_weights(&[1]).address("10.99.0.1", Class(2));
    assert_eq!(chosen(&tables, "10.99.0.1", 1234), None);
}

#[test]
fn loopback_mode_decides_which_netns_reaches_services() {
    for (mode, netns, expected) in [
        (Loopback::HOST, 1, true),
        (Loopback::HOST, 2, false),
        (Loopback::ALL, 1, true),
        (Loopback::ALL, 2, true),
        (Loopback::NONE, 1, false),
        (Loopback(77), 1, false),
    ] {
        let mut tables = FakeTables::with_weights(&[1]);
        tables.config.loopback = mode;
        let caller = FakeCaller { netns, ..FakeCaller::default() };
        for own in ["127.0.0.1", "127.8.9.10", "0.0.0.0", "::1", "::"] {
            let translated = matches!(verdict(&tables, caller, own), Verdict::Translate(_));
            assert_eq!(translated, expected, "{mode:?} from {netns} to {own}");
        }
    }
}

#[test]
fn unspecified_destination_becomes_loopback() {
    assert_eq!(flow("0.0.0.0", 1).address, address("127.0.0.1"));
    assert_eq!(flow("::", 1).address, address("::1"));
    assert_eq!(flow("10.0.0.0", 1).address, address("10.0.0.0"));
}

#[test]
fn service_without_backends_is_refused() {
    let tables = FakeTables::with_weights(&[]);
    assert_eq!(verdict(&tables, FakeCaller::default(), "127.0.0.1"), Verdict::Refuse(0, Reason::NoBackend));
    let mut tables = FakeTables::with_weights(&[1]);
    tables.backends[0].state = BackendState::FREE;
    assert_eq!(verdict(&tables, FakeCaller::default(), "127.0.0.1"), Verdict::Refuse(0, Reason::NoBackend));
}

#[test]
fn loopback_bound_socket_gets_local_backend_or_refusal() {
    let mut tables = FakeTables::with_weights(&[1, 1]);
    let caller = FakeCaller { bound: address("127.0.0.1"), ..FakeCaller::default() };
    assert_eq!(verdict(&tables, caller, "127.0.0.1"), Verdict::Refuse(0, Reason::BoundLoopback));
    tables.backends[1].local = 1;
    for _ in 0..50 {
        let Verdict::Translate(choice) = verdict(&tables, caller, "127.0.0.1") else { panic!("refused") };
        assert_eq!(choice.backend, 1);
    }
    tables.config.loopback = Loopback::ALL;
    let container = FakeCaller { netns: 2, ..caller };
    assert_eq!(verdict(&tables, container, "127.0.0.1"), Verdict::Refuse(0, Reason::BoundLoopback));
    let elsewhere = FakeCaller { bound: address("10.0.0.1"), ..FakeCaller::default() };
    tables.backends[1].local = 0;
    assert!(matches!(verdict(&tables, elsewhere, "127.0.0.1"), Verdict::Translate(_)));
}

#[test]
fn bound_socket_reaches_only_its_family() {
    let mut tables = FakeTables::with_weights(&[1, 1]);
    tables.backends[1] = Backend6::of(tables.backends[1]);
    let both = Flow { families: Families::BOTH, ..flow("::1", 1234) };
    for (bound, expected) in [("fd00::1", 1), ("::ffff:10.0.0.1", 0)] {
        let caller = FakeCaller { bound: address(bound), ..FakeCaller::default() };
        for _ in 0..50 {
            let Verdict::Translate(choice) = route(&tables, &caller, &both) else { panic!("refused") };
            assert_eq!(choice.backend, expected, "{bound}");
        }
    }
}

/// A backend with an IPv6 address.
struct Backend6;

impl Backend6 {
    fn of(backend: proxymatic_common::Backend) -> proxymatic_common::Backend {
        proxymatic_common::Backend { address: address("fd00::9"), families: Families::V6, ..backend }
    }
}

#[test]
fn affinity_keeps_backend_until_client_is_idle() {
    let mut tables = FakeTables::with_weights(&[1; 20]).policy(Policy::RANDOM);
    tables.service.affinity = 60;
    let to = |tables: &FakeTables, caller| match verdict(tables, caller, "127.0.0.1") {
        Verdict::Translate(choice) => (choice.backend, choice.reason),
        other => panic!("{other:?}"),
    };
    let caller = FakeCaller::default();
    let (first, reason) = to(&tables, caller);
    assert_eq!(reason, Reason::Translated);
    for _ in 0..10 {
        tables.pass(50.0);
        assert_eq!(to(&tables, caller), (first, Reason::AffinityHit), "each use counts anew");
    }
    tables.pass(61.0);
    assert_eq!(to(&tables, caller).1, Reason::Translated);
    let (second, _) = to(&tables, caller);
    tables.backends[second as usize].state = BackendState::DRAINING;
    let (third, reason) = to(&tables, caller);
    assert!(third != second && reason == Reason::Translated, "what drains keeps nobody");
    let others = (0..30).map(|cgroup| to(&tables, FakeCaller { cgroups: [40, 100 + cgroup], ..caller }).0);
    assert!(others.collect::<std::collections::BTreeSet<_>>().len() > 5, "other cgroups are other clients");
}

#[test]
fn affinity_to_id_with_new_owner_is_ignored() {
    let changes: [fn(&mut proxymatic_common::Backend); 2] = [|b| b.generation += 1, |b| b.service = 5];
    for change in changes {
        let mut tables = FakeTables::with_weights(&[1]);
        tables.service.affinity = 60;
        assert!(matches!(verdict(&tables, FakeCaller::default(), "127.0.0.1"), Verdict::Translate(_)));
        change(&mut tables.backends[0]);
        let again = verdict(&tables, FakeCaller::default(), "127.0.0.1");
        assert!(!matches!(again, Verdict::Translate(Choice { reason: Reason::AffinityHit, .. })), "{again:?}");
    }
}

#[test]
fn service_at_maxconn_refuses_until_one_closes() {
    let mut tables = FakeTables::with_weights(&[1]);
    tables.service.maxconn = 2;
    tables.service_stats.opened.add(2);
    assert_eq!(verdict(&tables, FakeCaller::default(), "127.0.0.1"), Verdict::Refuse(0, Reason::ServiceFull));
    tables.service_stats.closed.add(1);
    assert!(matches!(verdict(&tables, FakeCaller::default(), "127.0.0.1"), Verdict::Translate(_)));
}
