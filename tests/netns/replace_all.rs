//! All backends of a service replaced at once, over and over, under load.

mod listeners;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use proxymatic_common::{HookFlags, Loopback};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Host, Lab, PATIENCE};
use proxymatic_user::agent::{Agent, Event};
use proxymatic_user::dataplane::kernel::{Kernel, RemoteClients, Settings};
use proxymatic_user::model::{Backend, Protocol, Service, ServiceKey, Snapshot, State, Weight};
use proxymatic_user::plan::Capacity;
use proxymatic_user::source::{Report, SourceId};
use serde_json::json;

use self::listeners::{Hit, Listeners};
use crate::fixtures::cluster::{APP, Cluster, PORT, URL, monotonic, place};

const SWITCHES: usize = 1000;
const BACKENDS: usize = 3;
/// The least number of connections to each set of backends before it is replaced.
const SOME: usize = 5;
/// How far the agent's clock advances between two replacements: ids leave quarantine and are reused.
const STEP: Duration = Duration::from_millis(50);

/// The agent runs in this process and gets its input from the test; a Marathon would allow ten changes a second. Every
/// set of backends consists of new listeners that stay open, so that a late connection to them is answered and
/// recorded.
#[test]
fn replacements_1000_fail_no_connect_and_reach_no_old_backend() -> TestResult {
    let lab = Lab::start(2)?;
    let crowd = Listeners::start()?;
    let mut agent = agent(lab.host(1))?;
    let begun = Instant::now();
    let mut removed = Vec::new();

    replace(&mut agent, 0, &crowd.open(lab.host(2), 0, BACKENDS)?, begun);
    let load = lab.load(URL, &["--threads", "4", "--linger0", "--stamp"])?;
    for set in 1..=SWITCHES {
        let backends = crowd.open(lab.host(2), set, BACKENDS)?;
        replace(&mut agent, set, &backends, begun + STEP * set as u32);
        removed.push(monotonic()?);
        eventually_ok(&format!("connections reach set {set}"), PATIENCE, || crowd.has(set, SOME))?;
    }
    let seen = load.finish()?;
    let took = begun.elapsed();

    let hits = crowd.hits();
    let late: Vec<_> = hits.iter().filter(|hit| removed.get(hit.set).is_some_and(|at| hit.begun > *at)).collect();
    let slowest = hits.iter().filter_map(|hit| hit.accepted.checked_sub(*removed.get(hit.set)?)).max();
    println!(
        "{SWITCHES} switches in {took:.1?} under {} connects; a removed backend last accepted {:.1?} after its removal",
        seen.ok,
        slowest.unwrap_or_default()
    );
    assert_eq!(seen.failed, 0, "{seen:?}");
    assert_eq!(late, Vec::<&Hit>::new(), "begun after the removal of their backend");
    let highest = agent.tables().backends().keys().max();
    assert!(highest.is_some_and(|id| (*id as usize) < SWITCHES), "ids were not used again: up to {highest:?}");
    Ok(())
}

#[test]
fn marathon_replacement_moves_every_connection_and_fails_none() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    web.scale()?;
    web.scale()?;
    let load = lab.load(URL, &["--threads", "2", "--linger0"])?;
    for (which, names) in [([0, 1], ["a", "b"]), ([2, 3], ["c", "d"])].into_iter().cycle().take(6) {
        let places = which.map(|nth| place(web.replicas[nth].address));
        web.sim.control("replace", &json!({ "app": APP, "tasks": places }))?;
        web.when_active(&which)?;
        web.answers_come_from(&names)?;
    }
    let seen = load.finish()?;
    assert_eq!(seen.failed, 0, "{seen:?}");
    Ok(())
}

/// Starts an agent on this host's cgroup and pins, in its namespace if requested.
fn agent(host: &Host) -> Result<Agent<Kernel>> {
    let settings = Settings {
        bpffs: host.pins(),
        cgroup: Some(host.cgroup().path().to_owned()),
        loopback: Loopback::HOST,
        remote: RemoteClients::default(),
        capacity: Capacity::default(),
        hook_flags: HookFlags::default(),
        bypass_mark: 0,
        event_sample_rate: 0,
        log: None,
    };
    let kernel = host.net().enter(|| Kernel::start(&settings))??;
    let mut agent = Agent::adopt(kernel, &[SourceId::Marathon])?;
    agent.handle(Event::Addresses(BTreeSet::from([host.address().into()])), Instant::now());
    Ok(agent)
}

/// Sets the backends of the service.
fn replace(agent: &mut Agent<Kernel>, set: usize, backends: &[SocketAddr], now: Instant) {
    let backend = |(nth, at): (usize, &SocketAddr)| Backend {
        task: format!("web.{set:04}.{nth}"),
        address: at.ip(),
        port: at.port(),
        weight: Weight::default(),
        maxconn: 0,
        state: State::Active,
    };
    let service = Service {
        name: APP.to_owned(),
        backends: backends.iter().enumerate().map(backend).collect(),
        ..Service::default()
    };
    let services =
        BTreeMap::from([(ServiceKey { address: None, port: PORT, protocol: Protocol::Tcp }, service.into())]);
    let snapshot = Snapshot { services, warnings: Vec::new() };
    agent.handle(Event::Source(Report::Snapshot { source: SourceId::Marathon, snapshot, at: now }), now);
    agent.handle(Event::Tick, now);
}
