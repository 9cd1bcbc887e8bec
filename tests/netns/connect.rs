//! connect(2): which destinations reach a service, and which peer the program sees.

use std::fs;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, kernel};

use crate::fixtures::cluster::{Cluster, PORT, SERVICE, curl};

#[test]
fn curl_to_localhost_is_answered_and_its_peer_is_the_service() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    assert_eq!(curl(&lab, "http://localhost:1234/")?, "a\n127.0.0.1:1234");
    Ok(())
}

#[test]
fn socket_is_connected_to_the_replica_not_the_service_port() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Cluster::start(&lab, 1)?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {SERVICE}"))?, "ok");
    let table = lab.host(1).net().enter(|| fs::read_to_string("/proc/thread-self/net/tcp"))??;
    let peers = established(&table)?;
    assert!(peers.contains(&web.replicas[0].address), "{table}");
    assert!(peers.iter().all(|peer| peer.port() != PORT), "{table}");
    assert_eq!(client.tell("peer c")?, SERVICE.to_string());
    Ok(())
}

#[test]
fn every_host_address_reaches_the_service() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    for host in ["127.0.0.1", "127.8.9.10", "0.0.0.0", "10.77.0.1"] {
        let said = curl(&lab, &format!("http://{host}:{PORT}/")).with_context(|| host.to_owned())?;
        // Linux itself turns an unspecified address into loopback.
        assert_eq!(said, format!("a\n{}:{PORT}", host.replace("0.0.0.0", "127.0.0.1")));
    }
    Ok(())
}

#[test]
fn address_of_another_host_does_not_reach_the_service() -> TestResult {
    nothing_happens_to("10.77.0.2:1234")
}

#[test]
fn port_without_service_is_refused_and_not_counted() -> TestResult {
    nothing_happens_to("127.0.0.1:1235")
}

#[test]
fn program_outside_the_cgroup_is_not_translated() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    // The test process is in no cgroup of the lab.
    let error = lab.host(1).net().enter(|| TcpStream::connect(SERVICE).err())?.context("connected")?;
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    Ok(())
}

#[test]
fn container_reaches_service_at_host_address_not_localhost() -> TestResult {
    if kernel::skips_loopback_host("the localhost of containers")? {
        return Ok(());
    }
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    // A container is a network namespace of its own in a cgroup below the served one.
    let cgroup = lab.host(1).cgroup().child("container")?;
    let mut container = lab.host(2).tcp_client_in(&cgroup)?;
    assert_eq!(container.tell("connect host 10.77.0.1:1234")?, "ok");
    assert_eq!(container.tell("ask host")?, "a");
    let before = lab.host(1).verdicts()?;
    assert_eq!(container.tell("connect own 127.0.0.1:1234")?, "ECONNREFUSED");
    assert_eq!(lab.host(1).verdicts()?, before);
    Ok(())
}

#[test]
fn loopback_option_sets_where_localhost_reaches_services() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 1)?;
    for (loopback, own, inside) in [("all", "ok", "ok"), ("none", "ECONNREFUSED", "ECONNREFUSED")] {
        web.agent.kill9()?;
        web.agent = lab.agent(&["--loopback", loopback])?;
        lab.host(1).agent_ready(PATIENCE)?;
        let mut client = lab.host(1).tcp_client()?;
        let mut container = lab.host(2).tcp_client_in(lab.host(1).cgroup())?;
        let command = format!("connect c {SERVICE}");
        assert_eq!((client.tell(&command)?.as_str(), container.tell(&command)?.as_str()), (own, inside), "{loopback}");
        assert_eq!(client.tell(&format!("connect host 10.77.0.1:{PORT}"))?, "ok", "{loopback}");
    }
    Ok(())
}

/// A closed port stays closed, and nothing is counted.
fn nothing_happens_to(address: &str) -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    let before = lab.host(1).verdicts()?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {address}"))?, "ECONNREFUSED");
    assert_eq!(lab.host(1).verdicts()?, before);
    Ok(())
}

/// Returns the remote ends of established connections in `/proc/net/tcp`, whose addresses are words in host byte order.
fn established(table: &str) -> Result<Vec<SocketAddr>> {
    let rows = table.lines().skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>());
    let open = rows.filter(|row| row.get(3) == Some(&"01"));
    let peers = open.map(|row| {
        let (address, port) = row[2].split_once(':').context("no port")?;
        let address = u32::from_str_radix(address, 16)?.to_ne_bytes();
        Ok(SocketAddr::from((address, u16::from_str_radix(port, 16)?)))
    });
    peers.collect()
}
