//! System calls other than connect(2) that connect: io_uring, TCP Fast Open, MPTCP.

use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, SocketProgram, binary, kernel};
use proxymatic_tests::skip::skipped;

use crate::fixtures::word_replicas::{At, WordReplicas, WordService, publish};

const SERVICE: WordService = WordService { app: "/web", port: 1234, replicas: &[(At::V4(2, 8001), "a")] };
/// The destinations of each way: an address of either family, and IPv4 in v4-mapped form.
const DESTINATION: [&str; 3] = ["127.0.0.1:1234", "[::1]:1234", "[::ffff:127.0.0.1]:1234"];

#[test]
fn io_uring_connect_reaches_the_service_from_any_thread() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = WordReplicas::start(&lab, &[SERVICE], &[])?;
    let mut client = program(&lab)?;
    let first = client.tell(&format!("try uring-tcp {}", DESTINATION[0]))?;
    if let Some(errno) = first.strip_prefix("ring ") {
        skipped("io_uring", &format!("this kernel gives no ring: {errno}"))?;
        return Ok(());
    }
    assert_eq!(first, format!("a {0} - -", DESTINATION[0]));
    for how in ["uring-tcp", "uring-tcp-async"] {
        assert_answered(&mut client, how, &["", " nonblocking"])?;
    }
    for destination in [DESTINATION[0], DESTINATION[2]] {
        assert_eq!(client.tell(&format!("try uring-udp {destination}"))?, format!("a - {destination} -"));
    }
    // No IPv6 replica: the kernel could not turn the datagram into an IPv4 one.
    assert_eq!(client.tell(&format!("try uring-udp {}", DESTINATION[1]))?, kernel::refused_datagram());
    counts_are(&lab, "tcp", (0, 13))?;
    counts_are(&lab, "udp", (0, 2))?;
    Ok(())
}

#[test]
fn tcp_fast_open_sends_data_in_the_syn_to_the_replica() -> TestResult {
    let lab = Lab::start(2)?;
    // Clients may send data without a cookie, and listeners accept it without asking for one.
    lab.host(1).net().sysctl("net/ipv4/tcp_fastopen", "5")?;
    lab.host(2).net().sysctl("net/ipv4/tcp_fastopen", "1538")?;
    let _web = WordReplicas::start(&lab, &[SERVICE], &[])?;
    let mut client = program(&lab)?;
    let before = taken_in_syn(&lab)?;
    assert_answered(&mut client, "fastopen", &["", " nonblocking"])?;
    assert_answered(&mut client, "fastopen-connect", &["", " nonblocking"])?;
    assert_eq!(taken_in_syn(&lab)? - before, 12, "data that came with the SYN");
    counts_are(&lab, "tcp", (0, 12))?;
    Ok(())
}

#[test]
fn mptcp_socket_reaches_the_service_and_is_counted_until_closed() -> TestResult {
    let lab = Lab::start(2)?;
    if kernel::skips_mptcp(lab.host(1).net(), "mptcp")? {
        return Ok(());
    }
    let _web = WordReplicas::start(&lab, &[SERVICE], &[])?;
    let mut client = program(&lab)?;
    assert_answered(&mut client, "mptcp", &["", " nonblocking"])?;
    counts_are(&lab, "tcp", (0, 6))?;
    Ok(())
}

#[test]
fn mptcp_connect_refused_counts_against_the_replica() -> TestResult {
    let lab = Lab::start(2)?;
    if kernel::skips_mptcp(lab.host(1).net(), "mptcp that is refused")? {
        return Ok(());
    }
    // Nothing listens at the replica's address.
    let _agent = publish(&lab, &[SERVICE], &[])?;
    let mut client = program(&lab)?;
    assert_eq!(client.tell(&format!("try mptcp {}", DESTINATION[0]))?, "connect ECONNREFUSED");
    assert_eq!((lab.host(1).verdict("failed")?, lab.host(1).verdict("translated")?), (1, 1));
    counts_are(&lab, "tcp", (0, 1))?;
    Ok(())
}

fn program(lab: &Lab) -> Result<SocketProgram> {
    lab.host(1).program_in(lab.host(1).cgroup(), &binary("connect-variants")?, &[])
}

/// Tries every address in this way, each with these extra words.
fn assert_answered(client: &mut SocketProgram, how: &str, more: &[&str]) -> Result<()> {
    for destination in DESTINATION {
        let destination: SocketAddr = destination.parse()?;
        for more in more {
            let said = client.tell(&format!("try {how} {destination}{more}"))?;
            ensure!(said == format!("a {destination} - -"), "{how} {destination}{more}: {said}");
        }
    }
    Ok(())
}

/// Waits until this many connections are open now and ever, of the service of one protocol. The kernel may close a
/// socket of io_uring or MPTCP in a thread of its own, after close(2) has returned.
fn counts_are(lab: &Lab, protocol: &str, wanted: (u64, u64)) -> Result<()> {
    eventually_ok(&format!("{wanted:?} connections are open now and ever"), PATIENCE, || {
        let counts = counts(lab, protocol)?;
        ensure!(counts == wanted, "{counts:?}");
        Ok(())
    })
}

/// Returns the connections open now and ever, of the service of one protocol.
fn counts(lab: &Lab, protocol: &str) -> Result<(u64, u64)> {
    let services = lab.host(1).services()?;
    let service = services.iter().find(|service| service.protocol == protocol).context("no such service")?;
    Ok((service.backends[0].active, service.backends[0].total))
}

/// Returns how many SYNs with data the replica's kernel has accepted.
fn taken_in_syn(lab: &Lab) -> Result<u64> {
    let table = lab.host(2).net().enter(|| fs::read_to_string("/proc/thread-self/net/netstat"))??;
    let mut rows = table.lines().filter(|row| row.starts_with("TcpExt:")).map(str::split_whitespace);
    let (names, values) = (rows.next().context("no names")?, rows.next().context("no values")?);
    let found = names.zip(values).find(|(name, _)| *name == "TCPFastOpenPassive").context("no TCPFastOpenPassive")?;
    Ok(found.1.parse()?)
}
