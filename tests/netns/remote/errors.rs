//! ICMP errors of routers and hosts: the client receives them as if host 1 were the backend.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{CLIENT, FAR, Lab, PATIENCE, ROUTER};
use proxymatic_tests::net::{address_on, address6_on};

use super::client::{WAIT, asked, greeted, socket, who};
use super::{ROUTED, Remote, WAYS, at, exposed};
use crate::fixtures::cluster::PORT;
use crate::programs::run_on;

/// The MTU of the link between the router and the far backend.
const NARROW: u16 = 1_400;

#[test]
fn icmp_of_closed_backend_port_reaches_client_as_the_service() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let places = lab.host(2).places_on(0, 7001);
        let _agent = way.serve(&lab, &["tcp", "udp"].map(|it| exposed(it, it, PORT, &places, &[])).concat())?;
        for to in way.service_addresses() {
            // A connected socket receives only errors that name its destination.
            let error = asked(&socket(lab.host(CLIENT), to)?).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{way:?} {to}");
            assert_eq!(super::client::refused(lab.host(CLIENT), to)?, ErrorKind::ConnectionRefused, "{way:?} {to}");
        }
    }
    Ok(())
}

#[test]
fn ping_of_host_1_is_answered_by_host_1() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let _remote = Remote::start(&lab, way)?;
        for to in way.arms.service_addresses() {
            // One request for each run: after a first reply, ping waits only one interval for the last one.
            for _ in 0..2 {
                let said = run_on(lab.host(CLIENT), "ping", &["-n", "-c", "1", "-W", "30", &to.to_string()])?;
                assert!(said.contains(" 1 received"), "{way:?}: {said}");
            }
        }
    }
    Ok(())
}

#[test]
fn narrow_link_behind_router_is_reported_and_megabytes_pass() -> TestResult {
    for way in WAYS.into_iter().filter(|it| it.arms == ROUTED.arms) {
        let lab = way.prepare(Lab::remote_with_router()?)?;
        lab.host(ROUTER).mtu(2, NARROW)?;
        narrow_back(&lab)?;
        let remote = Remote::of(&lab, way, vec![lab.host(FAR).echo(7001, 'a')?])?;
        for to in way.service_addresses() {
            let (mut stream, _) = greeted(lab.host(CLIENT), to)?;
            // Larger than the link's MTU: the far end announces an MSS of 1,460 bytes.
            let said: Vec<u8> = (0..1_000_000_u32).map(|at| (at * 7) as u8).collect();
            let mut writer = stream.try_clone()?;
            writer.set_write_timeout(Some(WAIT))?;
            let heard = std::thread::scope(|scope| -> Result<Vec<u8>> {
                let writer = scope.spawn(|| writer.write_all(&said));
                let mut heard = vec![0; said.len()];
                stream.read_exact(&mut heard).with_context(|| format!("{way:?} {to}"))?;
                writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
                Ok(heard)
            })?;
            assert!(heard == said, "{way:?} {to}: other bytes came back");
            knows_mtu(&lab, to.ip())?;
        }
        drop(remote);
    }
    Ok(())
}

/// The far host announces a large MSS, yet sends nothing that does not fit.
fn narrow_back(lab: &Lab) -> Result<()> {
    let narrow = NARROW.to_string();
    let [four, six] = lab.host(ROUTER).addresses_on(2).map(|it| it.to_string());
    for network in [0, 1] {
        let [to4, to6] = [format!("{}/24", address_on(network, 0)), format!("{}/64", address6_on(network, 0))];
        for (to, via, advmss) in [(to4, &four, "1460"), (to6, &six, "1440")] {
            let route = ["route", "replace", &to, "via", via, "mtu", &narrow, "advmss", advmss];
            lab.host(FAR).net().ip(&route)?;
        }
    }
    Ok(())
}

/// The clients' host has learned the path MTU to this address.
fn knows_mtu(lab: &Lab, to: IpAddr) -> Result<()> {
    let said = run_on(lab.host(CLIENT), "ip", &["route", "get", &to.to_string()])?;
    ensure!(said.contains(&format!("mtu {NARROW}")), "{said}");
    Ok(())
}

#[test]
fn traceroute_shows_the_router_before_a_far_backend() -> TestResult {
    for way in WAYS.into_iter().filter(|it| it.arms == ROUTED.arms) {
        let lab = way.prepare(Lab::remote_with_router()?)?;
        let remote = Remote::of(&lab, way, vec![lab.host(FAR).echo(7001, 'a')?])?;
        let [router4, router6] = lab.host(ROUTER).addresses_on(0).map(|it| it.to_string());
        for (to, router) in way.arms.service_addresses().into_iter().zip([router4, router6]) {
            for how in ["-U", "-T"] {
                let port = at(to, PORT).port().to_string();
                let arguments = ["-n", how, "-p", &port, "-q", "1", "-w", "5", "-m", "5", &to.to_string()];
                let wanted = [&to.to_string(), &router, &to.to_string()];
                // Hosts limit the rate of ICMP errors, and a waiting program may be late.
                eventually_ok("each hop answers", 3 * PATIENCE, || {
                    let said = run_on(lab.host(CLIENT), "traceroute", &arguments)?;
                    let hops: Vec<_> = said.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
                    ensure!(hops == wanted, "{way:?} {how}: {said}");
                    Ok(())
                })?;
            }
        }
        drop(remote);
    }
    Ok(())
}

#[test]
fn datagram_too_large_returns_the_mtu_of_the_next_hop() -> TestResult {
    for way in WAYS.into_iter().filter(|it| it.arms == ROUTED.arms) {
        let lab = way.lab()?;
        for host in [1, CLIENT] {
            lab.host(host).mtu(1, 9_000)?;
        }
        let remote = Remote::start(&lab, way)?;
        for to in way.service_addresses() {
            let socket = socket(lab.host(CLIENT), to)?;
            asked(&socket)?;
            let large = vec![b'?'; 4_000];
            let mut answer = vec![0; 9_000];
            // The first datagram is lost. Once the clients' host has received the error, it fragments the next ones. A
            // short timeout is enough.
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            eventually_ok("a large datagram passes", PATIENCE, || {
                socket.send(&large)?;
                ensure!(socket.recv(&mut answer)? == large.len());
                Ok(())
            })
            .with_context(|| format!("{way:?} {to}"))?;
            let said = run_on(lab.host(CLIENT), "ip", &["route", "get", &to.ip().to_string()])?;
            assert!(said.contains("mtu 1500"), "{way:?}: {said}");
            who(lab.host(CLIENT), to)?;
        }
        assert!(lab.host(1).verdict("mtu_exceeded")? >= 1, "{way:?}");
        drop(remote);
    }
    Ok(())
}
