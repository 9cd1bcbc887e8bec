//! Listeners that are bound to an interface (SO_BINDTODEVICE): the hooks' lookup in the kernel does not find them.

use std::time::Duration;

use anyhow::ensure;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, setsockopt, socket, sockopt};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, binary};
use proxymatic_tests::net::interface;

use super::{WAYS, serve, served, who};

/// The agent looks at all sockets every ten seconds; this adds some to spare.
const ROUND: Duration = Duration::from_secs(13);

#[test]
fn listener_on_loopback_keeps_its_address() -> TestResult {
    // The stub of systemd-resolved is the first one.
    for (own, other, ways) in [
        ("127.0.0.53:1234", "127.0.0.1:1234", &WAYS[..]),
        // An unconnected datagram to an IPv6 address cannot be sent to the replica, which has IPv4.
        ("[::1]:1234", "127.0.0.1:1234", &WAYS[..]),
        ("0.0.0.0:1234", "[::1]:1234", &WAYS[..2]),
    ] {
        let lab = Lab::start(2)?;
        let (_replica, _agent, mut client) = served(&lab, &[])?;
        let before = lab.host(1).verdict("local_listener")?;
        let stub = serve(&lab, 1, &format!("{own}%lo"), "stub")?;
        // The kernel answers for a wildcard from 127.0.0.1.
        let own = &own.replace("0.0.0.0", "127.0.0.1");
        // At once: no connection waits for the agent's next look.
        for way in WAYS {
            assert_eq!(who(&mut client, way, own)?, "stub", "{way} to {own}");
        }
        for way in ways {
            assert_eq!(who(&mut client, way, other)?, "replica", "{way} to {other}");
        }
        assert_eq!(lab.host(1).verdict("local_listener")? - before, 4, "{own}");
        stub.kill9()?;
        for way in ["tcp", "udp"] {
            eventually_ok("the service has the port", ROUND + PATIENCE, || {
                let answer = who(&mut client, way, own)?;
                ensure!(answer == "replica", "{way} to {own}: {answer}");
                Ok(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn older_listener_on_loopback_keeps_its_address() -> TestResult {
    let lab = Lab::start(2)?;
    let _stub = serve(&lab, 1, "127.0.0.53:1234%lo", "stub")?;
    let (_replica, _agent, mut client) = served(&lab, &[])?;
    for way in WAYS {
        eventually_ok("the listener is known", PATIENCE, || {
            let answer = who(&mut client, way, "127.0.0.53:1234")?;
            ensure!(answer == "stub", "{way}: {answer}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn listener_on_loopback_outside_of_the_cgroup_is_found() -> TestResult {
    let lab = Lab::start(2)?;
    let (_replica, _agent, mut client) = served(&lab, &[])?;
    assert_eq!(who(&mut client, "udp", "127.0.0.53:1234")?, "replica");
    let _socket = lab.host(1).net().enter(|| -> nix::Result<_> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        setsockopt(&socket, sockopt::BindToDevice, &"lo".into())?;
        bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrIn::new(127, 0, 0, 53, 1234))?;
        Ok(socket)
    })??;
    eventually_ok("the listener is found", ROUND + PATIENCE, || {
        let before = lab.host(1).verdict("local_listener")?;
        // Nothing answers there.
        let mut program = lab.host(1).datagrams_in(lab.host(1).cgroup())?;
        ensure!(program.tell("open s")? == "ok" && program.tell("connect s 127.0.0.53:1234")? == "ok", "no connect");
        ensure!(lab.host(1).verdict("local_listener")? > before, "it went to the service");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn listener_on_a_network_interface_keeps_its_port() -> TestResult {
    let lab = Lab::start(3)?;
    let (_replica, _agent, mut client) = served(&lab, &[])?;
    let _dnsmasq = serve(&lab, 1, &format!("0.0.0.0:1234%{}", interface(0)), "dnsmasq")?;
    let mut container = lab.host(3).program_in(lab.host(1).cgroup(), &binary("connect-variants")?, &[])?;
    for way in WAYS {
        // To the kernel, a packet of the host to its own address arrives on the interface of the address.
        for program in [&mut container, &mut client] {
            assert_eq!(who(program, way, "10.77.0.1:1234")?, "dnsmasq", "{way}");
        }
        // No hook sees the interface of a UDP socket at its bind; the agent does.
        eventually_ok("loopback is the service's", PATIENCE, || {
            let answer = who(&mut client, way, "127.0.0.1:1234")?;
            ensure!(answer == "replica", "{way}: {answer}");
            Ok(())
        })?;
    }
    Ok(())
}
