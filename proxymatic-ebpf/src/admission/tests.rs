//! Tests of bypass, listeners and allow lists.

use proxymatic_common::{HookFlags, NetnsAddresses};

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

/// Tables with an allow list of these networks, a host at 10.0.0.1, and a container at 172.17.0.2 and fd00::2.
fn with_list(networks: &[(&str, u8)]) -> FakeTables {
    let class = proxymatic_common::Class::HOST;
    let mut tables = FakeTables::with_weights(&[1]).address("10.0.0.1", class).address("172.17.0.1", class);
    tables.service.features = Features::ALLOW;
    tables.allowed =
        networks.iter().map(|(network, prefix)| SourceRangeKey::new(0, address(network), *prefix)).collect();
    let at = |v4: &str, v6: &str| NetnsAddresses {
        v4: address(v4),
        v6: if v6.is_empty() { Address::ZERO } else { address(v6) },
    };
    tables.netns = [(HOST, at("10.0.0.1", "")), (CONTAINER, at("172.17.0.2", "fd00::2"))].into();
    tables
}

const HOST: u64 = 1;
const CONTAINER: u64 = 2;
const UNKNOWN: u64 = 3;

#[test]
fn allow_list_matches_the_namespace_and_not_the_destination() {
    let refused = Some(Reason::NotAllowed);
    for (networks, host, container) in [
        (&[][..], refused, refused),
        (&[("10.0.0.0", 8)], None, refused),
        (&[("127.0.0.1", 32)], None, refused),
        (&[("::1", 128)], None, refused),
        (&[("172.17.0.0", 16)], refused, None),
        (&[("fd00::", 16)], refused, None),
        (&[("::", 0)], None, None),
        (&[("192.0.2.0", 24)], refused, refused),
    ] {
        let tables = with_list(networks);
        for to in ["10.0.0.1", "172.17.0.1"] {
            // The address of a socket is its program's choice too.
            for bound in ["0.0.0.0", "10.0.0.1", "172.17.0.2", "192.0.2.1"] {
                let reason = |netns| {
                    let caller = FakeCaller { netns, bound: address(bound), ..FakeCaller::default() };
                    match verdict(&tables, caller, to) {
                        Verdict::Refuse(0, reason) => Some(reason),
                        _ => None,
                    }
                };
                let seen = (reason(HOST), reason(CONTAINER));
                assert_eq!(seen, (host, container), "{networks:?} to {to}, bound to {bound}");
            }
        }
    }
}

#[test]
fn unknown_namespace_is_admitted_by_its_cgroup_only() {
    let tables = with_list(&[("0.0.0.0", 0), ("::", 0)]);
    let caller = FakeCaller { netns: UNKNOWN, ..FakeCaller::default() };
    assert_eq!(verdict(&tables, caller, "10.0.0.1"), Verdict::Refuse(0, Reason::UnknownNetns));
    let listed = FakeCaller { listed: &|_| true, ..caller };
    assert!(matches!(verdict(&tables, listed, "10.0.0.1"), Verdict::Translate(_)));
}

#[test]
fn host_without_netns_cookie_is_an_unknown_namespace() {
    let mut tables = with_list(&[("127.0.0.1", 32)]);
    (tables.config.host_netns, tables.config.loopback) = (0, proxymatic_common::Loopback::ALL);
    tables.netns.clear();
    let caller = FakeCaller { netns: HOST, ..FakeCaller::default() };
    assert_eq!(verdict(&tables, caller, "127.0.0.1"), Verdict::Refuse(0, Reason::UnknownNetns));
}

#[test]
fn allow_list_of_another_service_admits_nobody() {
    let mut tables = with_list(&[("10.0.0.0", 8)]);
    tables.allowed[0].network.service = 1;
    assert_eq!(verdict(&tables, FakeCaller::default(), "10.0.0.1"), Verdict::Refuse(0, Reason::NotAllowed));
}
