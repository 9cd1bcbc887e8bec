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
fn allow_list_of_networks_has_the_host_at_two_addresses() -> TestResult {
    let lab = Lab::start(2)?;
    let replicas = replicas(&lab, 1)?;
    let backends = backends(&replicas);
    let lists = [
        ("127.0.0.1", "ok"),
        ("10.77.0.1", "ok"),
        ("fd77::1", "ok"),
        // What the program connects to, or binds, is its own choice.
        ("127.0.0.64/26", "EACCES"),
        ("10.77.0.100", "EACCES"),
    ];
    lab.host(1).net().ip(&["address", "add", "10.77.0.100/32", "dev", "lab0"])?;
    let named = |(list, port): (&str, u16)| {
        service(&backends, &[("name", json!(format!("s{port}"))), ("port", json!(port)), ("allow", json!([list]))])
    };
    let services: Vec<_> = lists.iter().map(|(list, _)| *list).zip(PORT..).map(named).collect();
    let _agent = FileSource::start(&lab, &services, &[])?;
    let mut client = lab.host(1).tcp_client()?;
    let ways = [
        (None, "127.0.0.1"),
        (None, "127.0.0.65"),
        (None, "10.77.0.1"),
        (None, "10.77.0.100"),
        (Some("10.77.0.100"), "10.77.0.1"),
    ];
    for ((list, expected), port) in lists.into_iter().zip(PORT..) {
        for (nth, (bound, destination)) in ways.into_iter().enumerate() {
            let name = format!("c{port}-{nth}");
            if let Some(address) = bound {
                assert_eq!(client.tell(&format!("bind {name} {address}:0"))?, "ok");
            }
            let said = client.tell(&format!("connect {name} {destination}:{port}"))?;
            assert_eq!(said, expected, "{list}: {bound:?} {destination}");
        }
    }
    assert_eq!((lab.host(1).verdict("not_allowed")?, lab.host(1).verdict("translated")?), (10, 15));
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
