//! Tests of SNAT port allocation.

use proxymatic_common::Reason;

use super::*;
use crate::conntrack::snat::{MAX_PROBES, MIN_PROBES};

#[test]
fn connections_to_a_backend_have_different_snat_ports() {
    let host = host();
    let mut ports: Vec<_> = (4000..4004).map(|port| connected(&host, port)).collect();
    ports.sort_unstable();
    assert_eq!(ports, [61_000, 61_001, 61_002, 61_003]);
    assert_eq!(arrive(&host, segment((CLIENT, 4004), (HOST, 1234), SYN, 10, 0)).0, Action::Pass);
    assert!(host.counted().contains(&(Reason::SnatPortsExhausted, 1)));
    // The port of a closed connection is reused.
    let over = host
        .established
        .borrow()
        .iter()
        .find(|(key, _)| key.source_port.get() == 4002)
        .unwrap()
        .1
        .translated
        .source_port;
    assert_eq!(arrive(&host, segment((CLIENT, 4002), (HOST, 1234), "R", 11, 0)).0, Action::Forward);
    let (action, out) = arrive(&host, segment((CLIENT, 4004), (HOST, 1234), SYN, 10, 0));
    assert_eq!((action, out.unwrap().from.1), (Action::Forward, over.get()));
}

#[test]
fn client_whose_port_is_reused_sends_nothing_into_it() {
    let host = host();
    let ports: Vec<_> = (4000..4004).map(|port| connected(&host, port)).collect();
    assert_eq!(arrive(&host, segment((CLIENT, 4002), (HOST, 1234), "R", 11, 0)).0, Action::Forward);
    // Late packets are forwarded as long as the port is not reused.
    let late = || segment((CLIENT, 4002), (HOST, 1234), "A", 11, 501);
    assert_eq!(arrive(&host, late()).0, Action::Forward);
    let (action, out) = arrive(&host, segment((CLIENT, 4004), (HOST, 1234), SYN, 10, 0));
    assert_eq!((action, out.unwrap().from.1), (Action::Forward, ports[2]));
    assert_eq!(arrive(&host, late()).0, Action::Pass);
}

#[test]
fn client_that_reconnected_keeps_its_next_connection() {
    let host = host();
    // All ports are taken, one by a closed connection whose client has another connection now.
    let first = connected(&host, 4000);
    assert_eq!(arrive(&host, segment((CLIENT, 4000), (HOST, 1234), "R", 11, 0)).0, Action::Forward);
    assert_ne!(connected(&host, 4000), first);
    for port in 4001..4003 {
        assert_ne!(connected(&host, port), first);
    }
    let (action, out) = arrive(&host, segment((CLIENT, 4004), (HOST, 1234), SYN, 10, 0));
    assert_eq!((action, out.unwrap().from.1), (Action::Forward, first));
    assert_eq!(arrive(&host, segment((CLIENT, 4000), (HOST, 1234), "A", 11, 501)).0, Action::Forward);
}

#[test]
fn oldest_half_open_connection_loses_its_snat_port() {
    let host = host();
    let begin = |port| {
        host.pass(0.001);
        let (action, out) = arrive(&host, segment((CLIENT, port), (HOST, 1234), SYN, 10, 0));
        assert_eq!(action, Action::Forward);
        out.unwrap().from.1
    };
    let open = connected(&host, 4000);
    let waiting: Vec<_> = (4001..4004).map(begin).collect();
    // A connection with a SYN-ACK is half-open too.
    let _ = arrive(&host, segment((BACKEND, 8000), (HOST, waiting[0]), "SA", 500, 11));
    assert_eq!(begin(4004), waiting[0]);
    assert_eq!(begin(4005), waiting[1]);
    // A client that lost its port gets another when it retransmits its SYN.
    assert_eq!(begin(4001), waiting[2]);
    assert!(host.counted().contains(&(Reason::SnatPortPreempted, 3)) && !waiting.contains(&open));
    assert_eq!((host.half_open.borrow().len(), host.established.borrow().len()), (6, 2));
    // Late replies to the earlier connection do not open or end the new one.
    let _ = arrive(&host, segment((BACKEND, 8000), (HOST, waiting[2]), "SA", 500, 77_000_000));
    let _ = arrive(&host, segment((CLIENT, 4001), (HOST, 1234), "R", 77_000_000, 0));
    let _ = arrive(&host, segment((BACKEND, 8000), (HOST, waiting[2]), "RA", 0, 77_000_000));
    assert_eq!((host.half_open.borrow().len(), host.backend_stats[0].failed.get()), (6, 0));
    assert_eq!(begin(4001), waiting[2]);
    assert_eq!(arrive(&host, segment((BACKEND, 8000), (HOST, waiting[2]), "SA", 900, 11)).0, Action::Forward);
    assert_eq!(arrive(&host, segment((CLIENT, 4001), (HOST, 1234), "A", 11, 901)).0, Action::Forward);
    assert_eq!((host.half_open.borrow().len(), active(&host)), (4, (2, 0)));
}

#[test]
fn reconnected_client_opens_by_answer_to_its_last_syn() {
    let host = host();
    let _ = arrive(&host, segment((CLIENT, 4000), (HOST, 1234), SYN, 10, 0));
    let snat = arrive(&host, segment((CLIENT, 4000), (HOST, 1234), SYN, 7_000, 0)).1.unwrap().from.1;
    let _ = arrive(&host, segment((BACKEND, 8000), (HOST, snat), "SA", 500, 11));
    let _ = arrive(&host, segment((CLIENT, 4000), (HOST, 1234), "A", 11, 501));
    assert_eq!(active(&host), (0, 0));
    let _ = arrive(&host, segment((BACKEND, 8000), (HOST, snat), "SA", 900, 7_001));
    let _ = arrive(&host, segment((CLIENT, 4000), (HOST, 1234), "A", 7_001, 901));
    assert_eq!(active(&host), (1, 0));
}

#[test]
fn port_of_longest_closed_connection_is_reused() {
    let host = host();
    let ports: Vec<_> = [4002, 4000, 4003, 4001]
        .map(|port| {
            host.pass(1.0);
            connected(&host, port)
        })
        .into();
    for port in 4000..4004 {
        let _ = arrive(&host, segment((CLIENT, port), (HOST, 1234), "R", 11, 0));
    }
    let again =
        (4010..4014).map(|port| arrive(&host, segment((CLIENT, port), (HOST, 1234), SYN, 10, 0)).1.unwrap().from.1);
    assert_eq!(again.collect::<Vec<_>>(), ports);
}

#[test]
fn probing_ends_early_if_closed_ports_have_rested() {
    let mut host = host();
    host.config.snat_last = 61_063;
    for port in 4000..4064 {
        // The last free ports take several attempts.
        while arrive(&host, segment((CLIENT, port), (HOST, 1234), SYN, 10, 0)).0 != Action::Forward {}
        connected(&host, port);
    }
    for port in 4000..4064 {
        assert_eq!(arrive(&host, segment((CLIENT, port), (HOST, 1234), "R", 11, 0)).0, Action::Forward);
    }
    let looks = |port| {
        let before = host.conntrack_lookups.get();
        assert_eq!(arrive(&host, segment((CLIENT, port), (HOST, 1234), SYN, 10, 0)).0, Action::Forward);
        host.conntrack_lookups.get() - before
    };
    let just_now = looks(5000);
    host.pass(0.11);
    let later = looks(5001);
    assert_eq!(just_now - later, MAX_PROBES - MIN_PROBES, "{just_now}, {later}");
}
