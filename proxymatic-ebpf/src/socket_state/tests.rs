//! Tests of the translations of sockets.

use proxymatic_common::PROTOCOL_UDP;

use super::*;
use crate::{
    Verdict, route,
    testing::{
        FakeCaller,
        tables::{FakeTables, address, flow},
    },
};

fn chosen(tables: &FakeTables, flow: &Flow) -> Choice {
    let Verdict::Translate(choice) = route(tables, &FakeCaller::default(), flow) else { panic!("not translated") };
    choice
}

fn connect(tables: &FakeTables, socket: &mut Socket) -> Choice {
    let flow = flow("127.0.0.1", 1234);
    let choice = chosen(tables, &flow);
    on_connect(tables, socket, &flow, &choice);
    choice
}

/// A datagram to 127.0.0.N:1234.
fn datagram(n: u8) -> Flow {
    Flow { protocol: PROTOCOL_UDP, ..flow(&std::format!("127.0.0.{n}"), 1234) }
}

fn send(tables: &FakeTables, socket: &mut Socket, flow: &Flow) -> (Address, Port) {
    if let Some(cached) = cached_udp_backend(tables, socket, flow) {
        return (cached.address, cached.port);
    }
    let choice = chosen(tables, flow);
    on_udp_send(tables, socket, flow, &choice);
    (choice.address, choice.port)
}

#[test]
fn connection_counts_once_from_connect_to_release() {
    let tables = FakeTables::with_weights(&[1]);
    let mut socket = Socket::NEW;
    connect(&tables, &mut socket);
    assert_eq!((tables.backend_stats[0].active(), tables.service_stats.active()), (1, 1));
    on_release(&tables, &mut socket);
    on_release(&tables, &mut socket);
    assert_eq!((tables.backend_stats[0].opened.get(), tables.backend_stats[0].closed.get()), (1, 1));
    assert_eq!((tables.service_stats.opened.get(), tables.service_stats.closed.get()), (1, 1));
}

#[test]
fn second_connect_on_socket_closes_the_first() {
    let tables = FakeTables::with_weights(&[1, 1]);
    let mut socket = Socket::NEW;
    connect(&tables, &mut socket);
    connect(&tables, &mut socket);
    assert_eq!(tables.backend_stats.iter().map(|load| load.active()).sum::<u64>(), 1);
    assert_eq!(tables.backend_stats.iter().map(|load| load.opened.get()).sum::<u64>(), 2);
}

#[test]
fn close_after_id_has_new_owner_is_not_counted() {
    let mut tables = FakeTables::with_weights(&[1]);
    let mut socket = Socket::NEW;
    connect(&tables, &mut socket);
    tables.backends[0].generation += 1;
    on_release(&tables, &mut socket);
    assert_eq!(tables.backend_stats[0].closed.get(), 0);
    assert_eq!(tables.counted(), [(Reason::StaleClose, 1)]);
}

#[test]
fn peer_name_is_original_destination_of_selected_peer() {
    let tables = FakeTables::with_weights(&[1]);
    let mut socket = Socket::NEW;
    assert_eq!(original_destination(&socket, &address("::"), Port::new(0)), None, "nothing translated yet");
    let choice = connect(&tables, &mut socket);
    assert_eq!(
        original_destination(&socket, &choice.address, choice.port),
        Some((address("127.0.0.1"), Port::new(1234)))
    );
    assert_eq!(original_destination(&socket, &address("10.9.0.77"), choice.port), None);
    assert_eq!(original_destination(&socket, &choice.address, Port::new(1)), None);
    on_release(&tables, &mut socket);
    assert!(
        original_destination(&socket, &choice.address, choice.port).is_some(),
        "a socket that is closing keeps its peer"
    );
}

#[test]
fn repeated_datagrams_keep_backend_of_first() {
    let tables = FakeTables::with_weights(&[1; 20]);
    let mut socket = Socket::NEW;
    let first = send(&tables, &mut socket, &datagram(1));
    for _ in 0..50 {
        assert_eq!(send(&tables, &mut socket, &datagram(1)), first);
    }
    assert_eq!(tables.backend_stats.iter().map(|load| load.opened.get()).sum::<u64>(), 1);
}

#[test]
fn socket_of_inactive_backend_gets_another() {
    let changes: [fn(&mut proxymatic_common::Backend); 2] = [|b| b.state = BackendState::GONE, |b| b.generation += 1];
    for change in changes {
        let mut tables = FakeTables::with_weights(&[1, 1]);
        let mut socket = Socket::NEW;
        let (before, _) = send(&tables, &mut socket, &datagram(1));
        let id = tables.backends.iter().position(|backend| backend.address == before).unwrap();
        change(&mut tables.backends[id]);
        let (after, port) = send(&tables, &mut socket, &datagram(1));
        assert_ne!(after, before);
        assert_eq!(send(&tables, &mut socket, &datagram(1)), (after, port), "and keeps that");
    }
}

#[test]
fn seven_udp_destinations_on_one_socket_are_reversed() {
    let mut tables = FakeTables::with_weights(&[1]);
    let mut socket = Socket::NEW;
    // One service stands for seven: its only backend gets another address before each datagram.
    let mut at = std::vec::Vec::new();
    for n in 1..=7 {
        tables.backends[0].address = address(&std::format!("10.9.0.{n}"));
        at.push(send(&tables, &mut socket, &datagram(n)));
    }
    for (n, (peer, port)) in (1..=7).zip(at) {
        let destination = (address(&std::format!("127.0.0.{n}")), Port::new(1234));
        assert_eq!(original_destination(&socket, &peer, port), Some(destination));
    }
}

#[test]
fn replaced_translation_is_counted_as_closed() {
    let tables = FakeTables::with_weights(&[1]);
    let mut socket = Socket::NEW;
    for n in 1..=200 {
        send(&tables, &mut socket, &datagram(n));
    }
    assert_eq!(tables.backend_stats[0].active(), RING as u64 - 1);
    on_release(&tables, &mut socket);
    assert_eq!((tables.backend_stats[0].active(), tables.service_stats.active()), (0, 0));
}

#[test]
fn shared_backend_shows_latest_destination() {
    let tables = FakeTables::with_weights(&[1]);
    let mut socket = Socket::NEW;
    let (peer, port) = send(&tables, &mut socket, &datagram(1));
    assert_eq!(send(&tables, &mut socket, &datagram(2)), (peer, port));
    let shown = |socket: &Socket| original_destination(socket, &peer, port).unwrap().0;
    assert_eq!(shown(&socket), address("127.0.0.2"));
    send(&tables, &mut socket, &datagram(1));
    assert_eq!(shown(&socket), address("127.0.0.1"));
}

#[test]
fn any_bytes_in_socket_storage_do_not_panic() {
    let tables = FakeTables::with_weights(&[1]);
    let mut socket = Socket { newest: u32::MAX, ..Socket::NEW };
    assert_eq!(cached_udp_backend(&tables, &mut socket, &datagram(1)), None);
    send(&tables, &mut socket, &datagram(1));
    assert_eq!(socket.newest, 1);
}

#[test]
fn cached_backend_tells_whether_the_port_may_have_a_listener() {
    let mut tables = FakeTables::with_weights(&[1]);
    let mut socket = Socket::NEW;
    send(&tables, &mut socket, &datagram(1));
    let cached = |tables: &FakeTables, socket: &mut Socket| {
        cached_udp_backend(tables, socket, &datagram(1)).map(|it| it.may_have_listener)
    };
    assert_eq!(cached(&tables, &mut socket), Some(false), "service-wins");
    tables.config.hook_flags = HookFlags::LISTENERS;
    assert_eq!(cached(&tables, &mut socket), Some(true));
    tables.service_stats.no_listener_seq.set(tables.service_stats.bind_seq.get());
    assert_eq!(cached(&tables, &mut socket), Some(false));
}
