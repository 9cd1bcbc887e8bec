//! Pins that cannot be created, locks that were left behind, maps that are too small.

use std::fs;
use std::path::Path;

use anyhow::{Result, ensure};
use nix::mount::{MsFlags, mount};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use serde_json::json;

use crate::bpftool;
use crate::fixtures::cluster::{Cluster, SERVICE};
use crate::fixtures::file_source::{FileSource, backends, replicas, service};

#[test]
fn read_only_bpffs_is_reported_and_nothing_is_attached() -> TestResult {
    let lab = Lab::start(1)?;
    remount(&lab, MsFlags::MS_RDONLY)?;
    let said = refused(&lab)?;
    assert!(said.contains(&lab.host(1).pins().display().to_string()), "{said}");
    assert!(
        said.contains("Read-only file system") && said.contains("; mount the BPF file system read-write"),
        "{said}"
    );
    assert_eq!(bpftool::attached(lab.host(1).cgroup().path())?, Vec::<String>::new());

    remount(&lab, MsFlags::empty())?;
    let _web = Cluster::unready(&lab, 0, json!({}));
    lab.host(1).agent_ready(PATIENCE)?;
    Ok(())
}

/// A folder at the place of a pin belongs to another program: the agent must not remove it.
#[test]
fn foreign_file_at_a_pin_is_named_and_nothing_is_attached() -> TestResult {
    for (place, named) in [("maps/SERVICES", "SERVICES"), ("links/connect4", "connect4")] {
        let lab = Lab::start(1)?;
        let version = format!("v{}", proxymatic_common::ABI_VERSION);
        let in_the_way = lab.host(1).pins().join(version).join(place);
        fs::create_dir_all(&in_the_way)?;
        let said = refused(&lab)?;
        assert!(said.contains(named), "{said}");
        assert_eq!(bpftool::attached(lab.host(1).cgroup().path())?, Vec::<String>::new(), "{said}");
        assert!(in_the_way.is_dir());
    }
    Ok(())
}

/// The kernel releases the lock of a killed process; no cleanup is needed.
#[test]
fn lock_of_a_killed_agent_does_not_block_the_next() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 1)?;
    for _ in 0..3 {
        let other = lab.agent(&[])?.finish(PATIENCE)?;
        assert_eq!(other.status.code(), Some(2), "while it lives: {other:?}");
        web.agent.kill9()?;
        web.start_agent()?;
        assert!(!web.agent.stderr()?.contains("another agent holds"), "{}", web.agent.log());
    }
    web.answers_come_from(&["a"])?;
    Ok(())
}

#[test]
fn service_too_large_for_a_map_is_refused_and_others_serve() -> TestResult {
    let lab = Lab::start(2)?;
    let replicas = replicas(&lab, 4)?;
    let all = backends(&replicas);
    let small = service(&all[..1], &[]);
    let large = |count: usize| service(&all[..count], &[("name", json!("large")), ("port", json!(SERVICE.port() + 1))]);
    let web = FileSource::start(&lab, std::slice::from_ref(&small), &["--max-backends", "3"])?;
    web.write_only(&[small.clone(), large(3)])?;
    eventually_ok("it is warned of", PATIENCE, || {
        let status = lab.host(1).status()?;
        let warning = status["warnings"][0]["reason"].as_str().unwrap_or_default();
        ensure!(warning.contains("BACKENDS") && warning.contains("--max-backends"), "{status}");
        Ok(())
    })?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.tell(&format!("connect c {SERVICE}"))?, "ok");
    let refused = client.tell(&format!("connect d 127.0.0.1:{}", SERVICE.port() + 1))?;
    assert_eq!(refused, "ECONNREFUSED", "half a service is none");
    assert_eq!(lab.host(1).services()?.len(), 1);
    // Services that fit are served without a restart.
    web.rewrite(&[small, large(2)])?;
    assert_eq!(client.tell(&format!("connect e 127.0.0.1:{}", SERVICE.port() + 1))?, "ok");
    Ok(())
}

/// Returns the error of an agent that cannot start: one sentence and exit code 2.
fn refused(lab: &Lab) -> Result<String> {
    let left = lab.agent(&[])?.finish(PATIENCE)?;
    ensure!(left.status.code() == Some(2), "{left:?}");
    ensure!(left.stdout.is_empty() && left.stderr.lines().count() == 1, "{left:?}");
    Ok(left.stderr)
}

/// Makes the lab's BPF file system read-only, or writable again.
fn remount(lab: &Lab, flags: MsFlags) -> Result<()> {
    Ok(mount(None::<&Path>, &lab.bpffs(), None::<&Path>, MsFlags::MS_REMOUNT | flags, None::<&Path>)?)
}
