//! Fragments, of which only the first has the ports.

use anyhow::Context as _;
use proxymatic_tests::failure::TestResult;

use super::endpoints::{BOTH, TC_NEXT, TC_REDIRECT, address, equal, source_port};
use super::packet_spec::{Carries, HERE, PacketSpec, link};
use super::test_netns::TestNetns;

/// A datagram of 3,008 bytes with its header, in three fragments.
fn in_three(spec: PacketSpec) -> [PacketSpec; 3] {
    [(0, 1400), (1400, 2800), (2800, 3008)].map(|(first, end)| PacketSpec {
        payload: (0..3000_u16).map(|n| n as u8).collect(),
        fragment: Some((0x1234, first, end)),
        ..spec.clone()
    })
}

#[test]
fn fragments_follow_the_first_fragment() -> TestResult {
    let room = TestNetns::new()?;
    for ends in BOTH {
        for carries in [Carries::Udp, Carries::UnsummedUdp] {
            if matches!(carries, Carries::UnsummedUdp) && ends.client.starts_with('[') {
                continue;
            }
            let parts = in_three(PacketSpec { carries, ..ends.udp() });
            let first = room.run("tc_ingress", &parts[0].arriving()?)?;
            let snat = source_port(&first.packet[..]).or_else(|_| ports_of(&first.packet))?;
            let mut all = vec![first];
            for part in &parts[1..] {
                all.push(room.run("tc_ingress", &part.arriving()?)?);
            }
            for (done, part) in all.iter().zip(&parts) {
                let wanted = part.sent_on(ends.snat(snat), address(ends.backend)).frame(link(2), HERE)?;
                equal(done, TC_REDIRECT, &wanted).with_context(|| format!("{:?}", part.fragment))?;
            }
            for part in in_three(ends.udp_back(snat)) {
                let done = room.run("tc_ingress", &part.frame(HERE, link(2))?)?;
                let to_client = part.sent_on(address(ends.host), address(ends.client));
                equal(&done, TC_REDIRECT, &to_client.frame(link(9), HERE)?)?;
            }
        }
    }
    Ok(())
}

/// Returns the source port of a first fragment, which etherparse does not parse.
fn ports_of(packet: &[u8]) -> anyhow::Result<u16> {
    let at = if packet[12..14] == [8, 0] { 34 } else { 62 };
    Ok(u16::from_be_bytes(packet[at..at + 2].try_into()?))
}

#[test]
fn fragment_without_known_first_passes_and_is_counted() -> TestResult {
    let mut room = TestNetns::new()?;
    for ends in BOTH {
        let [first, second, _] = in_three(ends.udp());
        let packet = second.arriving()?;
        equal(&room.run("tc_ingress", &packet)?, TC_NEXT, &packet)?;
        // A fragment of another packet.
        assert_eq!(room.run("tc_ingress", &first.arriving()?)?.verdict, TC_REDIRECT);
        let other = PacketSpec { fragment: Some((0x4321, 1400, 2800)), ..second };
        let packet = other.arriving()?;
        equal(&room.run("tc_ingress", &packet)?, TC_NEXT, &packet)?;
    }
    assert!(room.counted()?.contains(&("unknown_fragment", 4)), "{:?}", room.counted()?);
    Ok(())
}

#[test]
fn fragments_of_a_local_backend_leave_as_the_service() -> TestResult {
    let mut room = TestNetns::new()?;
    room.backends(|backend| backend.local = 1)?;
    for ends in BOTH {
        for part in in_three(ends.udp()) {
            let done = room.run("tc_ingress", &part.arriving()?)?;
            equal(&done, TC_NEXT, &part.between(part.from, address(ends.backend)).arriving()?)?;
        }
        for part in in_three(PacketSpec::udp(ends.backend, ends.client)) {
            let done = room.run("tc_egress", &part.frame(link(9), HERE)?)?;
            equal(&done, TC_NEXT, &part.between(address(ends.host), part.to).frame(link(9), HERE)?)?;
        }
    }
    Ok(())
}
