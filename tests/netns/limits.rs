//! `maxconn`: how many connections a task may have from this host.

use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::Lab;

use crate::served::{SERVICE, Served};

#[test]
fn the_fifth_connection_to_two_tasks_of_maxconn_two_is_refused_and_a_close_admits_one() -> TestResult {
    let lab = Lab::start(2)?;
    let web = Served::labelled(&lab, 2, &[("maxconn", "2")])?;
    let mut client = lab.host(1).dialer()?;
    assert_eq!(client.hold("c", 5, SERVICE)?, ["ok", "ok", "ok", "ok", "ECONNREFUSED"]);
    assert_eq!(lab.host(1).verdict("backends_full")?, 1);
    let full = web.when_states(&["full", "full"])?;
    assert!(full.backends.iter().all(|backend| backend.active == 2), "{full:?}");

    assert_eq!(client.tell("close c1")?, "ok");
    assert_eq!(client.hold("d", 2, SERVICE)?, ["ok", "ECONNREFUSED"]);
    assert_eq!(lab.host(1).verdict("backends_full")?, 2);
    Ok(())
}
