//! A second agent on the same pins: it names the first one and exits, and the first one goes on.

use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE};

use crate::fixtures::cluster::Cluster;

#[test]
fn second_agent_names_the_lock_holder_and_the_first_goes_on() -> TestResult {
    let lab = Lab::start(2)?;
    let mut web = Cluster::start(&lab, 1)?;
    let second = lab.agent(&[])?.finish(PATIENCE)?;
    assert_eq!(second.status.code(), Some(2), "{second:?}");
    let who = format!("process {}", web.agent.pid()?);
    assert!(second.stderr.contains(&who), "{who}: {second:?}");

    web.scale()?;
    web.when_active(&[0, 1])?;
    web.answers_come_from(&["a", "b"])?;
    eventually_ok("all is well", PATIENCE, || lab.host(1).well())?;
    Ok(())
}
