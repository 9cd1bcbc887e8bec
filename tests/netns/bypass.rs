//! Bypass of the hooks: excluded cgroups, marked sockets, and the agent itself.

use anyhow::Result;
use proxymatic_tests::cgroup::Cgroup;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};

use crate::allow_list::name;
use crate::fixtures::cluster::{APP, SERVICE};
use crate::fixtures::file_source::{FileSource, backends, replicas, service};

#[test]
fn excluded_cgroup_and_its_children_bypass_the_hooks() -> TestResult {
    let lab = Lab::start(2)?;
    let host = lab.host(1).cgroup();
    let (excluded, other) = (host.child("excluded")?, host.child("other")?);
    let below = excluded.child("below")?;
    let replicas = replicas(&lab, 1)?;
    let services = [service(&backends(&replicas), &[])];
    let _agent = FileSource::start(&lab, &services, &["--exclude-cgroup", &name(&excluded)?])?;
    let connect = |cgroup: &Cgroup| lab.host(1).tcp_client_in(cgroup)?.tell(&format!("connect c {SERVICE}"));
    let said = [host, &excluded, &other, &below].map(connect).into_iter().collect::<Result<Vec<_>>>()?;
    // Nothing listens on the service port itself, so a bypassing connect is refused.
    assert_eq!(said, ["ok", "ECONNREFUSED", "ok", "ECONNREFUSED"]);
    assert_eq!((lab.host(1).verdict("bypassed")?, lab.host(1).verdict("translated")?), (2, 2));
    Ok(())
}

#[test]
fn socket_with_the_bypass_mark_only_bypasses_the_hooks() -> TestResult {
    let lab = Lab::start(2)?;
    let replicas = replicas(&lab, 1)?;
    let services = [service(&backends(&replicas), &[])];
    let _agent = FileSource::start(&lab, &services, &["--bypass-mark", "0x2a"])?;
    let mut client = lab.host(1).tcp_client()?;
    for (mark, expected) in [(0, "ok"), (0x2a, "ECONNREFUSED"), (0x2b, "ok")] {
        assert_eq!(client.tell(&format!("mark c{mark} {mark}"))?, "ok");
        assert_eq!(client.tell(&format!("connect c{mark} {SERVICE}"))?, expected, "{mark:#x}");
    }
    assert_eq!((lab.host(1).verdict("bypassed")?, lab.host(1).verdict("translated")?), (1, 2));
    Ok(())
}

#[test]
fn agent_reaches_a_marathon_on_a_local_service_port() -> TestResult {
    let lab = Lab::start(2)?;
    let sim = lab.sim()?;
    let replicas = replicas(&lab, 2)?;
    // Marathon listens here. The bypass must not depend on this listener.
    sim.app(APP, 8080, &[(2, replicas[0].address.port())])?;
    let wins = ["--local-listener", "service-wins"];
    let marathon = (lab.host(1).address(), 8080).into();
    let mut client = lab.host(1).tcp_client()?;
    for agents in 1..=2 {
        let mut agent = lab.agent(&wins)?;
        lab.host(1).agent_ready(PATIENCE)?;
        lab.service_when("its replica gets connections", APP, |web| web.active().count() == agents)?;
        let said = client.hold(&format!("c{agents}-"), 1, marathon)?;
        assert_eq!((said, client.tell(&format!("ask c{agents}-1"))?.len()), (vec!["ok".to_owned()], 1));
        if agents == 1 {
            // The next agent finds the hooks attached and the service published before its first request.
            agent.kill9()?;
            sim.task(APP, 2, replicas[1].address.port())?;
        }
    }
    assert!(lab.host(1).verdict("bypassed")? > 0);
    Ok(())
}
