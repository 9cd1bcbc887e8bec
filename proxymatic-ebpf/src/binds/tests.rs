//! Tests of binds and of datagrams from service ports.

use super::*;
use crate::{
    Verdict, bypass_cached, route,
    testing::{
        FakeCaller,
        tables::{FakeTables, address, flow},
    },
    types::Flow,
};

const LOCAL: &str = "127.0.0.1";
const HOST: &str = "10.0.0.1";

fn tables() -> FakeTables {
    let mut tables = FakeTables::with_weights(&[1]).address(HOST, Class::HOST);
    tables.config.hook_flags = HookFlags::LISTENERS;
    tables
}

fn udp(to: &str) -> Flow {
    Flow { protocol: PROTOCOL_UDP, ..flow(to, 1234) }
}

fn bind(at: &str, protocol: u8) -> Bind {
    Bind { address: address(at), port: Port::new(1234), protocol }
}

/// A program in another network namespace than the host's, on port 5000.
fn container() -> FakeCaller<'static> {
    FakeCaller { netns: 2, bound_port: 5000, ..FakeCaller::default() }
}

fn is_left(tables: &FakeTables, caller: FakeCaller<'_>, flow: &Flow) -> bool {
    route(tables, &caller, flow) == Verdict::Leave(Reason::LocalListener)
}

#[test]
fn udp_bind_is_published_for_containers_at_once() {
    for (at, reached) in [("0.0.0.0", true), (HOST, true), ("::", true), (LOCAL, false), ("10.0.0.2", false)] {
        let tables = tables();
        let bind = bind(at, PROTOCOL_UDP);
        assert_eq!(on_bind(&tables, &FakeCaller::default(), &bind), BindVerdict::OnServicePort);
        assert_eq!(is_left(&tables, container(), &udp(HOST)), reached, "{at}");
        assert!(!is_left(&tables, container(), &flow(HOST, 1234)), "TCP, {at}");
        on_unbind(&tables, &FakeCaller::default(), &bind, 0);
        // Others may share the port: the agent looks.
        assert_eq!(is_left(&tables, container(), &udp(HOST)), reached, "{at}");
        assert_eq!(tables.events().last().map(|event| event.kind), Some(EventKind::UNBOUND));
    }
}

#[test]
fn udp_socket_without_an_interface_is_published_until_its_close() {
    // The kernel's lookup finds none: the socket is bound to an interface, or has been closed.
    let host = FakeCaller::default();
    for (ifindex, after) in [(0, false), (1, true)] {
        let tables = tables();
        let bind = bind("127.0.0.53", PROTOCOL_UDP);
        let _ = on_bind(&tables, &host, &bind);
        assert!(is_left(&tables, host, &udp("127.0.0.53")));
        on_unbind(&tables, &host, &bind, ifindex);
        assert_eq!(is_left(&tables, host, &udp("127.0.0.53")), after, "{ifindex}");
    }
    let tables = tables();
    let bind = bind("::", PROTOCOL_UDP);
    let _ = on_bind(&tables, &host, &bind);
    assert!(is_left(&tables, host, &udp(LOCAL)) && is_left(&tables, host, &udp("::1")));
    on_unbind(&tables, &host, &bind, 0);
    assert!(!is_left(&tables, host, &udp(LOCAL)) && !is_left(&tables, host, &udp("::1")));
}

#[test]
fn tcp_listener_is_published_when_it_listens() {
    for (ifindex, [at_loopback, at_address, in_container]) in
        [(0, [false, false, true]), (1, [true, false, false]), (7, [false, true, true])]
    {
        let tables = tables();
        let bind = bind("0.0.0.0", PROTOCOL_TCP);
        let _ = on_bind(&tables, &FakeCaller::default(), &bind);
        assert!(!is_left(&tables, container(), &flow(HOST, 1234)), "bound only");
        on_listen(&tables, bind.port, None);
        assert!(!is_left(&tables, container(), &flow(HOST, 1234)), "a socket of another namespace");
        on_listen(&tables, bind.port, Some((bind, ifindex)));
        assert_eq!(is_left(&tables, container(), &flow(HOST, 1234)), in_container, "{ifindex}");
        assert_eq!(is_left(&tables, FakeCaller::default(), &flow(LOCAL, 1234)), at_loopback, "{ifindex}");
        assert_eq!(is_left(&tables, FakeCaller::default(), &flow(HOST, 1234)), at_address, "{ifindex}");
    }
}

#[test]
fn listener_on_the_loopback_interface_counts_only_on_the_host() {
    let mut tables = tables();
    tables.config.loopback = proxymatic_common::Loopback::ALL;
    let bind = bind("127.0.0.53", PROTOCOL_TCP);
    let _ = on_bind(&tables, &FakeCaller::default(), &bind);
    on_listen(&tables, bind.port, Some((bind, 1)));
    assert!(is_left(&tables, FakeCaller::default(), &flow("127.0.0.53", 1234)));
    assert!(!is_left(&tables, FakeCaller::default(), &flow(LOCAL, 1234)));
    assert!(!is_left(&tables, container(), &flow("127.0.0.53", 1234)), "the container's own loopback");
}

#[test]
fn bind_is_kept_in_the_storage_of_its_socket() {
    let mut socket = Socket::NEW;
    assert_eq!(Bind::of(&socket), None);
    let bind = bind("0.0.0.0", PROTOCOL_TCP);
    bind.save(&mut socket);
    assert_eq!(Bind::of(&socket), Some(bind));
}

#[test]
fn replica_on_the_service_port_is_no_listener_for_containers() {
    let mut tables = tables();
    tables.service.features = Features::OWN_LISTENER;
    let _ = on_bind(&tables, &FakeCaller::default(), &bind("0.0.0.0", PROTOCOL_UDP));
    assert!(!is_left(&tables, container(), &udp(HOST)));
}

#[test]
fn bind_in_a_container_is_counted_but_not_published() {
    let tables = tables();
    tables.service_stats.no_listener_seq.set(tables.service_stats.bind_seq.get());
    assert_eq!(on_bind(&tables, &container(), &bind("0.0.0.0", PROTOCOL_UDP)), BindVerdict::Other);
    assert!(tables.service_stats.may_have_listener());
    assert_eq!((tables.listeners.borrow().len(), tables.events().len()), (0, 0));
}

#[test]
fn datagram_from_a_host_socket_is_answered_for_30_s() {
    let tables = tables();
    tables.service_stats.no_listener_seq.set(tables.service_stats.bind_seq.get());
    let server = container();
    on_direct_datagram(&tables, &server, &address(HOST), Port::new(1235));
    on_direct_datagram(&tables, &server, &address("192.0.2.1"), Port::new(1234));
    assert!(!tables.service_stats.may_have_listener(), "no service port, and no address of the host");
    on_direct_datagram(&tables, &server, &address(HOST), Port::new(1234));
    assert!(is_left(&tables, server, &udp(HOST)));
    assert_eq!(bypass_cached(&tables, &server, &udp(HOST)), Some(Reason::LocalListener));
    assert!(!is_left(&tables, server, &flow(HOST, 1234)), "over TCP");
    assert!(!is_left(&tables, FakeCaller { bound_port: 5001, ..server }, &udp(HOST)), "another socket");
    assert!(!is_left(&tables, FakeCaller { netns: 3, ..server }, &udp(HOST)), "another container");
    tables.pass(30.0);
    assert!(!is_left(&tables, server, &udp(HOST)));
}

#[test]
fn root_alone_binds_service_ports_if_root_wins() {
    let mut tables = tables();
    let bind = bind(LOCAL, PROTOCOL_TCP);
    let (user, root) = (FakeCaller::default(), FakeCaller { uid: 0, ..FakeCaller::default() });
    assert_eq!(on_bind(&tables, &user, &bind), BindVerdict::OnServicePort, "local-wins");
    tables.config.hook_flags = HookFlags::LISTENERS.with(HookFlags::ROOT_WINS);
    tables.service_stats.no_listener_seq.set(tables.service_stats.bind_seq.get());
    assert_eq!(on_bind(&tables, &user, &bind), BindVerdict::Refuse);
    assert!(!tables.service_stats.may_have_listener());
    assert_eq!(on_bind(&tables, &FakeCaller { netns: 2, ..user }, &bind), BindVerdict::Other, "in a container");
    assert_eq!(on_bind(&tables, &root, &bind), BindVerdict::OnServicePort);
    // A program that may bind a privileged port has the capability.
    tables.config.first_unprivileged_port = 1235;
    assert_eq!(on_bind(&tables, &user, &bind), BindVerdict::OnServicePort);
    tables.config.first_unprivileged_port = 1024;
    assert_eq!(on_bind(&tables, &user, &bind), BindVerdict::Refuse);
    // A replica that starts on the service port itself.
    tables.backends[0].port = Port::new(1234);
    assert_eq!(on_bind(&tables, &user, &bind), BindVerdict::OnServicePort);
    let counted = tables.counted();
    assert_eq!(counted.iter().find(|(reason, _)| *reason == Reason::BindRefused), Some(&(Reason::BindRefused, 2)));
}
