//! Programs on the host that listen on a service port.

/// Sockets that receive datagrams at a service port without a bind(2) that a hook sees, or from one peer only.
mod datagrams;
/// Listeners that are bound to an interface.
mod device;
/// Listeners of the host, and clients in containers and on other machines.
mod elsewhere;
/// Which programs may bind a service port.
mod root_wins;

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, SocketProgram, binary, kernel};
use serde_json::{Value, json};

use crate::fixtures::cluster::PORT;
use crate::fixtures::file_source::{FileSource, backend};

/// Destinations over either protocol, connected or not.
const DESTINATION: [&str; 2] = ["127.0.0.1:1234", "10.77.0.1:1234"];
const WAYS: [&str; 3] = ["tcp", "udp", "udp-unconnected"];

#[test]
fn listener_on_a_service_port_gets_its_connections() -> TestResult {
    // The listener's address, and the destinations that belong to it.
    for (listens, own) in [("0.0.0.0:1234", [true, true]), ("127.0.0.1:1234", [true, false])] {
        let lab = Lab::start(2)?;
        let (_replica, _agent, mut client) = served(&lab, &[])?;
        assert_eq!(answers(&mut client)?, [["replica"; 3]; 2]);
        let before = lab.host(1).verdict("local_listener")?;
        let stranger = serve(&lab, 1, listens, "stranger")?;
        let expected = own.map(|own| [if own { "stranger" } else { "replica" }; 3]);
        assert_eq!(answers(&mut client)?, expected, "{listens}");
        // Two connects and two datagrams for each address of its own.
        let kept = own.iter().filter(|own| **own).count() as u64 * 4;
        assert_eq!(lab.host(1).verdict("local_listener")? - before, kept, "{listens}");
        stranger.kill9()?;
        assert_eq!(answers(&mut client)?, [["replica"; 3]; 2], "{listens}");
    }
    Ok(())
}

#[test]
fn with_service_wins_a_listener_on_a_service_port_gets_nothing() -> TestResult {
    let lab = Lab::start(2)?;
    let (_replica, _agent, mut client) = served(&lab, &["--local-listener", "service-wins"])?;
    let _stranger = serve(&lab, 1, "0.0.0.0:1234", "stranger")?;
    assert_eq!(answers(&mut client)?, [["replica"; 3]; 2]);
    assert_eq!(lab.host(1).verdict("local_listener")?, 0);
    Ok(())
}

#[test]
fn listener_of_one_family_gets_no_connects_of_the_other() -> TestResult {
    for (listens, own) in [("0.0.0.0:1234", "127.0.0.1:1234"), ("[::1]:1234", "[::1]:1234")] {
        let lab = Lab::start(2)?;
        let (_replica, _agent, mut client) = served(&lab, &[])?;
        let _stranger = serve(&lab, 1, listens, "stranger")?;
        for destination in ["127.0.0.1:1234", "[::1]:1234"] {
            let expected = if destination == own { "stranger" } else { "replica" };
            // An unconnected datagram to an IPv6 address cannot be sent to the replica, which has IPv4.
            for way in ["tcp", "udp"] {
                assert_eq!(who(&mut client, way, destination)?, expected, "{listens}, {way} to {destination}");
            }
        }
    }
    Ok(())
}

#[test]
fn listener_in_a_container_is_not_the_hosts() -> TestResult {
    if kernel::skips_loopback_host("listeners in containers")? {
        return Ok(());
    }
    let lab = Lab::start(3)?;
    let (_replica, _agent, mut client) = served(&lab, &[])?;
    let _inside = serve(&lab, 3, "0.0.0.0:1234", "inside")?;
    assert_eq!(answers(&mut client)?, [["replica"; 3]; 2]);
    // From the container, the host's address reaches the service and its own address reaches the listener.
    let mut container = lab.host(3).program_in(lab.host(1).cgroup(), &binary("connect-variants")?, &[])?;
    assert_eq!(answers(&mut container)?, [["inside"; 3], ["replica"; 3]]);
    Ok(())
}

#[test]
fn replica_on_the_local_service_port_is_a_backend() -> TestResult {
    for listens in ["10.77.0.1:1234", "0.0.0.0:1234"] {
        let lab = Lab::start(2)?;
        let _here = serve(&lab, 1, listens, "here")?;
        let _there = serve(&lab, 2, "10.77.0.2:1234", "there")?;
        let _agent = FileSource::start(&lab, &both(&["10.77.0.1:1234", "10.77.0.2:1234"])?, &[])?;
        let mut client = lab.host(1).program_in(lab.host(1).cgroup(), &binary("connect-variants")?, &[])?;
        for way in WAYS {
            eventually_ok("both answer", PATIENCE, || {
                let of = (0..16).map(|_| who(&mut client, way, DESTINATION[0])).collect::<Result<Vec<_>>>()?;
                ensure!(of.contains(&"here".into()) && of.contains(&"there".into()), "{way}, {listens}: {of:?}");
                Ok(())
            })?;
        }
        assert_eq!(lab.host(1).verdict("local_listener")?, 0, "{listens}");
    }
    Ok(())
}

#[test]
fn bind_of_a_service_port_only_is_counted() -> TestResult {
    let lab = Lab::start(2)?;
    let (_replica, _agent, _client) = served(&lab, &[])?;
    let bound = || lab.host(1).verdict("port_bound");
    assert_eq!(bound()?, 0);
    let _stranger = serve(&lab, 1, "127.0.0.1:1234", "stranger")?;
    // Over TCP and over UDP.
    assert_eq!(bound()?, 2);
    let _nobody = serve(&lab, 1, "127.0.0.1:1235", "nobody")?;
    let _elsewhere = serve(&lab, 2, "127.0.0.1:1234", "elsewhere")?;
    // If the kernel cannot tell namespaces apart, all listeners count as the host's.
    assert_eq!(bound()?, if kernel::tells_netns() { 2 } else { 4 });
    Ok(())
}

/// Starts a replica on host 2 that answers `replica`, the agent, and a client on host 1.
fn served<'lab>(lab: &'lab Lab, more: &[&str]) -> Result<(SocketProgram, FileSource<'lab>, SocketProgram)> {
    let replica = serve(lab, 2, "10.77.0.2:8001", "replica")?;
    let agent = FileSource::start(lab, &both(&["10.77.0.2:8001"])?, more)?;
    let client = lab.host(1).program_in(lab.host(1).cgroup(), &binary("connect-variants")?, &[])?;
    Ok((replica, agent, client))
}

/// One service for each protocol.
fn both(backends: &[&str]) -> Result<Vec<Value>> {
    let places = backends.iter().map(|it| Ok(backend(it.parse()?))).collect::<Result<Vec<_>>>()?;
    let service = |protocol| json!({ "name": protocol, "port": PORT, "protocol": protocol, "backends": places });
    Ok(["tcp", "udp"].map(service).into())
}

/// Starts a program on a host that answers with a word at this address, over TCP and UDP. `at` may end in `%` and the
/// interface to which the sockets are bound.
fn serve(lab: &Lab, host: u8, at: &str, word: &str) -> Result<SocketProgram> {
    let host = lab.host(host);
    // In the served cgroup, so that the hooks see its bind.
    let mut server = host.program_in(lab.host(1).cgroup(), &binary("connect-variants")?, &[])?;
    let order = match at.split_once('%') {
        Some((at, device)) => format!("serve {at} {word} device {device}"),
        None => format!("serve {at} {word}"),
    };
    let said = server.tell(&order)?;
    ensure!(said == "ok", "{at}: {said}");
    Ok(server)
}

/// Returns which program answers at each address, in each way; asserts that the reply comes from the destination.
fn answers(client: &mut SocketProgram) -> Result<Vec<[String; 3]>> {
    let ways = |to: &str| -> Result<[String; 3]> {
        let mut of = WAYS.map(str::to_owned);
        for way in &mut of {
            *way = who(client, way, to)?;
        }
        Ok(of)
    };
    DESTINATION.into_iter().map(ways).collect()
}

fn who(client: &mut SocketProgram, way: &str, to: &str) -> Result<String> {
    let said = client.tell(&format!("try {way} {to}"))?;
    let (word, seen) = said.split_once(' ').unwrap_or((&said, ""));
    ensure!(seen.split(' ').all(|address| address == "-" || address == to), "{way} {to}: {said}");
    Ok(word.to_owned())
}
