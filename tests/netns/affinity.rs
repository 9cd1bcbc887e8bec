//! Affinity: a client stays with its backend until the affinity time has passed since its last connection.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use proxymatic_tests::cgroup::Cgroup;
use proxymatic_tests::eventually::until;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, SocketProgram};
use serde_json::json;

use crate::fixtures::cluster::{SERVICE, eject_for_an_hour};
use crate::fixtures::file_source::{FileSource, backends, replicas, service};

/// The affinity time.
const LASTS: Duration = Duration::from_secs(4);
/// The hooks do not note each connection of a client, so its time may be over an eighth earlier: see `route.rs`.
const LASTS_AT_LEAST: Duration = Duration::from_millis(3500);
/// At random, all clients get the same one of four backends with probability 1/4^17, less than 1e-10.
const CLIENTS: u8 = 18;
/// How many connections each client opens at a time.
const CONNECTIONS: u8 = 3;

#[test]
fn client_keeps_its_backend_until_idle_for_the_affinity_time() -> TestResult {
    let lab = Lab::start(2)?;
    let replicas = replicas(&lab, 4)?;
    let lasts = format!("{}s", LASTS.as_secs());
    let sticky = [("policy", json!("random")), ("affinity", json!(lasts))];
    let _agent = FileSource::start(&lab, &[service(&backends(&replicas), &sticky)], &[])?;
    let (_cgroups, clients) = clients(&lab)?;
    let mut clients: Vec<_> = clients.into_iter().map(Sticky::new).collect();
    ask_all(&mut clients)?;
    let first = names(&clients);
    assert!(first.iter().collect::<BTreeSet<_>>().len() > 1, "clients of their own: {first:?}");

    // Together longer than the affinity time, with less than it between two connections.
    let begun = Instant::now();
    while begun.elapsed() < LASTS * 2 {
        ask_all(&mut clients)?;
        until(Instant::now() + LASTS / 8);
    }
    let last = names(&clients);
    until(Instant::now() + LASTS + Duration::from_millis(100));
    ask_all(&mut clients)?;
    // At random, all clients stay with probability 1/4^18.
    assert_ne!(names(&clients), last);
    let (least, most) = clients.iter().fold((0, 0), |(least, most), it| (least + it.drawn, most + it.maybe_drawn));
    let drawn = lab.host(1).verdict("translated")?;
    println!("affinity_hit {}, drawn {drawn}: {least} to {most} by the times", lab.host(1).verdict("affinity_hit")?);
    // Each client was idle for the affinity time once, and on a busy machine more than once.
    assert!(least >= 2 * u64::from(CLIENTS) && (least..=most).contains(&drawn), "{drawn}, not {least} to {most}");
    Ok(())
}

#[test]
fn client_of_a_dead_backend_loses_one_connection_and_moves() -> TestResult {
    let lab = Lab::start(2)?;
    let mut replicas = replicas(&lab, 4)?;
    let sticky = [("policy", json!("random")), ("affinity", json!("1h"))];
    let mut agent = FileSource::start(&lab, &[service(&backends(&replicas), &sticky)], &[])?;
    let mut client = lab.host(1).tcp_client()?;
    let first = who(&mut client)?;
    let nth = ["a", "b", "c", "d"].iter().position(|name| *name == first).context("an unexpected name")?;
    // While it is stopped, the agent does not replace the long ejection by one for seconds.
    agent.agent.signal(Signal::SIGSTOP)?;
    replicas[nth].process.kill9()?;
    assert_eq!(client.tell(&format!("who 1 {SERVICE}"))?, "ECONNREFUSED");
    eject_for_an_hour(&lab, replicas[nth].address)?;
    let second = who(&mut client)?;
    assert_ne!(second, first);
    agent.agent.signal(Signal::SIGCONT)?;
    assert_eq!(lab.host(1).verdict("ejected")?, 1);
    // If the first backend answers again, the client already has another one.
    let _back = lab.replica(2, replicas[nth].address.port(), &first)?;
    agent.agent.logs("readmitted", 1, PATIENCE)?;
    assert_eq!(who(&mut client)?, second);
    Ok(())
}

fn clients(lab: &Lab) -> Result<(Vec<Cgroup>, Vec<SocketProgram>)> {
    let cgroups: Vec<_> =
        (0..CLIENTS).map(|nth| lab.host(1).cgroup().child(&format!("client{nth}"))).collect::<Result<_>>()?;
    let clients = cgroups.iter().map(|cgroup| lab.host(1).tcp_client_in(cgroup)).collect::<Result<_>>()?;
    Ok((cgroups, clients))
}

/// A client whose connections the test times. Only the kernel knows when it chose a backend, so each time between two
/// choices has a lower and an upper bound.
struct Sticky {
    client: SocketProgram,
    /// Which replica answered, and the start and end of that request.
    last: Option<(String, Instant, Instant)>,
    /// How many choices of a backend must have happened.
    drawn: u64,
    /// How many choices of a backend may have happened.
    maybe_drawn: u64,
}

impl Sticky {
    fn new(client: SocketProgram) -> Self {
        Self { client, last: None, drawn: 0, maybe_drawn: 0 }
    }

    /// Opens a connection and asserts that the last backend answers, unless the affinity time may be over.
    fn ask(&mut self) -> Result<()> {
        let from = Instant::now();
        let name = self.client.tell(&format!("who 1 {SERVICE}"))?;
        let to = Instant::now();
        ensure!(["a", "b", "c", "d"].contains(&name.as_str()), "{name}");
        let (is_over, may_be_over) = match &self.last {
            Some((last, last_from, last_to)) => {
                let (is_over, may_be_over) = (from - *last_to > LASTS, to - *last_from > LASTS_AT_LEAST);
                ensure!(may_be_over || name == *last, "moved from {last} to {name} within {:?}", to - *last_from);
                (is_over, may_be_over)
            }
            None => (true, true),
        };
        self.drawn += u64::from(is_over);
        self.maybe_drawn += u64::from(may_be_over);
        self.last = Some((name, from, to));
        Ok(())
    }
}

fn ask_all(clients: &mut [Sticky]) -> Result<()> {
    clients.iter_mut().try_for_each(|client| (0..CONNECTIONS).try_for_each(|_| client.ask()))
}

/// The replica that last answered each client.
fn names(clients: &[Sticky]) -> Vec<String> {
    clients.iter().filter_map(|it| Some(it.last.as_ref()?.0.clone())).collect()
}

/// Returns the replica that answers this client; fails unless it is the same one ten times.
fn who(client: &mut SocketProgram) -> Result<String> {
    let said = client.tell(&format!("who 10 {SERVICE}"))?;
    let names: BTreeSet<_> = said.split(' ').collect();
    ensure!(names.len() == 1, "{said}");
    Ok(names.into_iter().collect())
}
