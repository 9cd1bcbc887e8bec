//! Affinity: a client stays with its backend for so long after its last connection.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::cgroup::Cgroup;
use proxymatic_tests::eventually::until;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Dialer, Lab};
use serde_json::json;

use crate::served::SERVICE;
use crate::written::{Written, backends, replicas, service};

const LASTS: Duration = Duration::from_secs(2);
const CLIENTS: u8 = 12;

#[test]
fn a_client_stays_with_its_backend_while_it_connects_within_the_time_and_then_is_free_again() -> TestResult {
    let lab = Lab::start(2)?;
    let replicas = replicas(&lab, 4)?;
    let sticky = [("policy", json!("random")), ("affinity", json!("2s"))];
    let _agent = Written::start(&lab, &[service(&backends(&replicas), &sticky)], &[])?;
    let (_cgroups, mut clients) = clients(&lab)?;
    let first = answers(&mut clients)?;
    assert!(first.iter().collect::<BTreeSet<_>>().len() > 1, "clients of their own: {first:?}");

    // Longer than the time, but with less than that between two connections.
    let begun = Instant::now();
    while begun.elapsed() < LASTS * 2 {
        assert_eq!(answers(&mut clients)?, first);
        until(Instant::now() + LASTS / 4);
    }
    until(Instant::now() + LASTS + Duration::from_millis(100));
    let later = answers(&mut clients)?;
    // By chance all of them stay once in 4^12 runs.
    assert_ne!(later, first);
    assert_eq!(answers(&mut clients)?, later);
    println!("affine {}, drawn {}", lab.host(1).verdict("affine")?, lab.host(1).verdict("translated")?);
    assert_eq!(lab.host(1).verdict("translated")?, 2 * u64::from(CLIENTS));
    Ok(())
}

#[test]
fn a_client_whose_backend_dies_loses_one_connection_and_stays_with_another() -> TestResult {
    let lab = Lab::start(2)?;
    let mut replicas = replicas(&lab, 4)?;
    let sticky = [("policy", json!("random")), ("affinity", json!("1h"))];
    let _agent = Written::start(&lab, &[service(&backends(&replicas), &sticky)], &[])?;
    let mut client = lab.host(1).dialer()?;
    let first = who(&mut client)?;
    let nth = ["a", "b", "c", "d"].iter().position(|name| *name == first).context("a strange name")?;
    replicas[nth].process.kill9()?;
    assert_eq!(client.tell(&format!("who 1 {SERVICE}"))?, "ECONNREFUSED");
    let second = who(&mut client)?;
    assert_ne!(second, first);
    // Where the first answers again, the client is another's by now.
    let _back = lab.replica(2, replicas[nth].address.port(), &first)?;
    until(Instant::now() + Duration::from_secs(1));
    assert_eq!(who(&mut client)?, second);
    Ok(())
}

fn clients(lab: &Lab) -> Result<(Vec<Cgroup>, Vec<Dialer>)> {
    let cgroups: Vec<_> =
        (0..CLIENTS).map(|nth| lab.host(1).cgroup().child(&format!("client{nth}"))).collect::<Result<_>>()?;
    let clients = cgroups.iter().map(|cgroup| lab.host(1).dialer_in(cgroup)).collect::<Result<_>>()?;
    Ok((cgroups, clients))
}

fn answers(clients: &mut [Dialer]) -> Result<Vec<String>> {
    clients.iter_mut().map(who).collect()
}

/// Who answers this client; fails where it is not one replica ten times.
fn who(client: &mut Dialer) -> Result<String> {
    let said = client.tell(&format!("who 10 {SERVICE}"))?;
    let names: BTreeSet<_> = said.split(' ').collect();
    ensure!(names.len() == 1, "{said}");
    Ok(names.into_iter().collect())
}
