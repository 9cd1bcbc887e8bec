//! Connections through TC to backends on other machines.

use anyhow::Context as _;
use proxymatic_common::maps::{self as declared};
use proxymatic_common::{CtProgress, Features, PROTOCOL_TCP, PROTOCOL_UDP, Policy, Service, SourceCode};
use proxymatic_tests::failure::TestResult;

use super::endpoints::{BOTH, TC_NEXT, TC_SHOT, V4, address, equal, of_each, tuple};
use super::packet_spec::{Carries, HERE, PacketSpec, link};
use super::test_netns::{SNAT, TestNetns};

#[test]
fn tcp_is_forwarded_both_ways_over_both_families() -> TestResult {
    let mut room = TestNetns::new()?;
    for ends in BOTH {
        let snat = ends.connect(&room)?;
        assert!((SNAT.0..=SNAT.1).contains(&snat), "{snat}");
        ends.sends(&room, "tc_ingress", &ends.tcp("A", 16, 501))?;
        ends.returns(&room, "tc_ingress", &ends.tcp_back(snat, "A", 501, 16))?;
        ends.sends(&room, "tc_ingress", &ends.tcp("FA", 16, 501))?;
        ends.returns(&room, "tc_ingress", &ends.tcp_back(snat, "FA", 501, 17))?;
        ends.sends(&room, "tc_ingress", &ends.tcp("A", 17, 502))?;
        let half = room.connection(&ends.key(PROTOCOL_TCP))?.context("no connection")?;
        assert!(half.progress().has(CtProgress::CLOSED.with(CtProgress::FINISHED)), "{half:?}");
    }
    // Backend 1 has IPv4, backend 0 has IPv6.
    assert_eq!((room.load(0)?, room.load(1)?), ((1, 1), (1, 1)));
    assert_eq!(room.counted()?, [("translated", 2), ("forwarded", 2)]);
    Ok(())
}

#[test]
fn udp_is_forwarded_both_ways_over_both_families() -> TestResult {
    let mut room = TestNetns::new()?;
    for ends in BOTH {
        let snat = ends.converse(&room)?;
        assert_eq!(ends.sends(&room, "tc_ingress", &ends.udp())?, snat);
        assert!(room.handshake(&ends.key(PROTOCOL_UDP))?.is_none());
    }
    assert_eq!((room.load(2)?, room.load(3)?), ((1, 0), (1, 0)));
    Ok(())
}

#[test]
fn datagram_without_checksum_is_forwarded_without() -> TestResult {
    let room = TestNetns::new()?;
    let spec = |spec: PacketSpec| PacketSpec { carries: Carries::UnsummedUdp, ..spec };
    let snat = V4.sends(&room, "tc_ingress", &spec(V4.udp()))?;
    V4.returns(&room, "tc_ingress", &spec(V4.udp_back(snat)))?;
    Ok(())
}

#[test]
fn options_and_extension_headers_are_forwarded() -> TestResult {
    let room = TestNetns::new()?;
    for (protocol, spec) in of_each(&V4) {
        for options in [1, 10] {
            let spec = PacketSpec { options, ..spec.clone() };
            V4.sends(&room, "tc_ingress", &spec).with_context(|| format!("{options} words, {protocol}"))?;
        }
    }
    for (protocol, spec) in of_each(BOTH[1]) {
        for extensions in [vec![0], vec![60], vec![43], vec![0, 60, 43]] {
            let spec = PacketSpec { extensions: extensions.clone(), ..spec.clone() };
            BOTH[1].sends(&room, "tc_ingress", &spec).with_context(|| format!("{extensions:?}, {protocol}"))?;
        }
    }
    Ok(())
}

#[test]
fn packet_with_too_many_headers_passes_and_is_counted() -> TestResult {
    let mut room = TestNetns::new()?;
    let packet = PacketSpec { extensions: vec![60; 5], ..BOTH[1].tcp("S", 10, 0) }.arriving()?;
    equal(&room.run("tc_ingress", &packet)?, TC_NEXT, &packet)?;
    assert_eq!(room.counted()?, [("unreadable", 1)]);
    Ok(())
}

#[test]
fn packet_of_no_service_passes_and_is_not_counted() -> TestResult {
    let mut room = TestNetns::new()?;
    let syn = V4.tcp("S", 10, 0).arriving()?;
    let mut packets = vec![
        ("no service", PacketSpec::tcp(V4.client, "10.77.0.1:1235", "S", 1, 0).arriving()?),
        ("not this host", PacketSpec::tcp(V4.client, "10.77.0.3:1234", "S", 1, 0).arriving()?),
        ("unknown connection", V4.tcp("A", 10, 20).arriving()?),
        ("unknown reply", V4.tcp_back(SNAT.0, "SA", 10, 20).arriving()?),
        ("loopback", PacketSpec::tcp("127.0.0.1:1", V4.host, "S", 1, 0).arriving()?),
        ("to loopback", PacketSpec::tcp(V4.client, "127.0.0.1:1234", "S", 1, 0).arriving()?),
        ("cut off", syn[..40].to_vec()),
    ];
    let mut tagged = syn.clone();
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    packets.push(("of a VLAN", tagged));
    let mut others = syn.clone();
    others[..6].copy_from_slice(&link(3));
    packets.push(("of another machine", others));
    let mut arp = syn;
    arp[12..14].copy_from_slice(&[8, 6]);
    packets.push(("ARP", arp));
    for (what, packet) in packets {
        for program in ["tc_ingress", "tc_egress"] {
            equal(&room.run(program, &packet)?, TC_NEXT, &packet).with_context(|| format!("{what}, {program}"))?;
        }
    }
    let counted = room.counted()?;
    assert!(counted.iter().all(|(reason, _)| *reason == "unreadable"), "{counted:?}");
    Ok(())
}

#[test]
fn service_not_exposed_is_not_forwarded() -> TestResult {
    let mut room = TestNetns::new()?;
    room.service(0, Service::new(Policy::LEASTCONN, SourceCode::FILE))?;
    let packet = V4.tcp("S", 10, 0).arriving()?;
    equal(&room.run("tc_ingress", &packet)?, TC_NEXT, &packet)?;
    assert_eq!(room.counted()?, [("not_exposed", 1)]);
    Ok(())
}

#[test]
fn client_not_on_the_allow_list_is_left_to_the_host() -> TestResult {
    let mut room = TestNetns::new()?;
    let service = Service::new(Policy::LEASTCONN, SourceCode::FILE);
    room.service(0, Service { features: Features::EXPOSE.with(Features::ALLOW), ..service })?;
    let packet = V4.tcp("S", 10, 0).arriving()?;
    equal(&room.run("tc_ingress", &packet)?, TC_NEXT, &packet)?;
    assert_eq!(room.counted()?, [("not_allowed", 1)]);
    Ok(())
}

#[test]
fn local_listener_takes_precedence_over_the_service() -> TestResult {
    let mut room = TestNetns::new()?;
    let bound = room.enter(|| std::net::TcpListener::bind("0.0.0.0:1234"))??;
    room.look_for_listeners()?;
    let packet = V4.tcp("S", 10, 0).arriving()?;
    equal(&room.run("tc_ingress", &packet)?, TC_NEXT, &packet)?;
    assert_eq!(room.counted()?, [("local_listener", 1)]);
    drop(bound);
    V4.connect(&room)?;
    Ok(())
}

#[test]
fn snat_ports_are_unique_and_exhaustion_is_refused() -> TestResult {
    let mut room = TestNetns::new()?;
    let mut ports = Vec::new();
    let mut refused = 0;
    // Some free ports are not found, since a limited number of random ports is tried.
    for port in 4000..4100 {
        let from = |flags, sequence, acknowledged| {
            let mut spec = V4.tcp(flags, sequence, acknowledged);
            spec.from.set_port(port);
            spec.arriving()
        };
        let done = room.run("tc_ingress", &from("S", 10, 0)?)?;
        if done.verdict == TC_NEXT {
            refused += 1;
            continue;
        }
        let snat = super::endpoints::source_port(&done.packet)?;
        let _ = room.run("tc_ingress", &V4.tcp_back(snat, "SA", 500, 11).arriving()?)?;
        let _ = room.run("tc_ingress", &from("A", 11, 501)?)?;
        ports.push(snat);
    }
    ports.sort_unstable();
    assert_eq!(ports, (SNAT.0..=SNAT.1).collect::<Vec<_>>());
    let counted = room.counted()?;
    assert!(counted.contains(&("snat_ports_exhausted", refused)), "{counted:?}");
    assert!(counted.iter().all(|(reason, _)| *reason != "snat_port_preempted"), "{counted:?}");
    Ok(())
}

#[test]
fn snat_port_of_a_half_open_connection_is_preempted_if_all_are() -> TestResult {
    let mut room = TestNetns::new()?;
    // Each SYN probes four ports from a random one on. Two hundred leave a port free by chance once in 10^20 runs.
    let syns = 200;
    for port in (4000..).take(syns) {
        let mut spec = V4.tcp("S", 10, 0);
        spec.from.set_port(port);
        let done = room.run("tc_ingress", &spec.arriving()?)?;
        assert_ne!(done.verdict, TC_NEXT, "{port}");
    }
    let ports = u64::from(SNAT.1 - SNAT.0) + 1;
    assert_eq!(room.hash::<declared::CtHalfOpen, _, _>()?.keys().count() as u64, 2 * ports);
    let counted = room.counted()?;
    assert!(counted.contains(&("snat_port_preempted", syns as u64 - ports)), "{counted:?}");
    V4.connect(&room)?;
    Ok(())
}

#[test]
fn interface_not_served_is_no_route() -> TestResult {
    let mut room = TestNetns::new()?;
    room.forget_interface()?;
    let packet = V4.tcp("S", 10, 0).arriving()?;
    equal(&room.run("tc_ingress", &packet)?, TC_NEXT, &packet)?;
    assert_eq!(room.counted()?, [("no_return_path", 1)]);
    Ok(())
}

#[test]
fn packet_without_a_route_is_left_to_the_host() -> TestResult {
    let mut room = TestNetns::new()?;
    room.backends(|backend| backend.address = super::test_netns::address("198.51.100.1"))?;
    let packet = V4.tcp("S", 10, 0).arriving()?;
    equal(&room.run("tc_ingress", &packet)?, TC_NEXT, &packet)?;
    assert_eq!(room.counted()?, [("no_route", 1)]);
    Ok(())
}

#[test]
fn host_without_forwarding_replies_by_the_same_interface() -> TestResult {
    let room = TestNetns::new()?;
    for setting in ["net/ipv4/conf/lab0/forwarding", "net/ipv6/conf/lab0/forwarding"] {
        room.lab.host(1).net().sysctl(setting, "0")?;
    }
    for ends in BOTH {
        let spec = ends.tcp("S", 10, 0);
        let done = room.run("tc_ingress", &spec.arriving()?)?;
        let snat = super::endpoints::source_port(&done.packet)?;
        // The kernel writes the link header (bpf_redirect_neigh).
        let wanted = spec.sent_on(ends.snat(snat), address(ends.backend)).frame(HERE, link(9))?;
        equal(&done, super::endpoints::TC_REDIRECT, &wanted)?;
    }
    Ok(())
}

#[test]
fn backend_that_refuses_is_ejected() -> TestResult {
    let mut room = TestNetns::new()?;
    let snat = V4.sends(&room, "tc_ingress", &V4.tcp("S", 10, 0))?;
    V4.returns(&room, "tc_ingress", &V4.tcp_back(snat, "RA", 0, 11))?;
    assert!(room.handshake(&V4.key(PROTOCOL_TCP))?.is_none());
    let counted = room.counted()?;
    assert!(counted.contains(&("failed", 1)), "{counted:?}");
    Ok(())
}

#[test]
fn syn_flood_evicts_no_open_connection() -> TestResult {
    let mut room = TestNetns::new()?;
    let snat = V4.connect(&room)?;
    room.more_ports()?;
    let mut spec = V4.tcp("S", 10, 0);
    for n in 0..2_000_u16 {
        spec.from = format!("10.78.{}.{}:{}", n >> 8, n & 255, 1024 + n).parse()?;
        let _ = room.run("tc_ingress", &spec.arriving()?)?;
    }
    V4.sends(&room, "tc_ingress", &V4.tcp("A", 11, 501))?;
    V4.returns(&room, "tc_ingress", &V4.tcp_back(snat, "A", 501, 11))?;
    let key = tuple(address(V4.client), address(V4.host), PROTOCOL_TCP);
    assert!(room.connection(&key)?.is_some());
    assert_eq!(room.hash::<declared::Conntrack, _, _>()?.keys().count(), 2);
    Ok(())
}

#[test]
fn packet_with_ttl_exceeded_returns_icmp_to_the_sender() -> TestResult {
    let mut room = TestNetns::new()?;
    for ends in BOTH {
        for (protocol, spec) in of_each(ends) {
            let spec = PacketSpec { hops: 1, ..spec };
            let done = room.run("tc_ingress", &spec.arriving()?)?;
            let quoted = &spec.network()?[..quotes(&spec, protocol)];
            let (from, to) = (address(ends.host).ip(), address(ends.client).ip());
            let about = super::packet_spec::About::HopsExceeded;
            let wanted = super::packet_spec::error((link(9), HERE), (from, to), 64, about, quoted)?;
            told(&done, &wanted).with_context(|| format!("{spec:?}"))?;
        }
    }
    assert!(room.counted()?.contains(&("ttl_exceeded", 4)), "{:?}", room.counted()?);
    Ok(())
}

#[test]
fn packet_over_mtu_returns_icmp_to_the_sender() -> TestResult {
    let mut room = TestNetns::new()?;
    for ends in BOTH {
        for (protocol, spec) in of_each(ends) {
            let spec = PacketSpec { payload: vec![7; 1600], ..spec };
            let done = room.run("tc_ingress", &spec.arriving()?)?;
            let quoted = &spec.network()?[..quotes(&spec, protocol)];
            let (from, to) = (address(ends.host).ip(), address(ends.client).ip());
            let wanted = super::packet_spec::error(
                (link(9), HERE),
                (from, to),
                64,
                super::packet_spec::About::TooBig(1500),
                quoted,
            )?;
            told(&done, &wanted).with_context(|| format!("{spec:?}"))?;
        }
    }
    assert!(room.counted()?.contains(&("mtu_exceeded", 4)), "{:?}", room.counted()?);
    Ok(())
}

#[test]
fn gso_packet_passes_if_each_segment_fits() -> TestResult {
    let room = TestNetns::new()?;
    V4.connect(&room)?;
    let spec = PacketSpec { payload: vec![7; 2_896], ..V4.tcp("A", 11, 501) };
    let fits = room.run_as("tc_ingress", &spec.arriving()?, 1448)?;
    assert_eq!(fits.verdict, super::endpoints::TC_REDIRECT);
    let does_not = room.run_as("tc_ingress", &spec.arriving()?, 1481)?;
    assert_ne!(does_not.packet.len(), spec.arriving()?.len());
    assert_ne!(does_not.verdict, TC_SHOT);
    Ok(())
}

/// The part of a packet that an error quotes: its headers.
fn quotes(spec: &PacketSpec, protocol: u8) -> usize {
    let network = if spec.from.is_ipv4() { 20 } else { 40 };
    network + if protocol == PROTOCOL_TCP { 20 } else { 8 }
}

/// Asserts that a packet has become an error, except the fields that etherparse leaves open: type of service,
/// identification, DF.
fn told(done: &super::test_netns::Done, wanted: &[u8]) -> anyhow::Result<()> {
    let mut packet = done.packet.clone();
    if packet[12..14] == [8, 0] {
        let header = etherparse::Ipv4HeaderSlice::from_slice(&packet[14..])?.to_header();
        anyhow::ensure!(header.header_checksum == header.calc_header_checksum(), "the checksum of IPv4");
        let of = etherparse::Ipv4HeaderSlice::from_slice(&wanted[14..])?.to_header();
        anyhow::ensure!(
            (header.source, header.destination, header.total_len, header.protocol)
                == (of.source, of.destination, of.total_len, of.protocol),
            "{header:?}, not {of:?}"
        );
        packet[14..34].copy_from_slice(&wanted[14..34]);
    }
    equal(&super::test_netns::Done { verdict: done.verdict, packet }, super::endpoints::TC_REDIRECT, wanted)
}
