//! wrk and iperf3: many requests, many bytes.

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Host, Lab, PATIENCE};
use proxymatic_tests::process::Process;
use serde_json::Value;

use super::{LONGEST, SERVER, open_and_ever, program, publish, run, run_on};
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
    let mut server = IperfServer::start(&lab, &["-B", SERVER])?;
    let _agent = publish(&lab, &[IPERF], &[])?;
    for host in ["127.0.0.1", "::1"] {
        let client = ["-c", host, "-p", "5201"];
        let tcp = server.measure(lab.host(1), &[&client[..], &["-P", "2", "-n", "20M"]].concat())?;
        let (sent, received) = (tcp["end"]["sum_sent"]["bytes"].as_u64(), tcp["end"]["sum_received"]["bytes"].as_u64());
        assert!(received > Some(10_000_000) && received <= sent, "{sent:?} sent, {received:?} received");
        assert_eq!(tcp["start"]["connected"][0]["remote_host"], host);
        // From the server to the client too; its datagrams then go to the client's address.
        for more in [&["-u", "-b", "4M", "-n", "1M"][..], &["-u", "-b", "4M", "-n", "1M", "-R"]] {
            server.half_arrive(lab.host(1), &[&client[..], more].concat())?;
        }
    }
    assert_eq!(open_and_ever(&lab)?.0, 0);
    Ok(())
}

/// An iperf3 server on host 2. It serves one client at a time, and has no listener for a moment between two clients.
pub(crate) struct IperfServer {
    process: Process,
    clients: usize,
}

impl IperfServer {
    /// Starts the server on port 7201, with more arguments.
    pub(crate) fn start(lab: &Lab, more: &[&str]) -> Result<Self> {
        let arguments = [&["-s", "-p", "7201", "--forceflush"], more].concat();
        Ok(Self { process: lab.host(2).spawn(&program("iperf3")?, &arguments)?, clients: 0 })
    }

    /// Runs a client with these arguments once the server listens for it, and returns the result.
    pub(crate) fn measure(&mut self, host: &Host, arguments: &[&str]) -> Result<Value> {
        self.clients += 1;
        eventually_ok("iperf3 listens again", LONGEST, || {
            let times = self.process.stdout()?.matches("Server listening").count();
            ensure!(times >= self.clients, "{times} times, not {}: {}", self.clients, self.process.log());
            Ok(())
        })?;
        Ok(serde_json::from_str(&run_on(host, "iperf3", &[arguments, &["-J"]].concat())?)?)
    }

    /// Runs a client for datagrams until at least half of them arrive. A receiver that waits for a CPU for half a second
    /// may lose more in one run.
    pub(crate) fn half_arrive(&mut self, host: &Host, arguments: &[&str]) -> Result<()> {
        eventually_ok("half of the datagrams arrive", PATIENCE, || {
            let seen = self.measure(host, arguments)?["end"]["sum"].take();
            let (all, lost) = (seen["packets"].as_u64(), seen["lost_packets"].as_u64());
            ensure!(all > Some(500) && lost < all.map(|all| all / 2), "{lost:?} of {all:?} lost");
            Ok(())
        })
    }
}
