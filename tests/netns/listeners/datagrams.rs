//! Datagrams to a port that another local socket has: answers of a server to its client, whose port is a service port.

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, SocketProgram, binary};

use super::{serve, served, who};

/// The kernel gives sockets that ask for no port this one, which is a service port.
const RANGE: &str = "1234 1234";

/// A lab in which the kernel gives ports of that range, with a service on them.
fn lab_with_autobind() -> Result<Lab> {
    let lab = Lab::start(3)?;
    for host in [1, 3] {
        lab.host(host).net().sysctl("net/ipv4/ip_local_port_range", RANGE)?;
    }
    Ok(lab)
}

fn client_on(lab: &Lab, host: u8) -> Result<SocketProgram> {
    lab.host(host).program_in(lab.host(1).cgroup(), &binary("connect-variants")?, &[])
}

#[test]
fn client_with_a_service_port_gets_the_answers_of_its_server() -> TestResult {
    for listens in ["0.0.0.0:5000", "127.0.0.1:5000", "[::]:5000", "[::1]:5000"] {
        let lab = lab_with_autobind()?;
        let (_replica, _agent, mut service) = served(&lab, &[])?;
        let _server = serve(&lab, 1, listens, "server")?;
        let to = if listens.starts_with('[') { "[::1]:5000" } else { "127.0.0.1:5000" };
        // One socket at a time: each has the one port that there is. The server's own socket stays the same.
        for round in 0..3 {
            for way in ["udp", "udp-unconnected"] {
                assert_eq!(who(&mut client_on(&lab, 1)?, way, to)?, "server", "round {round}: {way} to {listens}");
            }
            // By bind(2), to port 0.
            let bound = if to.starts_with('[') { "::1" } else { "127.0.0.1" };
            let mut client = client_on(&lab, 1)?;
            let said = client.tell(&format!("try udp {to} bind {bound}"))?;
            assert!(said.starts_with("server "), "round {round}: bound client of {listens}: {said}");
        }
        // The service still gets what no socket has.
        assert_eq!(who(&mut service, "tcp", "127.0.0.1:1234")?, "replica");
    }
    Ok(())
}

#[test]
fn socket_that_used_the_service_sends_to_a_later_listener() -> TestResult {
    let lab = Lab::start(2)?;
    let (_replica, _agent, _client) = served(&lab, &[])?;
    let mut datagrams = lab.host(1).datagrams_in(lab.host(1).cgroup())?;
    assert_eq!(datagrams.tell("open s")?, "ok");
    let ask = |program: &mut SocketProgram| program.tell("askto s 127.0.0.1:1234");
    assert_eq!(ask(&mut datagrams)?, "replica 127.0.0.1:1234");
    let listener = serve(&lab, 1, "127.0.0.1:1234", "listener")?;
    assert_eq!(ask(&mut datagrams)?, "listener 127.0.0.1:1234");
    listener.kill9()?;
    assert_eq!(ask(&mut datagrams)?, "replica 127.0.0.1:1234");
    Ok(())
}

#[test]
fn server_in_a_container_answers_the_hosts_program() -> TestResult {
    let lab = lab_with_autobind()?;
    let (_replica, _agent, _client) = served(&lab, &[])?;
    let _server = serve(&lab, 3, "0.0.0.0:5000", "server")?;
    for round in 0..3 {
        for way in ["udp", "udp-unconnected"] {
            assert_eq!(who(&mut client_on(&lab, 1)?, way, "10.77.0.3:5000")?, "server", "round {round}: {way}");
        }
        let said = client_on(&lab, 1)?.tell("try udp 10.77.0.3:5000 bind 10.77.0.1")?;
        assert!(said.starts_with("server "), "round {round}: bound client: {said}");
    }
    // No state of that stays: a container reaches the service on that port.
    eventually_ok("the service has the port again", PATIENCE, || {
        let answer = who(&mut client_on(&lab, 3)?, "tcp", "10.77.0.1:1234")?;
        ensure!(answer == "replica", "{answer}");
        Ok(())
    })?;
    Ok(())
}
