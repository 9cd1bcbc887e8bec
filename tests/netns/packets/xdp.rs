//! The packets that XDP forwards, and those that it leaves to TC.

use anyhow::{Context as _, Result};
use proxymatic_common::InterfaceKind;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::PATIENCE;

use super::endpoints::{BOTH, V4, XDP_DROP, XDP_PASS, equal};
use super::packet_spec::{Carries, HERE, PacketSpec, link};
use super::test_netns::TestNetns;

#[test]
fn open_connections_are_forwarded_both_ways_by_xdp_alone() -> TestResult {
    let mut room = TestNetns::new()?;
    room.interface(InterfaceKind::ACCELERATED)?;
    for ends in BOTH {
        let (tcp, udp) = (ends.connect(&room)?, ends.converse(&room)?);
        by_xdp(|program| ends.sends(&room, program, &ends.tcp("A", 11, 501)))?;
        by_xdp(|program| ends.returns(&room, program, &ends.tcp_back(tcp, "A", 501, 16)))?;
        by_xdp(|program| ends.sends(&room, program, &ends.udp()))?;
        by_xdp(|program| ends.returns(&room, program, &ends.udp_back(udp)))?;
    }
    by_xdp(|program| V4.sends(&room, program, &PacketSpec { carries: Carries::UnsummedUdp, ..V4.udp() }))?;
    assert!(room.counted()?.contains(&("forwarded_xdp", 9)), "{:?}", room.counted()?);
    Ok(())
}

/// Sends a packet through XDP, which leaves it to TC if TC's last note of the flow is more than a second old.
fn by_xdp<T>(send: impl Fn(&str) -> Result<T>) -> Result<T> {
    eventually_ok("XDP sends it on", PATIENCE, || match send("xdp_ingress") {
        Ok(sent) => Ok(sent),
        Err(left) => {
            send("tc_ingress")?;
            Err(left)
        }
    })
}

#[test]
fn other_packets_are_left_to_tc_unchanged() -> TestResult {
    let mut room = TestNetns::new()?;
    room.interface(InterfaceKind::ACCELERATED)?;
    for ends in BOTH {
        let new = ends.tcp("S", 10, 0).arriving()?;
        equal(&room.run("xdp_ingress", &new)?, XDP_PASS, &new)?;
        let snat = ends.connect(&room)?;
        ends.converse(&room)?;
        let v4 = ends.client == V4.client;
        let open = ends.tcp("A", 11, 501);
        let mut cases = vec![
            ("SYN", ends.tcp("S", 10, 0)),
            ("FIN", ends.tcp("FA", 11, 501)),
            ("RST", ends.tcp("R", 11, 0)),
            ("no hops left", PacketSpec { hops: 1, ..open.clone() }),
            ("fragment", PacketSpec { fragment: Some((7, 0, 8)), ..ends.udp() }),
            ("later fragment", PacketSpec { fragment: Some((7, 8, 16)), ..ends.udp() }),
            ("unknown", PacketSpec { from: ends.snat(4321), ..open.clone() }),
            ("too large", PacketSpec { payload: vec![0; 1600], ..open.clone() }),
        ];
        if v4 {
            cases.push(("options", PacketSpec { options: 1, ..open }));
        } else {
            cases.push(("extension", PacketSpec { extensions: vec![0], ..open }));
        }
        for (what, spec) in cases {
            let packet = spec.arriving()?;
            equal(&room.run("xdp_ingress", &packet)?, XDP_PASS, &packet).context(what)?;
        }
        let fin = ends.tcp_back(snat, "FA", 501, 11).frame(HERE, link(2))?;
        equal(&room.run("xdp_ingress", &fin)?, XDP_PASS, &fin)?;
    }
    for length in [14, 20, 33, 40] {
        let packet = V4.tcp("A", 11, 501).arriving()?[..length].to_vec();
        let done = room.run("xdp_ingress", &packet)?;
        assert_ne!(done.verdict, XDP_DROP);
        assert_eq!(done.packet, packet);
    }
    assert!(room.counted()?.iter().all(|(reason, _)| *reason != "forwarded_xdp"));
    Ok(())
}

#[test]
fn interface_without_xdp_is_no_route_for_xdp() -> TestResult {
    let room = TestNetns::new()?;
    for ends in BOTH {
        ends.connect(&room)?;
        let packet = ends.tcp("A", 11, 501).arriving()?;
        equal(&room.run("xdp_ingress", &packet)?, XDP_PASS, &packet)?;
    }
    Ok(())
}

#[test]
fn local_packets_are_left_to_tc() -> TestResult {
    let mut room = TestNetns::new()?;
    room.backends(|backend| backend.local = 1)?;
    for ends in BOTH {
        let _ = room.run("tc_ingress", &ends.tcp("S", 10, 0).arriving()?)?;
        let reply = PacketSpec::tcp(ends.backend, ends.client, "SA", 500, 11).frame(link(9), HERE)?;
        let _ = room.run("tc_egress", &reply)?;
        let packet = ends.tcp("A", 11, 501).arriving()?;
        let _ = room.run("tc_ingress", &packet)?;
        assert!(room.connection(&ends.key(6))?.is_some());
        equal(&room.run("xdp_ingress", &packet)?, XDP_PASS, &packet)?;
    }
    Ok(())
}
