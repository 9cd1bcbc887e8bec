//! The agent restarted for another cgroup, on the same pins: the hooks move, and nothing stays behind.

use anyhow::ensure;
use proxymatic_tests::cgroup::Cgroup;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};

use crate::bpftool;
use crate::fixtures::cluster::{APP, SERVICE};

#[test]
fn agent_started_for_another_cgroup_serves_only_that_one() -> TestResult {
    let lab = Lab::start(2)?;
    let (host, sim) = (lab.host(1), lab.sim()?);
    let (one, two) = (host.cgroup().child("one")?, host.cgroup().child("two")?);
    let _replica = lab.replica(2, 8001, "a")?;
    sim.app(APP, SERVICE.port(), &[(2, 8001)])?;
    let connect = |cgroup: &Cgroup| host.tcp_client_in(cgroup)?.tell(&format!("connect c {SERVICE}"));

    let mut agent = host.agent_for(&one, &lab.marathon_url(), &[])?;
    host.agent_ready(PATIENCE)?;
    assert_eq!((connect(&one)?.as_str(), connect(&two)?.as_str()), ("ok", "ECONNREFUSED"));
    let hooks = bpftool::attached(one.path())?;
    assert!(!hooks.is_empty());

    agent.kill9()?;
    let _agent = host.agent_for(&two, &lab.marathon_url(), &[])?;
    host.agent_ready(PATIENCE)?;
    assert_eq!((connect(&one)?.as_str(), connect(&two)?.as_str()), ("ECONNREFUSED", "ok"));
    assert_eq!(bpftool::attached(two.path())?.len(), hooks.len());
    assert_eq!(bpftool::attached(one.path())?, Vec::<String>::new());
    Ok(())
}

#[test]
fn agent_whose_cgroup_was_recreated_serves_the_new_one() -> TestResult {
    let lab = Lab::start(2)?;
    let (host, sim) = (lab.host(1), lab.sim()?);
    let _replica = lab.replica(2, 8001, "a")?;
    sim.app(APP, SERVICE.port(), &[(2, 8001)])?;
    for _ in 0..2 {
        let cgroup = host.cgroup().child("service")?;
        let mut agent = host.agent_for(&cgroup, &lab.marathon_url(), &[])?;
        host.agent_ready(PATIENCE)?;
        assert_eq!(host.tcp_client_in(&cgroup)?.tell(&format!("connect c {SERVICE}"))?, "ok");
        agent.kill9()?;
    }
    Ok(())
}

#[test]
fn removed_cgroup_is_reported_and_next_agent_attaches_anew() -> TestResult {
    let lab = Lab::start(2)?;
    let (host, sim) = (lab.host(1), lab.sim()?);
    let _replica = lab.replica(2, 8001, "a")?;
    sim.app(APP, SERVICE.port(), &[(2, 8001)])?;
    let cgroup = host.cgroup().child("service")?;
    let mut agent = host.agent_for(&cgroup, &lab.marathon_url(), &[])?;
    host.agent_ready(PATIENCE)?;
    lab.proxymatic(&["hook", "show"])?.well()?;

    drop(cgroup);
    // The kernel removes a cgroup a moment after its folder.
    let wrong = eventually_ok("the hooks no longer run", PATIENCE, || {
        let shown = lab.proxymatic(&["hook", "show"])?;
        ensure!(shown.status.code() == Some(1), "{shown:?}");
        Ok(lab.proxymatic(&["status"])?.stdout)
    })?;
    assert!(wrong.contains("connect4 is pinned but does not run: its cgroup was removed"), "{wrong}");
    let cgroup = host.cgroup().child("service")?;
    assert_eq!(host.tcp_client_in(&cgroup)?.tell(&format!("connect c {SERVICE}"))?, "ECONNREFUSED");

    agent.kill9()?;
    let _agent = host.agent_for(&cgroup, &lab.marathon_url(), &[])?;
    host.agent_ready(PATIENCE)?;
    assert_eq!(host.tcp_client_in(&cgroup)?.tell(&format!("connect c {SERVICE}"))?, "ok");
    assert_eq!(bpftool::attached(cgroup.path())?.len(), 12);
    lab.proxymatic(&["hook", "show"])?.well()?;
    Ok(())
}
