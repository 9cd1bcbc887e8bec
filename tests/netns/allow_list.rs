//! Allow lists: by the source address of a program, and by its cgroup.

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::cgroup::{self, Cgroup};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use serde_json::{Value, json};

use crate::fixtures::cluster::{Cluster, PORT, SERVICE};
use crate::fixtures::file_source::{FileSource, backends, replicas, service};

#[test]
fn allow_list_of_networks_checks_bound_else_destination_address() -> TestResult {
    let lab = Lab::start(2)?;
    let _web = Cluster::labelled(&lab, 1, &[("allow", "10.77.0.0/24, 127.0.0.64/26")])?;
    let mut client = lab.host(1).tcp_client()?;
    let rows = [
        (None, "127.0.0.1", "EACCES"),
        (None, "127.0.0.65", "ok"),
        (None, "127.0.0.128", "EACCES"),
        (None, "10.77.0.1", "ok"),
        (Some("10.77.0.1"), "127.0.0.1", "ok"),
        (Some("127.0.0.1"), "10.77.0.1", "EACCES"),
    ];
    for (nth, (bound, destination, expected)) in rows.into_iter().enumerate() {
        if let Some(address) = bound {
            assert_eq!(client.tell(&format!("bind c{nth} {address}:0"))?, "ok");
        }
        let said = client.tell(&format!("connect c{nth} {destination}:{PORT}"))?;
        assert_eq!(said, expected, "{bound:?} {destination}");
    }
    assert_eq!((lab.host(1).verdict("not_allowed")?, lab.host(1).verdict("translated")?), (3, 3));
    Ok(())
}

#[test]
fn allow_list_of_cgroups_admits_them_and_their_children() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1).cgroup();
    let (named, other) = (host.child("named")?, host.child("other")?);
    let deep = named.child("deep")?;
    let below = deep.child("er")?;
    let _web = Cluster::labelled(&lab, 1, &[("allow", &format!("cgroup:{}", name(&named)?))])?;
    let connect = |cgroup: &Cgroup| lab.host(1).tcp_client_in(cgroup)?.tell(&format!("connect c {SERVICE}"));
    let said = [host, &named, &other, &below].map(connect).into_iter().collect::<Result<Vec<_>>>()?;
    assert_eq!(said, ["EACCES", "ok", "EACCES", "ok"]);
    assert_eq!(lab.host(1).verdict("not_allowed")?, 2);
    Ok(())
}

#[test]
fn allow_list_change_admits_a_refused_client_at_once() -> TestResult {
    let lab = Lab::start(2)?;
    let replicas = replicas(&lab, 1)?;
    let backends = backends(&replicas);
    let with = |list: Value| [service(&backends, &[("allow", list)])];
    let agent = FileSource::start(&lab, &with(json!(["192.0.2.0/24"])), &[])?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {SERVICE}"))?, "EACCES");
    agent.rewrite(&with(json!(["192.0.2.0/24", "127.0.0.0/8"])))?;
    eventually_ok("it is allowed", PATIENCE, || {
        let said = client.tell(&format!("connect c {SERVICE}"))?;
        ensure!(said == "ok", "{said}");
        Ok(())
    })?;
    Ok(())
}

/// The cgroup's name in the form of /proc/PID/cgroup.
pub(crate) fn name(cgroup: &Cgroup) -> Result<String> {
    let below = cgroup.path().strip_prefix(cgroup::root()?)?;
    Ok(format!("/{}", below.to_str().context("a path that is not UTF-8")?))
}
