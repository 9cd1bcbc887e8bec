//! Tests of bypass, listeners and allow lists.

use proxymatic_common::HookFlags;

use super::*;
use crate::{
    Verdict, route,
    testing::{
        FakeCaller,
        tables::{FakeTables, address, flow},
    },
};

fn verdict(tables: &FakeTables, caller: FakeCaller, to: &str) -> Verdict {
    route(tables, &caller, &flow(to, 1234))
}

#[test]
fn agent_mark_and_excluded_cgroups_are_bypassed() {
    let mut tables = FakeTables::with_weights(&[1]);
    (tables.config.agent_tgid, tables.config.bypass_mark) = (5, 0x40);
    let someone = FakeCaller::default();
    for caller in [FakeCaller { tgid: 5, ..someone }, FakeCaller { mark: 0x40, ..someone }] {
        assert_eq!(verdict(&tables, caller, "127.0.0.1"), Verdict::Leave(Reason::Bypassed));
    }
    assert!(matches!(verdict(&tables, someone, "127.0.0.1"), Verdict::Translate(_)));
    let excluded = FakeCaller { listed: &|_| true, ..someone };
    assert!(matches!(verdict(&tables, excluded, "127.0.0.1"), Verdict::Translate(_)), "nothing is excluded");
    tables.config.hook_flags = HookFlags::EXCLUDED;
    assert_eq!(verdict(&tables, excluded, "127.0.0.1"), Verdict::Leave(Reason::Bypassed));
}

#[test]
fn mark_zero_and_pid_zero_are_not_bypassed() {
    let tables = FakeTables::with_weights(&[1]);
    let caller = FakeCaller { tgid: 0, mark: 0, ..FakeCaller::default() };
    assert!(matches!(verdict(&tables, caller, "127.0.0.1"), Verdict::Translate(_)));
}

#[test]
fn cgroup_list_includes_descendants() {
    let mut tables = FakeTables::with_weights(&[1]);
    let caller = FakeCaller { cgroups: [40, 41], ..FakeCaller::default() };
    for (cgroup, expected) in [(40, true), (41, true), (42, false), (0, false)] {
        tables.excluded = [cgroup].into();
        tables.allowed_cgroups = [cgroup].into();
        assert_eq!(cgroup_listed(&tables, &caller, None), expected, "excluded {cgroup}");
        assert_eq!(cgroup_listed(&tables, &caller, Some(0)), expected, "allowed {cgroup}");
        assert!(!cgroup_listed(&tables, &caller, Some(1)), "allowed by another service");
    }
}

#[test]
fn foreign_listener_keeps_its_port() {
    let mut tables = FakeTables::with_weights(&[1]).address("10.0.0.1", proxymatic_common::Class::HOST);
    tables.config.hook_flags = HookFlags::LISTENERS;
    let host = FakeCaller::default();
    let container = FakeCaller { netns: 2, ..host };
    for (caller, to, listener, own, left) in [
        (host, "127.0.0.1", Listener::Other, false, true),
        (host, "127.0.0.1", Listener::Loopback, false, true),
        (host, "127.0.0.1", Listener::None, false, false),
        (host, "10.0.0.1", Listener::Other, false, true),
        (host, "10.0.0.1", Listener::Other, true, false),
        // Other hosts connect to a replica, so a replica does not listen on loopback alone.
        (host, "127.0.0.1", Listener::Loopback, true, true),
        // The host's address is in another namespace than a container, so the container's listeners do not matter.
        (container, "10.0.0.1", Listener::Other, false, false),
    ] {
        tables.service.features = if own { Features::OWN_LISTENER } else { Features(0) };
        let seen = verdict(&tables, FakeCaller { listener, ..caller }, to);
        let expected = seen == Verdict::Leave(Reason::LocalListener);
        assert_eq!(expected, left, "{to} {listener:?} own {own}: {seen:?}");
    }
    tables.config.hook_flags = HookFlags::default();
    let listening = FakeCaller { listener: Listener::Other, ..host };
    assert!(matches!(verdict(&tables, listening, "127.0.0.1"), Verdict::Translate(_)), "service-wins");
}

#[test]
fn listener_is_looked_up_only_if_one_may_exist() {
    let mut tables = FakeTables::with_weights(&[1]);
    tables.config.hook_flags = HookFlags::LISTENERS;
    let listening = FakeCaller { listener: Listener::Other, ..FakeCaller::default() };
    let left = |tables: &FakeTables| verdict(tables, listening, "127.0.0.1") == Verdict::Leave(Reason::LocalListener);
    assert!(left(&tables), "nobody has looked yet");
    tables.service_stats.no_listener_seq.set(tables.service_stats.bind_seq.get());
    assert!(!left(&tables), "the agent has seen that nobody listens");
    let (address, port) = (address("0.0.0.0"), Port::new(1234));
    let _ =
        crate::on_bind(&tables, &listening, &crate::Bind { address, port, protocol: proxymatic_common::PROTOCOL_TCP });
    assert!(left(&tables), "somebody has bound the port since");
    tables.service_stats.no_listener_seq.set(tables.service_stats.bind_seq.get());
    crate::on_listen(&tables, Port::new(1235), None);
    assert!(!left(&tables), "the port of nobody we know");
    crate::on_listen(&tables, port, None);
    assert!(left(&tables), "what was bound, and seen not to listen, does now");
}

#[test]
fn allow_list_matches_source_address_or_cgroup() {
    let mut tables = FakeTables::with_weights(&[1]).address("10.0.0.1", proxymatic_common::Class::HOST);
    tables.service.features = Features::ALLOW;
    let refused = Verdict::Refuse(0, Reason::NotAllowed);
    let someone = FakeCaller::default();
    assert_eq!(verdict(&tables, someone, "127.0.0.1"), refused, "an empty list admits nobody");
    tables.allowed =
        std::vec![SourceRangeKey::new(0, address("10.0.0.0"), 8), SourceRangeKey::new(0, address("fd00::"), 16)];
    assert_eq!(verdict(&tables, someone, "127.0.0.1"), refused);
    assert!(matches!(verdict(&tables, someone, "10.0.0.1"), Verdict::Translate(_)));
    let bound = |text| FakeCaller { bound: address(text), ..someone };
    assert_eq!(verdict(&tables, bound("192.0.2.1"), "10.0.0.1"), refused);
    assert!(matches!(verdict(&tables, bound("10.7.0.1"), "127.0.0.1"), Verdict::Translate(_)));
    tables.allowed[0].network.service = 1;
    assert_eq!(verdict(&tables, someone, "10.0.0.1"), refused, "the list of another service");
    let listed = FakeCaller { listed: &|_| true, ..someone };
    assert!(matches!(verdict(&tables, listed, "127.0.0.1"), Verdict::Translate(_)));
}
