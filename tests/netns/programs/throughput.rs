//! wrk and iperf3: many requests, many bytes.

use anyhow::Result;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;
use serde_json::Value;

use super::{SERVER, open_and_ever, program, publish, run};
use crate::fixtures::cluster::{Cluster, URL};
use crate::fixtures::word_replicas::{At, WordService};

const IPERF: WordService = WordService { app: "/iperf", port: 5201, replicas: &[(At::V4(2, 7201), "iperf")] };

#[test]
fn wrk_reports_no_error() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 3)?;
    // By default wrk counts an answer after 2 s as an error.
    let wrk = ["--threads", "2", "--connections", "30", "--duration", "2s", "--timeout", "60s", URL];
    let said = run(&lab, "wrk", &wrk)?;
    assert!(said.contains("Requests/sec:"), "{said}");
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    println!("{said}");
    let (open, ever) = open_and_ever(&lab)?;
    assert!(open == 0 && ever >= 30, "{open} open, {ever} ever");
    Ok(())
}

#[test]
fn iperf3_moves_bytes_over_tcp_and_datagrams_over_udp() -> TestResult {
    let lab = Lab::start(2)?;
    let mut server = lab.host(2).spawn(&program("iperf3")?, &["-s", "-B", SERVER, "-p", "7201", "--forceflush"])?;
    server.said("Server listening", super::LONGEST)?;
    let _agent = publish(&lab, &[IPERF], &[])?;
    for host in ["127.0.0.1", "::1"] {
        let tcp = iperf(&lab, host, &["-P", "2", "-n", "20M"])?;
        let (sent, received) = (tcp["end"]["sum_sent"]["bytes"].as_u64(), tcp["end"]["sum_received"]["bytes"].as_u64());
        assert!(received > Some(10_000_000) && received <= sent, "{sent:?} sent, {received:?} received");
        assert_eq!(tcp["start"]["connected"][0]["remote_host"], host);
        // From the server to the client too; its datagrams then go to the client's address. The rate is low, so that a
        // receiver which waits for a CPU does not lose most datagrams.
        for more in [&["-u", "-b", "4M", "-n", "1M"][..], &["-u", "-b", "4M", "-n", "1M", "-R"]] {
            let udp = iperf(&lab, host, more)?;
            let (all, lost) = (udp["end"]["sum"]["packets"].as_u64(), udp["end"]["sum"]["lost_packets"].as_u64());
            assert!(all > Some(500) && lost < all.map(|all| all / 2), "{lost:?} of {all:?} lost");
        }
    }
    assert_eq!(open_and_ever(&lab)?.0, 0);
    Ok(())
}

/// The result of a run.
fn iperf(lab: &Lab, host: &str, more: &[&str]) -> Result<Value> {
    let needed = ["-c", host, "-p", "5201", "-J"];
    Ok(serde_json::from_str(&run(lab, "iperf3", &[&needed, more].concat())?)?)
}
