//! Connections through TC to backends on this host.

use anyhow::{Context as _, Result};
use proxymatic_common::PROTOCOL_TCP;
use proxymatic_tests::failure::TestResult;

use super::endpoints::{BOTH, Endpoints, TC_NEXT, address, equal};
use super::packet_spec::{HERE, PacketSpec, link};
use super::test_netns::TestNetns;

/// Packets that leave this host for the client.
fn leaving(spec: &PacketSpec) -> Result<Vec<u8>> {
    spec.frame(link(9), HERE)
}

/// A segment of the client reaches the backend with the client's own address; the backend's reply leaves with the
/// service's address.
fn there_and_back(room: &TestNetns, ends: &Endpoints, there: &PacketSpec, back: &PacketSpec) -> TestResult {
    let done = room.run("tc_ingress", &there.arriving()?)?;
    equal(&done, TC_NEXT, &there.between(there.from, address(ends.backend)).arriving()?)?;
    let done = room.run("tc_egress", &leaving(back)?)?;
    equal(&done, TC_NEXT, &leaving(&back.between(address(ends.host), back.to))?)?;
    Ok(())
}

#[test]
fn local_backend_sees_the_client_and_replies_as_the_service() -> TestResult {
    let mut room = TestNetns::new()?;
    room.backends(|backend| backend.local = 1)?;
    for ends in BOTH {
        let back = |flags, sequence, ack| PacketSpec::tcp(ends.backend, ends.client, flags, sequence, ack);
        there_and_back(&room, ends, &ends.tcp("S", 10, 0), &back("SA", 500, 11))?;
        there_and_back(&room, ends, &ends.tcp("A", 11, 501), &back("A", 501, 12))?;
        assert!(room.connection(&ends.key(PROTOCOL_TCP))?.is_some());
        there_and_back(&room, ends, &ends.tcp("FA", 11, 501), &back("FA", 501, 12))?;
        there_and_back(&room, ends, &ends.udp(), &PacketSpec::udp(ends.backend, ends.client))?;
    }
    assert_eq!((room.load(0)?, room.load(1)?), ((1, 1), (1, 1)));
    assert!(room.counted()?.contains(&("forwarded_local", 4)), "{:?}", room.counted()?);
    Ok(())
}

#[test]
fn ttl_of_a_local_packet_is_not_decremented() -> TestResult {
    let mut room = TestNetns::new()?;
    room.backends(|backend| backend.local = 1)?;
    for ends in BOTH {
        let there = PacketSpec { hops: 1, ..ends.tcp("S", 10, 0) };
        let done = room.run("tc_ingress", &there.arriving()?)?;
        equal(&done, TC_NEXT, &there.between(there.from, address(ends.backend)).arriving()?)?;
    }
    Ok(())
}

#[test]
fn replies_are_intercepted_only_on_their_path() -> TestResult {
    let mut room = TestNetns::new()?;
    room.backends(|backend| backend.local = 1)?;
    for ends in BOTH {
        let there = ends.tcp("S", 10, 0).arriving()?;
        let done = room.run("tc_ingress", &there)?;
        assert_ne!(done.packet, there);
        // A spoofed packet from outside has the backend's address.
        let reply = PacketSpec::tcp(ends.backend, ends.client, "SA", 500, 11);
        let packet = reply.arriving()?;
        equal(&room.run("tc_ingress", &packet)?, TC_NEXT, &packet)?;
        // A program of this host has the client's port.
        let packet = leaving(&ends.tcp("S", 10, 0))?;
        equal(&room.run("tc_egress", &packet)?, TC_NEXT, &packet)?;
        // Another port of this host.
        let packet = leaving(&PacketSpec { from: ends.snat(8002), ..reply })?;
        equal(&room.run("tc_egress", &packet)?, TC_NEXT, &packet).context("another port")?;
    }
    Ok(())
}

#[test]
fn forwarded_packet_passes_unchanged_at_egress() -> TestResult {
    let room = TestNetns::new()?;
    for ends in BOTH {
        let snat = ends.connect(&room)?;
        for spec in [
            ends.tcp("A", 11, 501).sent_on(ends.snat(snat), address(ends.backend)),
            ends.tcp_back(snat, "A", 501, 11).sent_on(address(ends.host), address(ends.client)),
        ] {
            let packet = leaving(&spec)?;
            equal(&room.run("tc_egress", &packet)?, TC_NEXT, &packet)?;
        }
    }
    Ok(())
}
