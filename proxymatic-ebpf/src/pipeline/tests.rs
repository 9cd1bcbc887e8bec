//! Tests of the pipeline: a client at 192.0.2.7 connects to 10.77.0.1:1234; the backend is 10.9.0.0:8000.

/// Any packets in any order.
mod any_order;
/// The allocation of SNAT ports.
mod ports;

use std::vec::Vec;

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use proxymatic_common::{
    BackendState, Class, CtProgress, Features, InterfaceKind, PROTOCOL_TCP, PROTOCOL_UDP, Policy, Service, SourceCode,
};

use super::*;
use crate::{
    packet_ctx::CtTable,
    testing::{
        packet::FakePacket,
        stages::DirectStages,
        tables::{FakeTables, address},
    },
};

const CLIENT: &str = "192.0.2.7";
const HOST: &str = "10.77.0.1";
const BACKEND: &str = "10.9.0.0";
const SYN: &str = "S";

/// A host that forwards from ports 61000 to 61003 by interface 1.
fn host() -> FakeTables {
    let mut host = FakeTables::with_weights(&[1]).address(HOST, Class::HOST);
    host.config.snat_first = 61_000;
    host.config.snat_last = 61_003;
    host.service = Service { features: Features::EXPOSE, ..Service::new(Policy::LEASTCONN, SourceCode::FILE) };
    let (v4, v6) = (address(HOST), address("fd77::1"));
    host.interfaces.insert(1, proxymatic_common::Interface { kind: InterfaceKind::ATTACHED, mtu: 1500, v4, v6 });
    host
}

/// The addresses and ports of the packet that came out.
#[derive(Debug, PartialEq)]
struct Out {
    from: (std::string::String, u16),
    to: (std::string::String, u16),
}

fn segment(from: (&str, u16), to: (&str, u16), flags: &str, sequence: u32, ack: u32) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let net = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(octets(from.0), octets(to.0), 64);
    let mut tcp = net.tcp(from.1, to.1, sequence, 100);
    for flag in flags.chars() {
        tcp = match flag {
            'S' => tcp.syn(),
            'F' => tcp.fin(),
            'R' => tcp.rst(),
            _ => tcp.ack(ack),
        };
    }
    let mut bytes = Vec::new();
    tcp.write(&mut bytes, &[]).unwrap();
    bytes
}

fn datagram(from: (&str, u16), to: (&str, u16)) -> Vec<u8> {
    let octets = |text: &str| text.parse::<std::net::Ipv4Addr>().unwrap().octets();
    let mut bytes = Vec::new();
    let udp = PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(octets(from.0), octets(to.0), 64).udp(from.1, to.1);
    udp.write(&mut bytes, b"hello").unwrap();
    bytes
}

/// Runs the pipeline on a packet.
fn pass<const EGRESS: bool>(host: &FakeTables, packet: &mut FakePacket) -> Action {
    run(&mut DirectStages::<EGRESS> { tables: host, packet, ctx: PacketCtx::empty() })
}

fn arrive(host: &FakeTables, bytes: Vec<u8>) -> (Action, Option<Out>) {
    let mut packet = FakePacket::new(bytes);
    let action = pass::<false>(host, &mut packet);
    (action, ends(&packet.bytes))
}

fn depart(host: &FakeTables, bytes: Vec<u8>) -> (Action, Option<Out>) {
    let mut packet = FakePacket::new(bytes);
    let action = pass::<true>(host, &mut packet);
    (action, ends(&packet.bytes))
}

fn ends(bytes: &[u8]) -> Option<Out> {
    use std::string::ToString as _;
    let sliced = SlicedPacket::from_ethernet(bytes).unwrap();
    let (from, to) = match sliced.net? {
        etherparse::NetSlice::Ipv4(it) => {
            (it.header().source_addr().to_string(), it.header().destination_addr().to_string())
        }
        _ => return None,
    };
    let (a, b) = match sliced.transport? {
        TransportSlice::Tcp(it) => (it.source_port(), it.destination_port()),
        TransportSlice::Udp(it) => (it.source_port(), it.destination_port()),
        _ => return None,
    };
    Some(Out { from: (from, a), to: (to, b) })
}

/// Establishes a connection from a client's port. Returns its SNAT port.
fn connected(host: &FakeTables, port: u16) -> u16 {
    let (action, out) = arrive(host, segment((CLIENT, port), (HOST, 1234), SYN, 10, 0));
    assert_eq!(action, Action::Forward);
    let snat = out.unwrap().from.1;
    assert_eq!(arrive(host, segment((BACKEND, 8000), (HOST, snat), "SA", 500, 11)).0, Action::Forward);
    assert_eq!(arrive(host, segment((CLIENT, port), (HOST, 1234), "A", 11, 501)).0, Action::Forward);
    snat
}

fn active(host: &FakeTables) -> (u64, u64) {
    (host.backend_stats[0].opened.get(), host.backend_stats[0].closed.get())
}

#[test]
fn both_directions_have_addresses_and_ports_rewritten() {
    let host = host();
    let (action, out) = arrive(&host, segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0));
    let Out { from, to } = out.unwrap();
    assert_eq!((action, from.0.as_str(), (to.0.as_str(), to.1)), (Action::Forward, HOST, (BACKEND, 8000)));
    assert!((61_000..=61_003).contains(&from.1));
    let (action, out) = arrive(&host, segment((BACKEND, 8000), (HOST, from.1), "SA", 500, 11));
    let Out { from, to } = out.unwrap();
    assert_eq!((action, (from.0.as_str(), from.1)), (Action::Forward, (HOST, 1234)));
    assert_eq!((to.0.as_str(), to.1), (CLIENT, 4000));
}

#[test]
fn connection_counts_from_handshake_to_second_fin() {
    let host = host();
    let syn = segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0);
    let snat = arrive(&host, syn).1.unwrap().from.1;
    assert_eq!(arrive(&host, segment((BACKEND, 8000), (HOST, snat), "SA", 500, 11)).0, Action::Forward);
    assert_eq!((active(&host), host.established.borrow().len()), ((0, 0), 0));
    assert_eq!(arrive(&host, segment((CLIENT, 4000), (HOST, 1234), "A", 11, 501)).0, Action::Forward);
    assert_eq!((active(&host), host.established.borrow().len(), host.half_open.borrow().len()), ((1, 0), 2, 0));
    assert_eq!(host.backend_stats[0].established.get(), 1);
    assert_eq!(arrive(&host, segment((CLIENT, 4000), (HOST, 1234), "FA", 11, 501)).0, Action::Forward);
    assert_eq!(active(&host), (1, 0));
    // Data that the backend still sends is forwarded.
    assert_eq!(arrive(&host, segment((BACKEND, 8000), (HOST, snat), "A", 501, 12)).0, Action::Forward);
    assert_eq!(arrive(&host, segment((BACKEND, 8000), (HOST, snat), "FA", 501, 12)).0, Action::Forward);
    assert_eq!(active(&host), (1, 1));
    assert_eq!(arrive(&host, segment((BACKEND, 8000), (HOST, snat), "FA", 501, 12)).0, Action::Forward);
    assert_eq!(arrive(&host, segment((CLIENT, 4000), (HOST, 1234), "A", 12, 502)).0, Action::Forward);
    assert_eq!((active(&host), host.service_stats.closed.get()), ((1, 1), 1));
}

#[test]
fn route_is_looked_up_once_per_packet() {
    let host = host();
    let mut packet = FakePacket::new(segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0));
    assert_eq!((pass::<false>(&host, &mut packet), packet.fib_lookups.get()), (Action::Forward, 1));
    let mut packet = FakePacket::new(segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0));
    assert_eq!((pass::<false>(&host, &mut packet), packet.fib_lookups.get()), (Action::Forward, 1));
}

#[test]
fn forged_acknowledgement_opens_nothing() {
    let host = host();
    assert_eq!(arrive(&host, segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0)).0, Action::Forward);
    // Before the SYN-ACK, and then with a number that does not acknowledge it.
    let _ = arrive(&host, segment((CLIENT, 4000), (HOST, 1234), "A", 11, 501));
    assert_eq!(active(&host), (0, 0));
    let snat = host.half_open.borrow().keys().map(|key| key.destination_port.get()).max().unwrap();
    let _ = arrive(&host, segment((BACKEND, 8000), (HOST, snat), "SA", 500, 11));
    for guess in [500, 0, 501 + (1 << 16), 501_u32.wrapping_sub(2)] {
        let _ = arrive(&host, segment((CLIENT, 4000), (HOST, 1234), "A", 11, guess));
    }
    assert_eq!((active(&host), host.established.borrow().len()), ((0, 0), 0));
}

#[test]
fn rst_closes_connection_at_once() {
    for of_client in [true, false] {
        let host = host();
        let snat = connected(&host, 4000);
        let reset = if of_client {
            segment((CLIENT, 4000), (HOST, 1234), "R", 11, 0)
        } else {
            segment((BACKEND, 8000), (HOST, snat), "R", 501, 0)
        };
        assert_eq!(arrive(&host, reset).0, Action::Forward);
        assert_eq!(active(&host), (1, 1));
    }
}

#[test]
fn refusing_backend_is_ejected_and_rst_reaches_client() {
    let host = host();
    let snat = arrive(&host, segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0)).1.unwrap().from.1;
    let (action, out) = arrive(&host, segment((BACKEND, 8000), (HOST, snat), "RA", 0, 11));
    assert_eq!((action, out.unwrap().to.0.as_str()), (Action::Forward, CLIENT));
    assert_eq!((host.backend_stats[0].failed.get(), active(&host), host.half_open.borrow().len()), (1, (0, 0), 0));
    assert!(host.counted().contains(&(Reason::Failed, 1)));
}

#[test]
fn late_rst_does_not_end_next_connection_on_port() {
    for answered in [false, true] {
        let host = host();
        let snat = arrive(&host, segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0)).1.unwrap().from.1;
        if answered {
            let _ = arrive(&host, segment((BACKEND, 8000), (HOST, snat), "SA", 500, 11));
        }
        let late = segment((BACKEND, 8000), (HOST, snat), "R", 77_000_000, 0);
        assert_eq!(arrive(&host, late).0, Action::Forward);
        assert_eq!((host.backend_stats[0].failed.get(), host.half_open.borrow().len()), (0, 2), "{answered}");
    }
}

#[test]
fn unanswered_syn_goes_to_another_backend_after_timeout() {
    let mut host = host();
    let other = FakeTables::with_weights(&[1, 1]);
    (host.slot_ranges, host.slots, host.backends, host.backend_stats) =
        (other.slot_ranges, other.slots, other.backends, other.backend_stats);
    let syn = || segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0);
    let first = arrive(&host, syn()).1.unwrap().to;
    host.pass(2.9);
    assert_eq!(arrive(&host, syn()).1.unwrap().to, first);
    host.pass(0.2);
    let second = arrive(&host, syn()).1.unwrap().to;
    assert_ne!(second, first);
    assert_eq!(host.backend_stats.iter().map(|load| load.failed.get()).sum::<u64>(), 1);
}

#[test]
fn local_backend_sees_client_and_replies_pass_at_egress() {
    let mut host = host();
    host.backends[0].local = 1;
    let (action, out) = arrive(&host, segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0));
    let Out { from, to } = out.unwrap();
    assert_eq!(
        (action, (from.0.as_str(), from.1), (to.0.as_str(), to.1)),
        (Action::Local, (CLIENT, 4000), (BACKEND, 8000))
    );
    let reply = || segment((BACKEND, 8000), (CLIENT, 4000), "SA", 500, 11);
    // A forged packet from the backend's address.
    assert_eq!(arrive(&host, reply()).0, Action::Pass);
    let (action, out) = depart(&host, reply());
    assert_eq!((action, out.unwrap().from), (Action::Local, (HOST.into(), 1234)));
    // Packets that leave this host from other ports pass.
    assert_eq!(depart(&host, segment((BACKEND, 8001), (CLIENT, 4000), "SA", 500, 11)).0, Action::Pass);
}

#[test]
fn container_behind_bridge_is_a_local_backend() {
    let mut host = host();
    host.interfaces.get_mut(&1).unwrap().kind = InterfaceKind::CONTAINERS;
    let (action, out) = arrive(&host, segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0));
    assert_eq!((action, out.unwrap().from), (Action::Local, (CLIENT.into(), 4000)));
    assert!(host.counted().contains(&(Reason::ForwardedLocal, 1)));
}

#[test]
fn syn_that_cannot_be_served_passes_with_a_reason() {
    type Change = fn(&mut FakeTables);
    let cases: [(Reason, Change); 6] = [
        (Reason::NotExposed, |host| host.service.features = Features(0)),
        (Reason::NotAllowed, |host| host.service.features = Features::EXPOSE.with(Features::ALLOW)),
        (Reason::NoBackend, |host| host.backends[0].state = BackendState::FREE),
        (Reason::NoReturnPath, |host| host.interfaces.clear()),
        (Reason::BackendsFull, |host| (host.backends[0].maxconn, _) = (1, host.backend_stats[0].opened.set(1))),
        (Reason::ServiceFull, |host| (host.service.maxconn, _) = (1, host.service_stats.opened.set(1))),
    ];
    for (reason, change) in cases {
        let mut host = host();
        change(&mut host);
        let syn = segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0);
        let mut packet = FakePacket::new(syn.clone());
        assert_eq!((pass::<false>(&host, &mut packet), &packet.bytes), (Action::Pass, &syn), "{}", reason.name());
        assert_eq!(host.counted(), [(reason, 1)]);
        assert_eq!(host.half_open.borrow().len(), 0);
    }
}

#[test]
fn allow_list_matches_remote_client_address() {
    let mut host = host();
    host.service.features = Features::EXPOSE.with(Features::ALLOW);
    host.allowed.push(proxymatic_common::SourceRangeKey::new(0, address("192.0.2.0"), 24));
    assert_eq!(arrive(&host, segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0)).0, Action::Forward);
    assert_eq!(arrive(&host, segment(("198.51.100.1", 4000), (HOST, 1234), SYN, 10, 0)).0, Action::Pass);
}

#[test]
fn packet_of_no_connection_passes_unless_syn() {
    let host = host();
    for flags in ["A", "SA", "FA", "R"] {
        assert_eq!(arrive(&host, segment((CLIENT, 4000), (HOST, 1234), flags, 10, 20)).0, Action::Pass, "{flags}");
    }
    for to in [(HOST, 1235), ("10.77.0.3", 1234), ("127.0.0.1", 1234), (HOST, 61_000)] {
        assert_eq!(arrive(&host, segment((CLIENT, 4000), to, SYN, 10, 0)).0, Action::Pass, "{to:?}");
    }
    assert_eq!(arrive(&host, segment(("127.0.0.1", 4000), (HOST, 1234), SYN, 10, 0)).0, Action::Pass);
    assert_eq!(host.counted(), []);
}

#[test]
fn reused_client_port_gets_a_new_connection() {
    let host = host();
    connected(&host, 4000);
    let syn = || segment((CLIENT, 4000), (HOST, 1234), SYN, 900, 0);
    // While the old connection is open, the SYN is forwarded and the backend decides.
    assert_eq!(arrive(&host, syn()).0, Action::Forward);
    assert_eq!(host.half_open.borrow().len(), 0);
    assert_eq!(arrive(&host, segment((CLIENT, 4000), (HOST, 1234), "R", 11, 0)).0, Action::Forward);
    assert_eq!(arrive(&host, syn()).0, Action::Forward);
    assert_eq!(host.half_open.borrow().len(), 2);
}

#[test]
fn established_connection_keeps_backend_if_tables_change() {
    let mut host = host();
    connected(&host, 4000);
    host.backends[0].state = BackendState::GONE;
    host.backends[0].generation += 1;
    host.slot_ranges[0] = Default::default();
    host.service.features = Features::ALLOW;
    let (action, out) = arrive(&host, segment((CLIENT, 4000), (HOST, 1234), "A", 12, 501));
    assert_eq!((action, out.unwrap().to.0.as_str()), (Action::Forward, BACKEND));
}

#[test]
fn evicted_entry_is_inserted_anew_by_its_reverse() {
    for keep_reply in [true, false] {
        let host = host();
        let snat = connected(&host, 4000);
        let lost = *host.established.borrow().keys().find(|key| (key.source_port.get() == 8000) != keep_reply).unwrap();
        let before = host.established.borrow()[&lost].translated;
        assert!(host.remove(CtTable::Established, &lost));
        host.pass(1.5);
        let kept = if keep_reply {
            segment((BACKEND, 8000), (HOST, snat), "A", 501, 12)
        } else {
            segment((CLIENT, 4000), (HOST, 1234), "A", 12, 501)
        };
        assert_eq!(arrive(&host, kept).0, Action::Forward);
        assert_eq!(host.established.borrow()[&lost].translated, before);
    }
}

#[test]
fn udp_opens_on_reply_and_moves_when_backend_leaves() {
    let mut host = host();
    let (action, out) = arrive(&host, datagram((CLIENT, 5000), (HOST, 1234)));
    assert_eq!(action, Action::Forward);
    assert_eq!(active(&host), (0, 0));
    let snat = out.unwrap().from.1;
    let (action, out) = arrive(&host, datagram((BACKEND, 8000), (HOST, snat)));
    assert_eq!((action, out.unwrap().from), (Action::Forward, (HOST.into(), 1234)));
    assert_eq!((active(&host), host.established.borrow().len()), ((1, 0), 2));
    let other = FakeTables::with_weights(&[1, 1]);
    host.backends.push(other.backends[1]);
    host.backend_stats.push(Default::default());
    host.slots = std::vec![other.slots[1]];
    host.backends[0].state = BackendState::GONE;
    host.pass(1.5);
    let (action, out) = arrive(&host, datagram((CLIENT, 5000), (HOST, 1234)));
    assert_eq!((action, out.unwrap().to.0.as_str()), (Action::Forward, "10.9.0.1"));
    assert_eq!(active(&host), (1, 1));
}

#[test]
fn ttl_and_mtu_exceeded_get_an_icmp_error() {
    let host = host();
    let mut bytes = segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0);
    bytes[22] = 1;
    let mut packet = FakePacket::new(bytes);
    assert_eq!((pass::<false>(&host, &mut packet), packet.replied), (Action::ReplyIcmp, Some(IcmpError::TtlExceeded)));
    let mut packet = FakePacket::new(segment((CLIENT, 4001), (HOST, 1234), SYN, 10, 0));
    packet.route = Route::TooBig { out_ifindex: 1, mtu: 1400 };
    assert_eq!((pass::<false>(&host, &mut packet), packet.replied), (Action::ReplyIcmp, Some(IcmpError::TooBig(1400))));
}

#[test]
fn conntrack_timeout_of_tcp_exceeds_udp() {
    let open = |protocol| ct_timeouts::timeout(protocol, true, CtProgress::default(), CtProgress::default());
    assert!(open(PROTOCOL_TCP) > open(PROTOCOL_UDP));
}
