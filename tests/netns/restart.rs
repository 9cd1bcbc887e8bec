//! The agent crashes and restarts at any moment: traffic goes on, and changes in between are applied.

use anyhow::{Result, ensure};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};
use serde_json::json;

use crate::fixtures::cluster::{APP, Cluster, SERVICE, URL, place};

const CRASHES: usize = 10;

#[test]
fn ten_agent_crashes_under_load_fail_no_connect() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    let load = lab.load(URL, &["--threads", "8", "--linger0"])?;
    for _ in 0..CRASHES {
        web.agent.kill9()?;
        load.reaches(200)?;
        web.start_agent()?;
        load.reaches(200)?;
    }
    let seen = load.finish()?;
    assert_eq!(seen.failed, 0, "{seen:?}");
    assert!(seen.by_replica.keys().eq(["a", "b"]), "{seen:?}");
    println!("{} connects over {CRASHES} crashes, none failed", seen.ok);
    Ok(())
}

/// When the agent crashes during a replacement of all tasks, as seen from outside. Module `crash_before_write` tests
/// each write.
const MOMENTS: [fn(&Cluster<'_>, usize) -> Result<()>; 4] = [
    // Marathon has the new tasks; the agent may not.
    |_, _| Ok(()),
    // The agent has read them, and writes.
    |web, _| {
        eventually_ok("the agent has read of it", PATIENCE, || {
            ensure!(web.agent.logged("modified")? > 0, "{}", web.agent.log());
            Ok(())
        })
    },
    // The maps have some of them.
    |web, first| {
        let new = web.replicas[first].address;
        web.lab.service_when("a new backend is there", APP, |service| service.is_active(new)).map(drop)
    },
    // All is published.
    |web, first| web.when_active(&[first, first + 1]).map(drop),
];

#[test]
fn crash_in_a_replacement_is_completed_and_fails_no_connect() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    web.scale()?;
    web.scale()?;
    web.when_active(&[0, 1, 2, 3])?;
    let load = lab.load(URL, &["--threads", "4", "--linger0"])?;
    for crash in 0..CRASHES {
        let which = if crash % 2 == 0 { [0, 1] } else { [2, 3] };
        let places = which.map(|nth| place(web.replicas[nth].address));
        web.sim.control("replace", &json!({ "app": APP, "tasks": places }))?;
        MOMENTS[crash % MOMENTS.len()](&web, which[0])?;
        web.agent.kill9()?;
        load.reaches(50)?;
        web.start_agent()?;
        web.when_active(&which)?;
    }
    let seen = load.finish()?;
    assert_eq!(seen.failed, 0, "{seen:?}");
    web.answers_come_from(&["c", "d"])?;
    Ok(())
}

#[test]
fn open_connection_survives_a_crash_and_stays_counted() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    let mut client = lab.host(1).tcp_client()?;
    assert_eq!(client.hold("c", 4, SERVICE)?, ["ok"; 4]);
    web.agent.kill9()?;
    web.start_agent()?;
    assert_eq!(lab.host(1).open_connections()?, 4);
    for nth in 1..=4 {
        assert_eq!(client.tell(&format!("peer c{nth}"))?, SERVICE.to_string());
        let answer = client.tell(&format!("ask c{nth}"))?;
        assert!(["a", "b"].contains(&answer.as_str()), "{answer}");
        assert_eq!(client.tell(&format!("close c{nth}"))?, "ok");
    }
    assert_eq!(lab.host(1).open_connections()?, 0);
    Ok(())
}

#[test]
fn task_changes_without_agent_are_applied_after_restart() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    web.agent.kill9()?;
    // The first task's process goes on, so that a late connection to it is detected.
    web.sim.state(&web.tasks[0], "TASK_KILLED")?;
    web.scale()?;
    web.answers_come_from(&["a", "b"])?;
    web.start_agent()?;
    web.when_active(&[1, 2])?;
    web.answers_come_from(&["b", "c"])?;
    Ok(())
}

#[test]
fn agent_after_sigterm_leaves_the_data_plane() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 2)?;
    assert!(web.agent.terminate(PATIENCE)?.success());
    web.answers_come_from(&["a", "b"])?;
    let status = lab.proxymatic(&["status"])?;
    assert_eq!(status.status.code(), Some(1), "{status:?}");
    assert!(status.stdout.contains("no agent answers"), "{status:?}");
    Ok(())
}
