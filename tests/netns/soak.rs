//! Half a minute of the soak with a fixed seed; `cargo xtask soak` runs it for any time.

use std::time::Duration;

use proxymatic_tests::failure::TestResult;
use proxymatic_tests::soak::{Options, run};

#[test]
fn random_changes_fail_only_connections_of_killed_replicas() -> TestResult {
    let report = run(&Options { seed: 1, time: Duration::from_secs(30), say: |line| println!("{line}") })?;
    println!("{report}");
    assert!(report.faults.is_empty(), "{report}");
    Ok(())
}
