//! Pins that an interrupted start leaves, or that are unusable: the next start completes them or reports one sentence.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use proxymatic_common::ABI_VERSION;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use proxymatic_tests::process::Finished;
use serde_json::Value;

use crate::bpftool;
use crate::fixtures::cluster::{Cluster, URL};

/// How much longer each start works before it is killed: a twelfth of a whole start.
const WORK: Duration = Duration::from_millis(25);

#[test]
fn first_start_killed_at_any_moment_is_completed_by_the_next() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    web.agent.kill9()?;
    lab.proxymatic(&["detach"])?.well()?;
    for nth in 0..12 {
        web.agent = lab.agent(&["--max-services", &(100 + nth).to_string()])?;
        web.agent.works_for(WORK * nth, PATIENCE)?;
        web.agent.kill9()?;
    }
    web.start_agent()?;
    well(&lab)?;
    web.answers_come_from(&["a", "b"])?;
    Ok(())
}

#[test]
fn unused_maps_are_recreated_in_the_requested_size() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    web.agent.kill9()?;
    for folder in ["links", "programs"] {
        fs::remove_dir_all(pins(&lab).join(folder))?;
    }
    // Half of the maps, and one of another type.
    for map in ["FRONTENDS", "BACKENDS", "COUNTERS", "SLOT_RANGES"] {
        fs::remove_file(pins(&lab).join("maps").join(map))?;
    }
    bpftool::pin_map(&pins(&lab).join("maps/SLOT_RANGES"), "SLOT_RANGES", 16, 3)?;
    web.agent = lab.agent(&["--max-services", "100"])?;
    lab.host(1).agent_ready(PATIENCE)?;
    well(&lab)?;
    web.answers_come_from(&["a", "b"])?;
    let status = lab.host(1).status()?;
    assert_eq!(status["maps"][0], serde_json::json!({ "map": "SERVICES", "used": 1, "entries": 100 }), "{status}");
    Ok(())
}

#[test]
fn incomplete_pin_folder_is_completed() -> TestResult {
    let lab = Lab::start(2)?;
    fs::create_dir_all(pins(&lab).join("links"))?;
    let web = Cluster::start(&lab, 2)?;
    well(&lab)?;
    web.answers_come_from(&["a", "b"])?;
    Ok(())
}

/// The links and programs of an interrupted start or detach.
#[test]
fn incomplete_hook_set_is_completed_and_fails_no_connect() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    let load = lab.load(URL, &["--threads", "8", "--linger0"])?;
    let all = ["connect6", "sendmsg6", "sendmsg4", "post_bind6", "recvmsg6", "getpeername6", "tcp_states"];
    for missing in 1..=all.len() {
        web.agent.kill9()?;
        for hook in &all[..missing] {
            fs::remove_file(pins(&lab).join("links").join(hook))?;
        }
        for hook in &all[missing / 2..] {
            fs::remove_file(pins(&lab).join("programs").join(hook))?;
        }
        load.reaches(100)?;
        web.start_agent()?;
        well(&lab)?;
    }
    let seen = load.finish()?;
    assert_eq!(seen.failed, 0, "{seen:?}");
    Ok(())
}

#[test]
fn wrong_or_lost_map_in_use_is_reported_and_traffic_goes_on() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    web.agent.kill9()?;
    let heads = pins(&lab).join("maps/SLOT_RANGES");
    fs::remove_file(&heads)?;
    refused(
        &lab,
        "maps/SLOT_RANGES is missing, although attached hooks use it; remove the pins with `proxymatic detach`",
    )?;
    bpftool::pin_map(&heads, "SLOT_RANGES", 16, 3)?;
    refused(&lab, "maps/SLOT_RANGES has another layout than in this version")?;
    web.answers_come_from(&["a", "b"])?;
    lab.proxymatic(&["detach"])?.well()?;
    web.start_agent()?;
    web.answers_come_from(&["a", "b"])?;
    Ok(())
}

#[test]
fn detached_hook_is_shown_and_attached_again_at_next_start() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    let rows: Vec<Value> = serde_json::from_str(&lab.proxymatic(&["-j", "hook", "show"])?.well()?.stdout)?;
    assert!(rows.iter().all(|row| row["effective"] == true), "{rows:?}");
    let connect = rows.iter().find(|row| row["hook"] == "connect4").and_then(|row| row["link"].as_u64());
    bpftool::detach(connect.unwrap_or_default())?;
    let shown = lab.proxymatic(&["-j", "hook", "show"])?;
    let rows: Vec<Value> = serde_json::from_str(&shown.stdout)?;
    let not: Vec<_> = rows.iter().filter(|row| row["effective"] != true).map(|row| &row["hook"]).collect();
    assert_eq!((shown.status.code(), not), (Some(1), vec![&Value::from("connect4")]), "{rows:?}");
    let status = lab.proxymatic(&["status"])?;
    assert!(status.stdout.contains("connect4 is pinned but does not run"), "{status:?}");
    web.agent.kill9()?;
    web.start_agent()?;
    well(&lab)?;
    web.answers_come_from(&["a", "b"])?;
    Ok(())
}

#[test]
fn start_that_cannot_attach_one_hook_changes_no_hook() -> TestResult {
    let lab = Lab::start(2)?;
    let (one, two) = (lab.host(1), lab.host(2));
    let mut web = Cluster::start(&lab, 2)?;
    web.agent.kill9()?;
    // The last hook but one: ten hooks are attached before it.
    let taken = two.cgroup().child("taken")?;
    let below = taken.child("below")?;
    bpftool::attach_alone(taken.path(), "connect4", &pins(&lab).join("programs/connect4"))?;
    let said = "cannot attach connect4";
    let remedy = "exclusively, on this cgroup or on one above; find the program with `bpftool cgroup tree`";
    for host in [two, one] {
        let Finished { status, stderr, .. } = host.agent_for(&below, &lab.marathon_url(), &[])?.finish(PATIENCE)?;
        assert!(status.code() == Some(2) && stderr.contains(said) && stderr.contains(remedy), "{stderr}");
        assert_eq!(bpftool::attached(below.path())?, Vec::<String>::new());
    }
    // Neither a first start nor one that replaces links.
    assert!(!two.pins().join(format!("v{ABI_VERSION}/links/sock_release")).exists());
    well(&lab)?;
    web.answers_come_from(&["a", "b"])?;
    Ok(())
}

fn pins(lab: &Lab) -> PathBuf {
    lab.host(1).pins().join(format!("v{ABI_VERSION}"))
}

/// Asserts that all hooks are attached once and run.
fn well(lab: &Lab) -> Result<()> {
    lab.proxymatic(&["hook", "show"])?.well()?;
    // The kernel detaches a link some time after its pin was removed.
    eventually_ok("each hook is attached once", PATIENCE, || {
        let attached = bpftool::attached(lab.host(1).cgroup().path())?;
        ensure!(attached.len() == 12, "{attached:?}");
        Ok(())
    })
}

fn refused(lab: &Lab, sentence: &str) -> Result<()> {
    let Finished { status, stderr, .. } = lab.agent(&[])?.finish(PATIENCE)?;
    ensure!(status.code() == Some(2) && stderr.lines().count() == 1 && stderr.contains(sentence), "{stderr}");
    Ok(())
}
