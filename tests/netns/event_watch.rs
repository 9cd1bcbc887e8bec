//! `event watch`: any number of watchers with an agent, a single one without.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use expect_test::expect;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use serde_json::json;

use crate::fixtures::cluster::{Cluster, SERVICE};
use crate::golden::{mask, masked_line};

fn nothing() -> Result<()> {
    Ok(())
}

/// Drains and undrains a replica, each time until the agent has published it. The agent reports no change that is
/// reverted sooner.
fn toggle(cluster: &Cluster, replica: usize) -> Result<()> {
    let backend = cluster.replicas[replica].address.to_string();
    for verb in ["drain", "undrain"] {
        let before = cluster.agent.logged("drained by the operator")?;
        cluster.lab.proxymatic(&["backend", verb, &backend])?;
        cluster.drains_published(before + 1)?;
    }
    Ok(())
}

#[test]
fn every_watcher_sees_drains_failures_ejections_readmissions() -> TestResult {
    let lab = Lab::start(2)?;
    let mut cluster = Cluster::start(&lab, 2)?;
    let watchers = [lab.host(1).watch()?, lab.host(1).watch()?];
    let first = cluster.replicas[0].address.to_string();
    for watcher in &watchers {
        // Repeated, since the watcher may still be starting.
        let drained = watcher.sees("draining", || toggle(&cluster, 0))?;
        assert_eq!(drained["reason"], "operator", "{drained}");
        assert_eq!((&drained["service"], &drained["backend"]), (&"/web".into(), &first.clone().into()), "{drained}");
        watcher.sees("applied", nothing)?;
    }
    cluster.replicas[0].process.kill9()?;
    for watcher in &watchers {
        let failed = watcher.sees("failed", || cluster.ask(1).map(drop))?;
        assert_eq!((&failed["service"], &failed["backend"]), (&"/web".into(), &first.clone().into()), "{failed}");
        let ejected = watcher.sees("ejected", nothing)?;
        assert!(ejected["for_s"].as_f64().is_some_and(|seconds| (0.5..2.0).contains(&seconds)), "{ejected}");
    }
    let _back = lab.replica(2, 8001, "a")?;
    for watcher in &watchers {
        assert_eq!(watcher.sees("readmitted", nothing)?["backend"], first.clone());
    }
    Ok(())
}

#[test]
fn event_watch_without_agent_refuses_a_second_reader_by_pid() -> TestResult {
    let lab = Lab::start(2)?;
    let mut cluster = Cluster::start(&lab, 1)?;
    cluster.agent.kill9()?;
    let mut watcher = lab.host(1).watch()?;
    cluster.replicas[0].process.kill9()?;
    let failed = watcher.sees("failed", || cluster.ask(1).map(drop))?;
    assert_eq!(failed["service"], "/web");
    let second = lab.proxymatic(&["event", "watch"])?;
    let pid = watcher.process.pid()?;
    let names = second.stderr.contains(&format!("process {pid} already reads the events of"));
    assert!(second.status.code() == Some(2) && names, "{second:?}");
    // An agent owns the ring buffer, so the watcher gets a message instead.
    cluster.start_agent()?;
    let first = cluster.replicas[0].address.to_string();
    assert_eq!(watcher.sees("active", || toggle(&cluster, 0))?["backend"], first);
    watcher.process.terminate(PATIENCE)?;
    Ok(())
}

#[test]
fn watcher_that_does_not_read_blocks_nobody() -> TestResult {
    let lab = Lab::start(2)?;
    let cluster = Cluster::start(&lab, 2)?;
    let mut stuck = lab.host(1).watch()?;
    stuck.sees("draining", || toggle(&cluster, 0))?;
    stuck.process.signal(nix::sys::signal::Signal::SIGSTOP)?;
    let watcher = lab.host(1).watch()?;
    watcher.sees("draining", || toggle(&cluster, 0))?;
    lab.host(1).agent_ready(PATIENCE)?;
    stuck.process.signal(nix::sys::signal::Signal::SIGCONT)?;
    Ok(())
}

#[test]
fn event_watch_count_limits_the_events_shown() -> TestResult {
    let lab = Lab::start(2)?;
    let mut cluster = Cluster::start(&lab, 1)?;
    cluster.agent.kill9()?;
    cluster.replicas[0].process.kill9()?;
    // Emitted before the watcher started: the ring buffer keeps the event.
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.hold("x", 1, SERVICE)?, ["ECONNREFUSED"]);
    let left = lab.proxymatic(&["event", "watch", "--count", "1"])?.well()?;
    assert!(left.stdout.contains("failed      /web") && left.stdout.lines().count() == 1, "{left:?}");
    Ok(())
}

/// All events that can be caused in a fixed order, and the words that precede a number that differs in each run.
const HAPPENINGS: [&str; 8] =
    ["draining", "applied", "active", "failed", "ejected", "readmitted", "connected", "refused"];
const WORDS: [&str; 4] = ["after ", "for ", "process ", "applied     "];
const KEYS: [&str; 7] = ["time", "task", "pid", "cgroup", "after_s", "for_s", "writes"];

#[test]
fn event_output_matches_golden() -> TestResult {
    let lab = Lab::start(2)?;
    let mut cluster = Cluster::on(&lab, lab.sim()?, 2, json!({}), &["--sample", "1"])?;
    cluster.when_active(&[0, 1])?;
    cluster.sim.app("/idle", 1235, &[])?;
    lab.service_when("/idle is known", "/idle", |idle| idle.backends.is_empty())?;
    let watchers = (lab.host(1).event_watch(&[])?, lab.host(1).watch()?);
    // Repeated until both watchers see it, since they may still be starting.
    watchers.1.sees("draining", || toggle(&cluster, 0))?;
    eventually_ok("people see it too", PATIENCE, || {
        toggle(&cluster, 0)?;
        ensure!(watchers.0.stdout()?.contains("draining"), "{}", watchers.0.log());
        Ok(())
    })?;
    // With two active backends the first connect could reach either.
    let first = cluster.replicas[0].address.to_string();
    lab.proxymatic(&["backend", "drain", &first])?.well()?;
    watchers.1.sees("connected", || cluster.ask(1).map(drop))?;
    lab.proxymatic(&["backend", "undrain", &first])?.well()?;
    cluster.replicas[0].process.kill9()?;
    watchers.1.sees("ejected", || cluster.ask(1).map(drop))?;
    let _back = lab.replica(2, 8001, "a")?;
    watchers.1.sees("readmitted", nothing)?;
    assert_eq!(lab.host(1).tcp_client()?.hold("x", 1, (Ipv4Addr::LOCALHOST, 1235).into())?, ["ECONNREFUSED"]);
    watchers.1.sees("refused", nothing)?;
    let lines = |said: &str| -> String {
        let line = |event: &&str| said.lines().find(|line| line.get(14..).is_some_and(|rest| rest.starts_with(*event)));
        let masked = |line: &str| masked_line(&line[14..], &WORDS) + "\n";
        HAPPENINGS.iter().filter_map(line).map(masked).collect()
    };
    eventually_ok("people see all of it", PATIENCE, || {
        ensure!(lines(&watchers.0.stdout()?).lines().count() == HAPPENINGS.len(), "{}", watchers.0.log());
        Ok(())
    })?;
    expect![[r#"
        draining    /web  backend 10.77.0.2:8001, operator
        applied     * writes
        active      /web  backend 10.77.0.2:8001
        failed      /web  127.0.0.1:1234/tcp, backend 10.77.0.2:8001, after *
        ejected     /web  backend 10.77.0.2:8001, for *
        readmitted  /web  backend 10.77.0.2:8001, after *
        connected   /web  127.0.0.1:1234/tcp, backend 10.77.0.2:8002, translated, process *
        refused     /idle  127.0.0.1:1235/tcp, no_backend, process *
    "#]]
    .assert_eq(&lines(&watchers.0.stdout()?));
    let seen = watchers.1.seen()?;
    let row = |event: &&str| {
        let mut row = seen.iter().find(|it| it["event"] == *event).cloned()?;
        mask(&mut row, &KEYS);
        Some(format!("{row}\n"))
    };
    expect![[r#"
        {"after_s":null,"backend":"10.77.0.2:8001","cgroup":null,"destination":null,"event":"draining","for_s":null,"lost":null,"pid":null,"protocol":"tcp","reason":"operator","service":"/web","task":"*","time":"*","writes":null}
        {"after_s":null,"backend":null,"cgroup":null,"destination":null,"event":"applied","for_s":null,"lost":null,"pid":null,"protocol":null,"reason":null,"service":null,"task":null,"time":"*","writes":"*"}
        {"after_s":null,"backend":"10.77.0.2:8001","cgroup":null,"destination":null,"event":"active","for_s":null,"lost":null,"pid":null,"protocol":"tcp","reason":null,"service":"/web","task":"*","time":"*","writes":null}
        {"after_s":"*","backend":"10.77.0.2:8001","cgroup":null,"destination":"127.0.0.1:1234","event":"failed","for_s":null,"lost":null,"pid":null,"protocol":"tcp","reason":null,"service":"/web","task":"*","time":"*","writes":null}
        {"after_s":null,"backend":"10.77.0.2:8001","cgroup":null,"destination":null,"event":"ejected","for_s":"*","lost":null,"pid":null,"protocol":"tcp","reason":null,"service":"/web","task":"*","time":"*","writes":null}
        {"after_s":"*","backend":"10.77.0.2:8001","cgroup":null,"destination":null,"event":"readmitted","for_s":null,"lost":null,"pid":null,"protocol":"tcp","reason":null,"service":"/web","task":"*","time":"*","writes":null}
        {"after_s":null,"backend":"10.77.0.2:8002","cgroup":"*","destination":"127.0.0.1:1234","event":"connected","for_s":null,"lost":null,"pid":"*","protocol":"tcp","reason":"translated","service":"/web","task":"*","time":"*","writes":null}
        {"after_s":null,"backend":null,"cgroup":"*","destination":"127.0.0.1:1235","event":"refused","for_s":null,"lost":null,"pid":"*","protocol":"tcp","reason":"no_backend","service":"/idle","task":null,"time":"*","writes":null}
    "#]].assert_eq(&HAPPENINGS.iter().filter_map(row).collect::<String>());
    Ok(())
}
