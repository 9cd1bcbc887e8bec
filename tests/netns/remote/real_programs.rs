//! Real, unmodified programs on the clients' host, and real servers.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{CLIENT, Lab};
use serde_json::Value;

use super::{WAYS, Way, exposed, open_is};
use crate::fixtures::cluster::PORT;
use crate::programs::nameserver::nameserver;
use crate::programs::{LONGEST, program, run_on};

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
    let _agent = way.serve(lab, &[exposed("web", "tcp", PORT, &places, &[])])?;
    for to in way.service_addresses() {
        // Each request over a connection of its own, many in parallel.
        let url = format!("http://{to}/?[1-{REQUESTS}]");
        let write = "%{remote_ip} %{remote_port}\n";
        let arguments =
            ["-sS", "--no-keepalive", "-H", "Connection: close", "--parallel", "--max-time", "10", "-w", write];
        let said = run_on(lab.host(CLIENT), "curl", &[&arguments[..], &[&url]].concat())?;
        let peer = format!("{} {}", to.ip(), to.port());
        let (peers, names): (Vec<_>, Vec<_>) = said.lines().partition(|line| *line == peer);
        ensure!(peers.len() == REQUESTS && names.len() == REQUESTS, "{said}");
        ensure!(names.iter().copied().collect::<BTreeSet<_>>() == BTreeSet::from(["a", "b"]), "{said}");
    }
    ensure!(lab.host(1).services()?[0].backends.iter().map(|it| it.total).sum::<u64>() == 2 * REQUESTS as u64);
    open_is(lab, 0)
}

#[test]
fn remote_dig_is_answered_over_udp_and_tcp_by_the_service() -> TestResult {
    for way in WAYS {
        let lab = way.lab()?;
        let _server = nameserver(&lab)?;
        let places = lab.host(2).places_on(0, 7053);
        let _agent = way.serve(&lab, &["tcp", "udp"].map(|it| exposed(it, it, 53, &places, &[])))?;
        for to in way.arms.service_addresses() {
            for over in ["+notcp", "+tcp"] {
                let arguments = [&format!("@{to}"), over, "+tries=1", "+time=3", "answer.test"];
                let said = run_on(lab.host(CLIENT), "dig", &arguments).with_context(|| format!("{way:?}"))?;
                let right = said.contains("192.0.2.53") && said.contains(&format!("SERVER: {to}#53({to})"));
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
        let mut server = lab.host(2).spawn(&program("iperf3")?, &["-s", "-p", "7201", "--forceflush"])?;
        server.said("Server listening", LONGEST)?;
        let places = lab.host(2).places_on(0, 7201);
        let _agent = way.serve(&lab, &["tcp", "udp"].map(|it| exposed(it, it, PORT, &places, &[])))?;
        for to in way.arms.service_addresses() {
            for more in [&[][..], &["-R"]] {
                let tcp = iperf(&lab, &to.to_string(), &[&["-P", "2", "-n", "30M"], more].concat())?;
                let bytes = tcp["end"]["sum_received"]["bytes"].as_u64();
                assert!(bytes > Some(10_000_000), "{way:?} {to} {more:?}: {bytes:?} received: {tcp}");
                let udp = iperf(&lab, &to.to_string(), &[&["-u", "-b", "50M", "-n", "2M"], more].concat())?;
                let (all, lost) = (udp["end"]["sum"]["packets"].as_u64(), udp["end"]["sum"]["lost_packets"].as_u64());
                assert!(
                    all > Some(500) && lost < all.map(|it| it / 2),
                    "{way:?} {to} {more:?}: {lost:?} of {all:?} lost"
                );
            }
        }
        let accelerated = lab.host(1).verdict("forwarded_xdp")?;
        assert!(way.xdp == (accelerated > 1_000), "{way:?}: {accelerated} packets by XDP");
    }
    Ok(())
}

/// The result of a run.
fn iperf(lab: &Lab, to: &str, more: &[&str]) -> Result<Value> {
    let port = PORT.to_string();
    let needed = ["-c", to, "-p", &port, "-J"];
    Ok(serde_json::from_str(&run_on(lab.host(CLIENT), "iperf3", &[&needed, more].concat())?)?)
}
