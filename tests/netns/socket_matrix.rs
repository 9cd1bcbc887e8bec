//! Every kind of socket with every kind of service: which replica answers, which peer the program sees, and which
//! connects are refused.

mod row;

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, SocketProgram, binary, kernel};

use self::row::{Caller, Expected, Loopback, Row, SERVICES};
use crate::fixtures::word_replicas::WordReplicas;

/// How many failing rows are listed.
const TOLD: usize = 20;

#[test]
fn every_socket_kind_reaches_every_service_and_sees_its_peer() -> TestResult {
    // If the kernel cannot tell the host's loopback from a container's, both are served.
    let loopback = if kernel::tells_netns() { Loopback::Host } else { Loopback::All };
    let rows = row::all(loopback);
    // 9 addresses x 4 services x 3 kinds x 4 ways to bind x blocking or not, from the host and from a container.
    assert_eq!(rows.len(), 1728);
    if loopback == Loopback::Host {
        assert_eq!(tally(&rows), [("bound", 234), ("closed", 576), ("no family", 304), ("served", 614)].into());
    }
    attempt(&rows, loopback)?;
    Ok(())
}

#[test]
fn container_loopback_with_option_serves_every_socket_kind() -> TestResult {
    let rows: Vec<_> = row::all(Loopback::All).into_iter().filter(Row::is_own_loopback_of_a_container).collect();
    assert_eq!(rows.len(), 576);
    attempt(&rows, Loopback::All)?;
    Ok(())
}

/// Makes every attempt, and asserts that the counts are those of the rows.
fn attempt(rows: &[Row], loopback: Loopback) -> Result<()> {
    let lab = Lab::start(3)?;
    let _services = WordReplicas::start(&lab, &SERVICES, &["--loopback", loopback.flag()])?;
    // A container is a network namespace of its own in a cgroup below the served one.
    let cgroup = lab.host(1).cgroup().child("container")?;
    let program = binary("connect-variants")?;
    let mut host = lab.host(1).program_in(lab.host(1).cgroup(), &program, &[])?;
    let mut container = lab.host(3).program_in(&cgroup, &program, &[])?;
    let before = refusals(&lab)?;
    let mut wrong = Vec::new();
    for row in rows {
        let caller = match row.caller {
            Caller::Host => &mut host,
            Caller::Container => &mut container,
        };
        wrong.extend(row_is_wrong(caller, row)?);
    }
    let told = wrong.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join("\n");
    ensure!(wrong.is_empty(), "{} of {} rows are wrong:\n{told}", wrong.len(), rows.len());

    let after = refusals(&lab)?;
    let expected = |wanted| rows.iter().filter(|row| row.expected() == wanted).count() as u64;
    ensure!(
        [after[0] - before[0], after[1] - before[1]] == [expected(Expected::NoFamily), expected(Expected::Bound)],
        "no_backend, bound_loopback: {before:?}, then {after:?}"
    );
    let backends: Vec<_> = lab.host(1).services()?.into_iter().flat_map(|service| service.backends).collect();
    let (open, ever) = backends.iter().fold((0, 0), |(open, ever), it| (open + it.active, ever + it.total));
    let served = rows.iter().filter(|row| matches!(row.expected(), Expected::Served { .. })).count() as u64;
    ensure!((open, ever) == (0, served), "{open} open and {ever} ever, for {served} that were served");
    Ok(())
}

/// Returns a description of the row and its outcome, if the outcome is not the expected one.
fn row_is_wrong(caller: &mut SocketProgram, row: &Row) -> Result<Option<String>> {
    let said = caller.tell(&row.order())?;
    Ok((!row.is_right(&said)).then(|| format!("{row:?}: {said}, not {}", row.wanted())))
}

fn refusals(lab: &Lab) -> Result<[u64; 2]> {
    Ok([lab.host(1).verdict("no_backend")?, lab.host(1).verdict("bound_loopback")?])
}

/// Counts the rows by expected outcome.
fn tally(rows: &[Row]) -> BTreeMap<&'static str, usize> {
    let mut tally = BTreeMap::new();
    for row in rows {
        *tally.entry(row.expected().name()).or_default() += 1;
    }
    tally
}
