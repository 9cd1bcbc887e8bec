//! `--local-listener root-wins`: only root takes a service port.

use std::path::Path;

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, SocketProgram, binary, kernel};

use super::{WAYS, both, serve, served, who};
use crate::fixtures::file_source::FileSource;

const LOCAL: &str = "127.0.0.1:1234";

/// A program of a user without privileges, on host 1.
fn of_user(lab: &Lab) -> Result<SocketProgram> {
    let program = binary("connect-variants")?;
    let program = program.to_str().unwrap_or_default();
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", program];
    lab.host(1).program_in(lab.host(1).cgroup(), Path::new("setpriv"), &user)
}

/// The error of a bind that a hook refuses. Hooks of old kernels cannot set it.
fn refused() -> &'static str {
    if kernel::refused_connect() == "connect ECONNREFUSED" { "EADDRINUSE" } else { "EPERM" }
}

#[test]
fn unprivileged_program_cannot_take_a_service_port() -> TestResult {
    let lab = Lab::start(2)?;
    let (_replica, _agent, mut client) = served(&lab, &["--local-listener", "root-wins"])?;
    let mut user = of_user(&lab)?;
    for at in [LOCAL, "0.0.0.0:1234", "[::]:1234"] {
        let before = lab.host(1).verdict("bind_refused")?;
        assert_eq!(user.tell(&format!("serve {at} squatter"))?, refused(), "{at}");
        assert_eq!(lab.host(1).verdict("bind_refused")?, before + 1, "{at}");
        for way in WAYS {
            assert_eq!(who(&mut client, way, LOCAL)?, "replica", "{way}, {at}");
        }
    }
    assert_eq!(user.tell("serve 127.0.0.1:1235 other")?, "ok");
    // Root takes the port, as it does without the flag.
    let _daemon = serve(&lab, 1, "0.0.0.0:1234", "daemon")?;
    for way in WAYS {
        assert_eq!(who(&mut client, way, LOCAL)?, "daemon", "{way}");
    }
    Ok(())
}

#[test]
fn unprivileged_listener_from_before_the_service_keeps_its_port() -> TestResult {
    let lab = Lab::start(2)?;
    let mut user = of_user(&lab)?;
    assert_eq!(user.tell(&format!("serve {LOCAL} older"))?, "ok");
    let (_replica, _agent, mut client) = served(&lab, &["--local-listener", "root-wins"])?;
    for way in WAYS {
        eventually_ok("the older listener has its port", PATIENCE, || {
            let answer = who(&mut client, way, LOCAL)?;
            ensure!(answer == "older", "{way}: {answer}");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn unprivileged_program_in_a_container_has_its_own_ports() -> TestResult {
    if kernel::skips_loopback_host("binds in containers")? {
        return Ok(());
    }
    let lab = Lab::start(3)?;
    let (_replica, _agent, _client) = served(&lab, &["--local-listener", "root-wins"])?;
    let program = binary("connect-variants")?;
    let user = ["--reuid=65534", "--regid=65534", "--clear-groups", program.to_str().unwrap_or_default()];
    let mut inside = lab.host(3).program_in(lab.host(1).cgroup(), Path::new("setpriv"), &user)?;
    assert_eq!(inside.tell("serve 0.0.0.0:1234 inside")?, "ok");
    Ok(())
}

#[test]
fn replica_may_start_on_the_service_port() -> TestResult {
    let lab = Lab::start(2)?;
    let _there = serve(&lab, 2, "10.77.0.2:1234", "there")?;
    let _agent = FileSource::start(&lab, &both(&["10.77.0.2:1234"])?, &["--local-listener", "root-wins"])?;
    assert_eq!(of_user(&lab)?.tell("serve 10.77.0.1:1234 here")?, "ok");
    Ok(())
}

#[test]
fn unprivileged_program_takes_a_service_port_without_the_flag() -> TestResult {
    let lab = Lab::start(2)?;
    let (_replica, _agent, mut client) = served(&lab, &[])?;
    let mut user = of_user(&lab)?;
    assert_eq!(user.tell(&format!("serve {LOCAL} user"))?, "ok");
    for way in WAYS {
        assert_eq!(who(&mut client, way, LOCAL)?, "user", "{way}");
    }
    Ok(())
}
