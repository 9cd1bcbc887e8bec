//! Listeners of the host keep their ports for clients in containers and on other machines.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Arms, Lab, PATIENCE, SocketProgram, binary, kernel};

use super::{WAYS, both, serve, served, who};
use crate::fixtures::file_source::FileSource;

/// The agent looks at all sockets every ten seconds; this adds some to spare.
const ROUND: Duration = Duration::from_secs(13);
const HOST: &str = "10.77.0.1:1234";

/// A program in another network namespace, under the served cgroup.
fn container(lab: &Lab) -> Result<SocketProgram> {
    lab.host(3).program_in(lab.host(1).cgroup(), &binary("connect-variants")?, &[])
}

/// Waits until the service answers a container at an address of the host.
fn service_is_back(container: &mut SocketProgram, within: Duration) -> Result<()> {
    for way in WAYS {
        eventually_ok("the service has the port", within, || {
            let answer = who(container, way, HOST)?;
            ensure!(answer == "replica", "{way}: {answer}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn listener_of_the_host_keeps_its_port_for_containers() -> TestResult {
    if kernel::skips_loopback_host("listeners of the host")? {
        return Ok(());
    }
    let lab = Lab::start(3)?;
    let (_replica, _agent, _client) = served(&lab, &[])?;
    let mut container = container(&lab)?;
    for listens in ["0.0.0.0:1234", "[::]:1234", HOST] {
        let before = lab.host(1).verdict("local_listener")?;
        let daemon = serve(&lab, 1, listens, "daemon")?;
        for way in WAYS {
            assert_eq!(who(&mut container, way, HOST)?, "daemon", "{way}, {listens}");
        }
        assert_eq!(lab.host(1).verdict("local_listener")? - before, 4, "{listens}");
        daemon.kill9()?;
        service_is_back(&mut container, PATIENCE)?;
    }
    // A container cannot reach this listener, so it has the service.
    let _loopback = serve(&lab, 1, "127.0.0.1:1234", "loopback")?;
    for way in WAYS {
        assert_eq!(who(&mut container, way, HOST)?, "replica", "{way}");
    }
    Ok(())
}

#[test]
fn listener_of_the_host_from_before_the_agent_keeps_its_port() -> TestResult {
    if kernel::skips_loopback_host("listeners of the host")? {
        return Ok(());
    }
    let lab = Lab::start(3)?;
    let _daemon = serve(&lab, 1, "0.0.0.0:1234", "daemon")?;
    let (_replica, _agent, _client) = served(&lab, &[])?;
    let mut container = container(&lab)?;
    for way in WAYS {
        assert_eq!(who(&mut container, way, HOST)?, "daemon", "{way}");
    }
    Ok(())
}

#[test]
fn listener_of_the_host_outside_of_the_cgroup_is_found() -> TestResult {
    if kernel::skips_loopback_host("listeners of the host")? {
        return Ok(());
    }
    let lab = Lab::start(3)?;
    let (_replica, _agent, _client) = served(&lab, &[])?;
    let mut container = container(&lab)?;
    let listener = lab.host(1).net().enter(|| TcpListener::bind("0.0.0.0:1234"))??;
    let mut probe = lab.host(3).tcp_client_in(lab.host(1).cgroup())?;
    let mut nth = 0;
    eventually_ok("the listener is found", ROUND + PATIENCE, || {
        nth += 1;
        let before = lab.host(1).verdict("local_listener")?;
        // No program accepts the connection there.
        ensure!(probe.tell(&format!("connect c{nth} {HOST}"))? == "ok", "no connection");
        ensure!(lab.host(1).verdict("local_listener")? > before, "it went to the service");
        Ok(())
    })?;
    drop(listener);
    service_is_back(&mut container, ROUND + PATIENCE)?;
    Ok(())
}

#[test]
fn with_service_wins_containers_get_the_service() -> TestResult {
    let lab = Lab::start(3)?;
    let (_replica, _agent, _client) = served(&lab, &["--local-listener", "service-wins"])?;
    let _daemon = serve(&lab, 1, "0.0.0.0:1234", "daemon")?;
    let mut container = container(&lab)?;
    for way in WAYS {
        assert_eq!(who(&mut container, way, HOST)?, "replica", "{way}");
    }
    Ok(())
}

#[test]
fn listener_of_the_host_keeps_its_port_for_remote_clients() -> TestResult {
    let lab = Lab::remote(Arms::One)?;
    lab.host(1).forwards()?;
    let _replica = serve(&lab, 2, "10.77.0.2:8001", "replica")?;
    let interfaces = Arms::One.interfaces();
    let mut flags = vec!["--expose"];
    flags.extend(interfaces.iter().flat_map(|name| ["--interface", name]));
    let _agent = FileSource::start(&lab, &both(&["10.77.0.2:8001"])?, &flags)?;
    let mut client = lab.host(4).program_in(lab.host(4).cgroup(), &binary("connect-variants")?, &[])?;
    for way in WAYS {
        eventually_ok("remote clients are served", PATIENCE, || {
            let answer = who(&mut client, way, HOST)?;
            ensure!(answer == "replica", "{way}: {answer}");
            Ok(())
        })?;
    }
    for listens in ["0.0.0.0:1234".to_owned(), HOST.to_owned(), format!("0.0.0.0:1234%{}", interfaces[0])] {
        let daemon = serve(&lab, 1, &listens, "daemon")?;
        for way in WAYS {
            assert_eq!(who(&mut client, way, HOST)?, "daemon", "{way}, {listens}");
        }
        daemon.kill9()?;
        for way in WAYS {
            eventually_ok("the service has the port", PATIENCE, || {
                let answer = who(&mut client, way, HOST)?;
                ensure!(answer == "replica", "{way}: {answer}");
                Ok(())
            })?;
        }
    }
    Ok(())
}
