//! `feature probe` reports the features of this kernel and leaves nothing behind.

use std::collections::BTreeSet;
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
fn needed_features_are_found_and_no_probe_stays_loaded() -> TestResult {
    let lab = Lab::start(1)?;
    let said = lab.proxymatic(&["-j", "feature"])?.well()?.stdout;
    // Agents of other tests probe too. Their objects end with their processes, and ids are not reused.
    let probes = Probes::now()?;
    let rows: Vec<Value> = serde_json::from_str(&said)?;
    for row in &rows {
        println!("{row}");
    }
    // This tier needs every required feature, and the test machine has optional ones too.
    for row in rows.iter().filter(|row| row["needed"] == true) {
        assert_eq!(row["has"], true, "{row}");
    }
    for feature in ["UDP sockets ended", "TCP connections ended", "links to interfaces", "programs replaced"] {
        let row = rows.iter().find(|row| row["feature"].as_str().is_some_and(|name| name.starts_with(feature)));
        assert_eq!(row.context("no such row")?["has"], true, "{row:?}");
    }
    eventually_ok("all of it is gone", PATIENCE, || {
        let left = probes.left(&Probes::now()?);
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })?;
    let table = lab.proxymatic(&["feature", "probe"])?.well()?.stdout;
    assert!(table.starts_with("FEATURE ") && table.lines().count() > rows.len(), "{table}");
    Ok(())
}

#[test]
fn feature_probe_without_root_names_what_is_missing() -> TestResult {
    let lab = Lab::start(1)?;
    let (program, drop) = (binary("proxymatic")?, ["--bounding-set", "-all,+net_admin", "--"]);
    let program = program.to_str().context("a path that is not UTF-8")?;
    let refused = lab.host(1).run(Path::new("setpriv"), &[&drop[..], &[program, "feature"]].concat(), PATIENCE)?;
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    assert!(refused.stderr.contains("lacks CAP_BPF and CAP_PERFMON; run it as root"), "{refused:?}");
    Ok(())
}

/// Programs and maps that probes have loaded, in this test and in concurrent ones.
#[derive(Debug)]
struct Probes(BTreeSet<String>);

impl Probes {
    fn now() -> Result<Self> {
        Ok(Self([named("prog")?, named("map")?, folders()?].concat().into_iter().collect()))
    }

    /// Returns the objects that still exist.
    fn left(&self, now: &Self) -> Vec<String> {
        self.0.intersection(&now.0).cloned().collect()
    }
}

/// Returns the kernel objects of one kind whose names are those of probes, with their ids.
fn named(kind: &str) -> Result<Vec<String>> {
    let ours = ["peer_names", "tcp_events", "packets", "sk_storage_conn", "ringbuf", "PROBE_RINGBUF", "PROBE_STORAGE"];
    let output = Command::new("bpftool").args(["--json", kind, "show"]).output().context("run bpftool")?;
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout)?;
    let rows = rows.iter().filter(|row| row["name"].as_str().is_some_and(|name| ours.contains(&name)));
    Ok(rows.map(|row| format!("{kind} {} {}", row["id"], row["name"])).collect())
}

/// Returns the cgroups that probes have made right below the root.
fn folders() -> Result<Vec<String>> {
    let names = fs::read_dir(cgroup::root()?)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with("proxymatic-probe")).collect())
}
