//! The agent started for another cgroup, on the same pins: hooks go over, and nothing stays behind.

use proxymatic_tests::cgroup::Cgroup;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};

use crate::bpftool;
use crate::served::{APP, SERVICE};

#[test]
fn an_agent_started_for_another_cgroup_serves_that_one_and_no_longer_the_first() -> TestResult {
    let lab = Lab::start(2)?;
    let (host, sim) = (lab.host(1), lab.sim()?);
    let (one, two) = (host.cgroup().child("one")?, host.cgroup().child("two")?);
    let _replica = lab.replica(2, 8001, "a")?;
    sim.app(APP, SERVICE.port(), &[(2, 8001)])?;
    let connect = |cgroup: &Cgroup| host.dialer_in(cgroup)?.tell(&format!("connect c {SERVICE}"));

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
fn an_agent_whose_cgroup_was_made_anew_serves_the_new_one() -> TestResult {
    let lab = Lab::start(2)?;
    let (host, sim) = (lab.host(1), lab.sim()?);
    let _replica = lab.replica(2, 8001, "a")?;
    sim.app(APP, SERVICE.port(), &[(2, 8001)])?;
    for _ in 0..2 {
        let cgroup = host.cgroup().child("service")?;
        let mut agent = host.agent_for(&cgroup, &lab.marathon_url(), &[])?;
        host.agent_ready(PATIENCE)?;
        assert_eq!(host.dialer_in(&cgroup)?.tell(&format!("connect c {SERVICE}"))?, "ok");
        agent.kill9()?;
    }
    Ok(())
}
