//! Detection of the host's cgroup root. `feature probe` detects it as `run` does and attaches nothing there. Each test
//! makes its layout in a mount namespace of its own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, binary};
use serde_json::Value;

/// Mounts of the machine are hidden below this folder.
const NOTHING: &str = "mount -t tmpfs none /sys/fs/cgroup";
const HYBRID: &str =
    "mkdir /sys/fs/cgroup/systemd /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified";
const UNIFIED: &str = "mount -t cgroup2 none /sys/fs/cgroup";

#[test]
fn host_cgroup_root_is_found_in_unified_and_hybrid_layout() -> TestResult {
    let lab = Lab::start(1)?;
    assert_eq!(found(&lab, &[], &[NOTHING, HYBRID])?["found"], "/sys/fs/cgroup/unified");
    assert_eq!(found(&lab, &[], &[UNIFIED])?["found"], "/sys/fs/cgroup");
    Ok(())
}

#[test]
fn cgroup2_not_mounted_is_mounted_by_the_agent() -> TestResult {
    let lab = Lab::start(1)?;
    assert_eq!(found(&lab, &[], &[NOTHING])?["found"], "mounted by this process for itself");
    Ok(())
}

#[test]
fn container_finds_mounted_host_cgroup_root_not_its_own() -> TestResult {
    let lab = Lab::start(1)?;
    let given = lab.run_dir().join("given");
    fs::create_dir(&given)?;
    let host = proxymatic_tests::cgroup::root()?.display();
    // The container's own tree covers the usual mount point, as container runtimes arrange it.
    let give = format!("mount --bind {host} {0}", given.display());
    let row = found(&lab, &["--cgroup"], &[&give, UNIFIED])?;
    assert_eq!(row["found"], given.to_str().context("a path that is not UTF-8")?, "{row}");
    Ok(())
}

#[test]
fn container_without_host_cgroup_is_refused_with_remedies() -> TestResult {
    let lab = Lab::start(1)?;
    let alone = ["--cgroup", "--pid", "--fork", "--mount-proc"];
    for layout in [&[NOTHING, HYBRID][..], &[UNIFIED], &[NOTHING]] {
        let row = found(&lab, &alone, layout)?;
        let said = row["reason"].as_str().context("no reason")?;
        assert_eq!((&row["has"], &row["found"]), (&Value::Bool(false), &Value::Null), "{row}");
        assert!(said.starts_with("this container has a cgroup namespace of its own"), "{row}");
        assert!(said.contains("--cgroupns host") && said.contains("-v /sys/fs/cgroup:/sys/fs/cgroup"), "{row}");
    }
    Ok(())
}

/// Runs these commands in namespaces that unshare(1) makes, and returns what `feature probe` prints about the cgroup
/// root.
fn found(lab: &Lab, namespaces: &[&str], layout: &[&str]) -> Result<Value> {
    let host = lab.host(1);
    // The machine must not see these mounts.
    let here = fs::metadata("/proc/self/ns/mnt")?.ino().to_string();
    let held = "test \"$(stat -Lc %i /proc/self/ns/mnt)\" != \"$0\"";
    let script = [&[held], layout, &["exec \"$@\""]].concat().join(" && ");
    let program = binary("proxymatic")?;
    let probe = [program.to_str().context("a path that is not UTF-8")?, "-j", "feature", "probe"];
    let unshare = [&["--mount"], namespaces, &["sh", "-c", &script, &here], &probe].concat();
    let left = host.run(Path::new("unshare"), &unshare, PATIENCE)?;
    let rows: Vec<Value> = serde_json::from_str(&left.stdout).with_context(|| format!("{left:?}"))?;
    let row = rows.into_iter().find(|row| row["feature"] == "the host's root of cgroups");
    ensure!(!left.stderr.contains("mount:"), "{left:?}");
    row.context("no such row")
}
