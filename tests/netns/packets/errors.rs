//! ICMP errors about forwarded packets.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use proxymatic_tests::failure::TestResult;

use super::endpoints::{BOTH, Endpoints, TC_NEXT, TC_REDIRECT, address, equal};
use super::packet_spec::{About, HERE, PacketSpec, error, link};
use super::test_netns::TestNetns;

const ALL: [About; 3] = [About::PortUnreachable, About::TooBig(1400), About::HopsExceeded];

/// A router on the path to the backend.
fn router(ends: &Endpoints) -> IpAddr {
    if address(ends.client).is_ipv4() { [10, 77, 0, 7].into() } else { "fd77::7".parse().expect("an address") }
}

/// The client's open connections of both protocols: the client's packet, the forwarded packet, and the backend's
/// packet.
fn open(room: &TestNetns, ends: &Endpoints) -> Result<[(PacketSpec, PacketSpec, PacketSpec); 2]> {
    let (tcp, udp) = (ends.connect(room)?, ends.converse(room)?);
    let (backend, host, client) = (address(ends.backend), address(ends.host), address(ends.client));
    Ok([(ends.tcp("A", 11, 501), tcp), (ends.udp(), udp)].map(|(sent, snat)| {
        let got = sent.sent_on(ends.snat(snat), backend);
        let back = sent.between(host, client);
        (sent, got, back)
    }))
}

#[test]
fn icmp_error_from_backend_side_reaches_client_translated() -> TestResult {
    let mut room = TestNetns::new()?;
    for ends in BOTH {
        let (host, client) = (address(ends.host).ip(), address(ends.client).ip());
        for (sent, got, _) in open(&room, ends)? {
            for about in ALL {
                for (from, seen_from) in [(address(ends.backend).ip(), host), (router(ends), router(ends))] {
                    for cut in [28, 1000] {
                        let cut = |bytes: Vec<u8>| {
                            let head = if host.is_ipv4() { 0 } else { 20 };
                            bytes[..(cut + head).min(bytes.len())].to_vec()
                        };
                        let came = error((HERE, link(2)), (from, host), 60, about, &cut(got.network()?))?;
                        let done = room.run("tc_ingress", &came)?;
                        // The quoted packet has the TTL with which it left this host.
                        let known = PacketSpec { hops: got.hops, ..sent.clone() };
                        let links = (link(9), HERE);
                        let wanted = error(links, (seen_from, client), 59, about, &cut(known.network()?))?;
                        equal(&done, TC_REDIRECT, &wanted).with_context(|| format!("{about:?} from {from}"))?;
                    }
                }
            }
        }
    }
    assert!(room.counted()?.contains(&("icmp_error_forwarded", 48)), "{:?}", room.counted()?);
    Ok(())
}

#[test]
fn icmp_error_from_client_side_reaches_the_backend() -> TestResult {
    let room = TestNetns::new()?;
    for ends in BOTH {
        let (host, client) = (address(ends.host).ip(), address(ends.client).ip());
        for (_, got, back) in open(&room, ends)? {
            let came = error((HERE, link(9)), (client, host), 60, About::TooBig(1400), &back.network()?)?;
            let done = room.run("tc_ingress", &came)?;
            let known = back.between(got.to, got.from);
            let (from, to) = (host, address(ends.backend).ip());
            let links = (link(2), HERE);
            let wanted = error(links, (from, to), 59, About::TooBig(1400), &known.network()?)?;
            equal(&done, TC_REDIRECT, &wanted)?;
        }
    }
    Ok(())
}

#[test]
fn icmp_error_of_local_closed_port_names_the_service() -> TestResult {
    let mut room = TestNetns::new()?;
    room.backends(|backend| backend.local = 1)?;
    for ends in BOTH {
        let sent = ends.udp();
        assert_eq!(room.run("tc_ingress", &sent.arriving()?)?.verdict, TC_NEXT);
        let got = sent.between(sent.from, address(ends.backend));
        let (host, backend) = (address(ends.host).ip(), address(ends.backend).ip());
        let ends_of = |from| (from, address(ends.client).ip());
        let links = (link(9), HERE);
        let leaves = error(links, ends_of(backend), 64, About::PortUnreachable, &got.network()?)?;
        let wanted = error(links, ends_of(host), 64, About::PortUnreachable, &sent.network()?)?;
        equal(&room.run("tc_egress", &leaves)?, TC_NEXT, &wanted)?;
    }
    Ok(())
}

#[test]
fn icmp_error_of_a_foreign_flow_passes_unchanged() -> TestResult {
    let room = TestNetns::new()?;
    for ends in BOTH {
        let (host, client) = (address(ends.host).ip(), address(ends.client).ip());
        let other = PacketSpec::udp(ends.host, ends.client);
        let came = error((HERE, link(9)), (client, host), 60, About::PortUnreachable, &other.network()?)?;
        for program in ["tc_ingress", "tc_egress", "xdp_ingress"] {
            let verdict = if program == "xdp_ingress" { super::endpoints::XDP_PASS } else { TC_NEXT };
            equal(&room.run(program, &came)?, verdict, &came)?;
        }
    }
    Ok(())
}
