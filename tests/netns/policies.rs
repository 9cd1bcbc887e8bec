//! Shares of connections: by weight under each weighted policy, fewer for slow replicas, and by client.

use std::collections::BTreeSet;
use std::thread;

use anyhow::{Result, anyhow, ensure};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;
use serde_json::json;

use crate::fixtures::cluster::{SERVICE, URL, replica_address};
use crate::fixtures::file_source::{FileSource, backends, replicas, service};

/// At 30,000 connections, two percentage points are more than seven times the standard deviation of any share.
const CONNECTIONS: u64 = 30_000;
/// With 36 cgroups, two of four replicas are unused by chance once in ten billion runs.
const CGROUPS: usize = 36;
/// The share, in percent, that the slow one of four replicas gets by random but not by leastconn. Of 800 connections at
/// random it gets less once in ten billion runs.
const SLOW_SHARE: f64 = 15.0;

#[test]
fn weights_100_300_600_give_shares_within_two_points() -> TestResult {
    let lab = Lab::start(2)?;
    let replicas = replicas(&lab, 3)?;
    let mut weighted = backends(&replicas);
    for (backend, weight) in weighted.iter_mut().zip([100, 300, 600]) {
        backend["weight"] = json!(weight);
    }
    let policies = ["leastconn", "random", "roundrobin"];
    let services = (0_u16..).zip(policies).map(|(nth, policy)| {
        let (name, port) = (json!(policy), json!(SERVICE.port() + nth));
        service(&weighted, &[("name", name), ("port", port), ("policy", json!(policy))])
    });
    let _agent = FileSource::start(&lab, &services.collect::<Vec<_>>(), &[])?;
    let ask = |nth: u16| {
        let url = format!("http://localhost:{}/", SERVICE.port() + nth);
        lab.client(&["http", "--url", &url, "--count", &CONNECTIONS.to_string(), "--linger0"])
    };
    let ask = &ask;
    let outcomes = thread::scope(|scope| [0, 1, 2].map(|nth| scope.spawn(move || ask(nth))).map(|it| it.join()));
    for (policy, outcome) in policies.into_iter().zip(outcomes) {
        let seen = outcome.map_err(|_| anyhow!("panicked"))??;
        assert_eq!((seen.failed, seen.ok), (0, CONNECTIONS), "{seen:?}");
        let share = |name: &str| 100.0 * seen.by_replica[name] as f64 / CONNECTIONS as f64;
        let shares = ["a", "b", "c"].map(share);
        println!("{policy}: {shares:.2?} %");
        for (share, expected) in shares.iter().zip([10.0, 30.0, 60.0]) {
            assert!((share - expected).abs() < 2.0, "{policy}: {shares:.2?}");
        }
    }
    Ok(())
}

#[test]
fn slow_replica_gets_its_share_by_random_but_not_by_leastconn() -> TestResult {
    let lab = Lab::start(2)?;
    let mut four = replicas(&lab, 3)?;
    four.push(lab.host(2).replica_at(replica_address(3), "slow", &["--slow", "1000"])?);
    let services = ["leastconn", "random"].map(|policy| {
        let port = if policy == "random" { SERVICE.port() + 1 } else { SERVICE.port() };
        service(&backends(&four), &[("name", json!(policy)), ("port", json!(port)), ("policy", json!(policy))])
    });
    let _agent = FileSource::start(&lab, &services, &[])?;
    // On a machine so busy that all threads wait for responses, leastconn gives each replica as many of them. The slow
    // replica then answers 4 a second, whatever the others do.
    let paced = ["--threads", "16", "--rate", "600", "--linger0"];
    let share = |url: &str| -> Result<f64> {
        let load = lab.load(url, &paced)?;
        load.reaches(800)?;
        let seen = load.finish()?;
        ensure!(seen.failed == 0, "{seen:?}");
        Ok(100.0 * seen.by_replica.get("slow").copied().unwrap_or(0) as f64 / seen.ok as f64)
    };
    let (leastconn, random) = (share(URL)?, share("http://localhost:1235/")?);
    println!("the slow one of four got {leastconn:.1} % by leastconn, {random:.1} % by random");
    assert!(leastconn < SLOW_SHARE && leastconn > 0.0, "{leastconn}");
    assert!(random > SLOW_SHARE, "{random}");
    Ok(())
}

#[test]
fn source_policy_keeps_a_cgroup_on_one_replica() -> TestResult {
    let lab = Lab::start(2)?;
    let replicas = replicas(&lab, 4)?;
    let services = [service(&backends(&replicas), &[("policy", json!("source"))])];
    let mut agent = FileSource::start(&lab, &services, &[])?;
    let cgroups: Vec<_> =
        (0..CGROUPS).map(|nth| lab.host(1).cgroup().child(&format!("client{nth}"))).collect::<Result<_>>()?;
    let answers = || -> Result<Vec<String>> {
        cgroups
            .iter()
            .map(|cgroup| {
                let said = lab.host(1).tcp_client_in(cgroup)?.tell(&format!("who 40 {SERVICE}"))?;
                let names: BTreeSet<_> = said.split(' ').collect();
                ensure!(names.len() == 1, "one cgroup was taken to {names:?}");
                Ok(names.into_iter().collect())
            })
            .collect()
    };
    let before = answers()?;
    let used: BTreeSet<_> = before.iter().collect();
    println!("{CGROUPS} cgroups, each with 40 connections from each of two processes, on {} of 4 replicas", used.len());
    assert!(used.len() >= 3, "{before:?}");
    // Another process of the same cgroup, and another agent.
    agent.agent.kill9()?;
    drop(agent);
    let _agent = FileSource::start(&lab, &services, &[])?;
    assert_eq!(answers()?, before);
    Ok(())
}
