//! `feature probe` says what this kernel has, and leaves nothing behind.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::cgroup;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, binary};
use serde_json::Value;

#[test]
fn measured_what_the_product_needs_is_found_and_nothing_stays_loaded() -> TestResult {
    let lab = Lab::start(1)?;
    let said = lab.proxymatic(&["-j", "feature"])?.well()?.stdout;
    let rows: Vec<Value> = serde_json::from_str(&said)?;
    for row in &rows {
        println!("{row}");
    }
    // This tier needs all that is needed, and the machine it runs on has more.
    for row in rows.iter().filter(|row| row["needed"] == true) {
        assert_eq!(row["has"], true, "{row}");
    }
    for feature in ["UDP sockets ended", "TCP connections ended", "links to interfaces", "programs replaced"] {
        let row = rows.iter().find(|row| row["feature"].as_str().is_some_and(|name| name.starts_with(feature)));
        assert_eq!(row.context("no such row")?["has"], true, "{row:?}");
    }
    eventually_ok("all of it is gone", PATIENCE, || {
        let left = [named("prog")?, named("map")?, folders()?].concat();
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    let table = lab.proxymatic(&["feature", "probe"])?.well()?.stdout;
    assert!(table.starts_with("FEATURE ") && table.lines().count() > rows.len(), "{table}");
    Ok(())
}

#[test]
fn without_root_it_says_what_is_missing() -> TestResult {
    let lab = Lab::start(1)?;
    let (program, drop) = (binary("proxymatic")?, ["--bounding-set", "-all,+net_admin", "--"]);
    let program = program.to_str().context("a strange path")?;
    let refused = lab.host(1).run(Path::new("setpriv"), &[&drop[..], &[program, "feature"]].concat(), PATIENCE)?;
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(refused.stderr.contains("lacks CAP_BPF and CAP_PERFMON; run it as root"), "{refused:?}");
    Ok(())
}

/// What the kernel has of a kind that is named as the probes are.
fn named(kind: &str) -> Result<Vec<String>> {
    let ours = ["peer_names", "tcp_events", "packets", "keeps", "tells", "TOLD", "KEPT"];
    let output = Command::new("bpftool").args(["--json", kind, "show"]).output().context("run bpftool")?;
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let names = rows.iter().filter_map(|row| row["name"].as_str());
    Ok(names.filter(|name| ours.contains(name)).map(str::to_owned).collect())
}

/// Cgroups right below the root that probes have made.
fn folders() -> Result<Vec<String>> {
    let names = fs::read_dir(cgroup::root()?)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with("proxymatic-probe")).collect())
}
