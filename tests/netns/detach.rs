//! `detach` removes exactly what the agent has put there.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::thread;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use serde_json::Value;

use crate::bpftool;
use crate::fixtures::cluster::{Cluster, SERVICE};

#[test]
fn detach_leaves_nothing_in_bpffs_cgroup_or_namespaces() -> TestResult {
    let lab = Lab::start(2)?;
    // The kernel puts files of its own into every bpf file system.
    let own = files(&lab)?;
    let mut web = Cluster::start(&lab, 1)?;
    let cgroup = lab.host(1).cgroup().path();
    let before: Vec<Value> = serde_json::from_str(&lab.proxymatic(&["-j", "hook", "show"])?.well()?.stdout)?;
    let ids = ids(&before)?;
    assert!(ids.len() >= 6, "{before:?}");
    for (kind, id) in &ids {
        assert!(bpftool::exists(kind, *id)?, "{kind} {id}");
    }
    assert_eq!(bpftool::attached(cgroup)?.len(), before.len());
    assert!(web.agent.terminate(PATIENCE)?.success());

    lab.proxymatic(&["detach"])?.well()?;
    assert_eq!(files(&lab)?, own);
    assert_eq!(bpftool::attached(cgroup)?, Vec::<String>::new());
    for host in [1, 2] {
        assert_eq!(bpftool::on_interfaces(lab.host(host).net())?, Vec::<Value>::new());
    }
    // The kernel frees unreferenced objects a moment later.
    eventually_ok("programs and links are gone", PATIENCE, || {
        let left: Vec<_> = ids.iter().filter(|(kind, id)| bpftool::exists(kind, *id).unwrap_or(true)).collect();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    assert!(!lab.host(1).socket().exists());
    Ok(())
}

#[test]
fn service_port_after_detach_is_an_ordinary_port() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 1)?;
    web.agent.terminate(PATIENCE)?;
    lab.proxymatic(&["detach"])?.well()?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {SERVICE}"))?, "ECONNREFUSED");
    let listener = lab.host(1).net().enter(|| TcpListener::bind(SERVICE))??;
    let accepted = thread::spawn(move || listener.accept());
    assert_eq!(client.tell(&format!("connect d {SERVICE}"))?, "ok");
    let (mut stream, _) = accepted.join().unwrap()?;
    assert_eq!(client.tell("close d")?, "ok");
    assert_eq!(stream.read(&mut [0])?, 0);
    Ok(())
}

#[test]
fn open_connections_survive_detach() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 1)?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {SERVICE}"))?, "ok");
    web.agent.terminate(PATIENCE)?;
    lab.proxymatic(&["detach"])?.well()?;
    assert_eq!(client.tell("ask c")?, "a");
    Ok(())
}

#[test]
fn detach_while_an_agent_runs_is_refused_with_its_pid() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Cluster::start(&lab, 1)?;
    let refused = lab.proxymatic(&["detach"])?;
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let who = format!("process {}", web.agent.pid()?);
    assert!(refused.stderr.contains(&who), "{who}: {refused:?}");
    web.answers_come_from(&["a"])?;
    Ok(())
}

#[test]
fn detach_without_pins_reports_nothing_to_do() -> TestResult {
    let lab = Lab::start(1)?;
    let refused = lab.proxymatic(&["detach"])?;
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(refused.stderr.contains("nothing is pinned"), "{refused:?}");
    Ok(())
}

/// Returns the entries in the root of the bpf file system.
fn files(lab: &Lab) -> Result<BTreeSet<OsString>> {
    fs::read_dir(lab.bpffs())?.map(|entry| Ok(entry?.file_name())).collect()
}

/// Returns the kernel's ids of all attached programs and links.
fn ids(rows: &[Value]) -> Result<Vec<(&'static str, u64)>> {
    let mut ids = Vec::new();
    for row in rows {
        ids.push(("prog", row["program"].as_u64().context("no program")?));
        ids.push(("link", row["link"].as_u64().context("no link")?));
    }
    Ok(ids)
}
