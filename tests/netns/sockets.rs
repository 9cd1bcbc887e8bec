//! What programs do with sockets besides one connect and one close: the counts follow all of it.

use anyhow::{Result, ensure};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, SocketProgram};

use crate::fixtures::cluster::{Cluster, SERVICE};

#[test]
fn nonblocking_connect_is_translated_and_counted() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.tell(&format!("begin c {SERVICE}"))?, "EINPROGRESS");
    assert_eq!(client.tell("finish c")?, "ok");
    // Some programs call connect(2) again to get the outcome.
    assert_eq!(client.tell(&format!("begin c {SERVICE}"))?, "ok");
    assert_eq!(client.tell(&format!("begin c {SERVICE}"))?, "EISCONN");
    assert_eq!(client.tell("peer c")?, SERVICE.to_string());
    assert_eq!(client.tell("ask c")?, "a");
    assert_eq!(counts(&lab)?, (1, 1));
    assert_eq!(client.tell("close c")?, "ok");
    assert_eq!(counts(&lab)?, (0, 1));
    Ok(())
}

#[test]
fn socket_that_connects_twice_counts_once_at_a_time() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 2)?;
    let mut client = lab.host(1).tcp_client()?;
    for nth in 1..=3 {
        assert_eq!(client.tell(&format!("connect c {SERVICE}"))?, "ok");
        assert_eq!(counts(&lab)?, (1, nth));
        assert_eq!(client.tell("peer c")?, SERVICE.to_string());
        assert_eq!(client.tell("unconnect c")?, "ok");
    }
    assert_eq!(client.tell("close c")?, "ok");
    assert_eq!(counts(&lab)?, (0, 3));
    Ok(())
}

#[test]
fn copied_descriptor_counts_once_until_the_last_close() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    let mut client = connected(&lab)?;
    assert_eq!(client.tell("dup c d")?, "ok");
    assert_eq!(client.tell("close c")?, "ok");
    assert_eq!(counts(&lab)?, (1, 1));
    assert_eq!(client.tell("ask d")?, "a");
    assert_eq!(client.tell("close d")?, "ok");
    assert_eq!(counts(&lab)?, (0, 1));
    Ok(())
}

#[test]
fn inherited_socket_counts_once_until_both_processes_close() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 1)?;
    let mut client = connected(&lab)?;
    assert_eq!(client.tell("lend c child")?, "ok");
    assert_eq!(client.tell("close c")?, "ok");
    assert_eq!(counts(&lab)?, (1, 1));
    assert_eq!(client.tell("close child")?, "ok");
    assert_eq!(counts(&lab)?, (0, 1));
    Ok(())
}

#[test]
fn connections_of_a_killed_program_are_closed() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::start(&lab, 2)?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.hold("c", 10, SERVICE)?, ["ok"; 10]);
    assert_eq!(counts(&lab)?, (10, 10));
    client.kill9()?;
    assert_eq!(counts(&lab)?, (0, 10));
    Ok(())
}

#[test]
fn refused_connect_is_counted_until_the_socket_closes() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 1)?;
    web.replicas[0].process.kill9()?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {SERVICE}"))?, "ECONNREFUSED");
    assert_eq!(client.tell("close c")?, "ok");
    assert_eq!(counts(&lab)?, (0, 1));
    Ok(())
}

/// Starts a program with one connection, `c`.
fn connected(lab: &Lab) -> Result<SocketProgram> {
    let mut client = lab.host(1).tcp_client()?;
    ensure!(client.tell(&format!("connect c {SERVICE}"))? == "ok", "not connected");
    ensure!(counts(lab)? == (1, 1), "{:?} instead of one connection", counts(lab)?);
    Ok(client)
}

/// Returns the connections open now and ever, over all backends.
fn counts(lab: &Lab) -> Result<(u64, u64)> {
    let services = lab.host(1).services()?;
    let backends = || services.iter().flat_map(|service| &service.backends);
    Ok((backends().map(|backend| backend.active).sum(), backends().map(|backend| backend.total).sum()))
}
