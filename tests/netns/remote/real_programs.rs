//! Real, unmodified programs on the clients' host, and real servers.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{CLIENT, Lab};

use super::{WAYS, Way, at, exposed, open_is};
use crate::fixtures::cluster::PORT;
use crate::programs::nameserver::nameserver;
use crate::programs::run_on;
use crate::programs::throughput::IperfServer;

/// The number of requests in one run of curl.
const REQUESTS: usize = 100;

#[test]
fn remote_curl_is_answered_over_both_families() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        curl(&lab, way).with_context(|| format!("{way:?}"))?;
    }
    Ok(())
}

fn curl(lab: &Lab, way: Way) -> Result<()> {
    let mut replicas = Vec::new();
    for (host, name) in [(2, "a"), (3, "b")] {
        for at in lab.host(host).places_on(0, 8001) {
            replicas.push(lab.host(host).replica_at(at, name, &[])?);
        }
    }
    let mut places: Vec<_> = replicas.iter().map(|it| it.address).collect();
    places.sort();
    let _agent = way.serve(lab, &exposed("web", "tcp", PORT, &places, &[]))?;
    for to in way.service_addresses() {
        // Each request over a connection of its own, many in parallel.
        let url = format!("http://{to}/?[1-{REQUESTS}]");
        let write = "%{remote_ip} %{remote_port}\n";
        let arguments =
            ["-sS", "--no-keepalive", "-H", "Connection: close", "--parallel", "--max-time", "60", "-w", write];
        let said = run_on(lab.host(CLIENT), "curl", &[&arguments[..], &[&url]].concat())?;
        let peer = format!("{} {}", to.ip(), to.port());
        let (peers, names): (Vec<_>, Vec<_>) = said.lines().partition(|line| *line == peer);
        ensure!(peers.len() == REQUESTS && names.len() == REQUESTS, "{said}");
        ensure!(names.iter().copied().collect::<BTreeSet<_>>() == BTreeSet::from(["a", "b"]), "{said}");
    }
    let services = lab.host(1).services()?;
    let total: u64 = services.iter().flat_map(|service| &service.backends).map(|backend| backend.total).sum();
    ensure!(total == 2 * REQUESTS as u64, "{services:?}");
    open_is(lab, 0)
}

#[test]
fn remote_dig_is_answered_over_udp_and_tcp_by_the_service() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let _server = nameserver(&lab)?;
        let places = lab.host(2).places_on(0, 7053);
        let _agent = way.serve(&lab, &["tcp", "udp"].map(|it| exposed(it, it, 53, &places, &[])).concat())?;
        for to in way.arms.service_addresses() {
            for over in ["+notcp", "+tcp"] {
                let port = at(to, 53).port().to_string();
                let arguments = [&format!("@{to}"), "-p", &port, over, "+tries=1", "+time=30", "answer.test"];
                let said = run_on(lab.host(CLIENT), "dig", &arguments).with_context(|| format!("{way:?}"))?;
                let right = said.contains("192.0.2.53") && said.contains(&format!("SERVER: {to}#{port}({to})"));
                assert!(right && !said.contains("unexpected source"), "{way:?}: {said}");
            }
        }
    }
    Ok(())
}

#[test]
fn remote_iperf3_moves_bytes_and_datagrams_both_ways() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let mut server = IperfServer::start(&lab, &[])?;
        let places = lab.host(2).places_on(0, 7201);
        let _agent = way.serve(&lab, &["tcp", "udp"].map(|it| exposed(it, it, PORT, &places, &[])).concat())?;
        for to in way.arms.service_addresses() {
            let (to, port) = (to.to_string(), at(to, PORT).port().to_string());
            for more in [&[][..], &["-R"]] {
                let client = ["-c", &to, "-p", &port];
                let tcp = [&client[..], &["-P", "2", "-n", "30M"], more].concat();
                let tcp = server.measure(lab.host(CLIENT), &tcp).with_context(|| format!("{way:?} {to} {more:?}"))?;
                let bytes = tcp["end"]["sum_received"]["bytes"].as_u64();
                assert!(bytes > Some(10_000_000), "{way:?} {to} {more:?}: {bytes:?} received: {tcp}");
                let udp = [&client[..], &["-u", "-b", "10M", "-n", "1M"], more].concat();
                server.half_arrive(lab.host(CLIENT), &udp).with_context(|| format!("{way:?} {to} {more:?}"))?;
            }
        }
        let accelerated = lab.host(1).verdict("forwarded_xdp")?;
        assert!(way.xdp == (accelerated > 1_000), "{way:?}: {accelerated} packets by XDP");
    }
    Ok(())
}
