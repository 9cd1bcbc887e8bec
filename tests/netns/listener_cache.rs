//! The agent's cache of listening ports: hooks look for a listener only if one may exist, and no listener is missed.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxymatic_common::{Frontend, PROTOCOL_TCP, PROTOCOL_UDP};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Lab, PATIENCE, SocketProgram, binary};
use proxymatic_user::dataplane::kernel::{Maps, Pins};
use serde_json::json;

use crate::fixtures::cluster::PORT;
use crate::fixtures::file_source::{FileSource, backend};

const REPLICA: &str = "10.77.0.2:8001";
const DESTINATION: &str = "127.0.0.1:1234";
/// The agent sweeps every ten seconds; this adds some to spare.
const ROUND: Duration = Duration::from_secs(13);

#[test]
fn listener_is_known_from_listen_until_close() -> TestResult {
    let lab = Lab::start(2)?;
    let stage = Stage::start(&lab)?;
    let mut client = stage.program()?;
    stage.hears([false, false])?;
    answers(&mut client, ["replica", "replica"])?;
    let mut stranger = stage.program()?;
    for listens in [DESTINATION, "[::]:1234"] {
        let mut stranger = stage.program()?;
        assert_eq!(stranger.tell(&format!("serve {listens} stranger"))?, "ok");
        // At once, without a sweep.
        answers(&mut client, ["stranger", "stranger"]).context(listens)?;
        // The sweep does not change that.
        Stage::looked(&mut client, ["stranger", "stranger"]).context(listens)?;
        assert_eq!(stage.heard(), [true, true]);
        stranger.kill9()?;
        answers(&mut client, ["replica", "replica"]).context(listens)?;
        stage.hears([false, false])?;
    }
    // A program that pauses between bind(2) and listen(2): a sweep in between sees no listener.
    let bound = lab.host(1).verdict("port_bound")?;
    assert_eq!(stranger.tell(&format!("bind {DESTINATION}"))?, "ok");
    // The bind marks the port until the next sweep clears the mark; the counter keeps the bind.
    assert_eq!(lab.host(1).verdict("port_bound")?, bound + 1);
    stage.hears([false, false])?;
    answers(&mut client, ["replica", "replica"])?;
    assert_eq!(stranger.tell("listen stranger")?, "ok");
    answers(&mut client, ["stranger", "replica"])?;
    Ok(())
}

#[test]
fn listener_that_no_hook_counted_is_found_by_a_sweep() -> TestResult {
    let lab = Lab::start(2)?;
    let stage = Stage::start(&lab)?;
    let mut client = stage.program()?;
    stage.hears([false, false])?;
    // This program is outside of the served cgroup.
    let listener = lab.host(1).net().enter(|| TcpListener::bind(DESTINATION))??;
    stage.hears([true, false])?;
    let before = lab.host(1).verdict("local_listener")?;
    // No program accepts the connection there.
    assert_eq!(lab.host(1).tcp_client()?.tell(&format!("connect c {DESTINATION}"))?, "ok");
    assert_eq!(lab.host(1).verdict("local_listener")?, before + 1);
    drop(listener);
    stage.hears([false, false])?;
    answers(&mut client, ["replica", "replica"])?;
    Ok(())
}

#[test]
fn listener_in_a_container_counts_if_its_localhost_is_served() -> TestResult {
    for loopback in ["host", "all"] {
        let lab = Lab::start(3)?;
        let stage = Stage::start_with(&lab, &["--loopback", loopback])?;
        let mut inside = lab.host(3).program_in(lab.host(1).cgroup(), &binary("connect-variants")?, &[])?;
        assert_eq!(inside.tell("serve 0.0.0.0:1234 inside")?, "ok");
        let mut client = stage.program()?;
        Stage::looked(&mut client, ["replica", "replica"])?;
        stage.hears([loopback == "all"; 2])?;
        let mut neighbour = lab.host(3).program_in(lab.host(1).cgroup(), &binary("connect-variants")?, &[])?;
        answers(&mut neighbour, ["inside", "inside"])?;
    }
    Ok(())
}

/// A service for each protocol on one port, with a replica on host 2.
struct Stage<'lab> {
    lab: &'lab Lab,
    maps: Maps,
    /// By protocol.
    ids: [u32; 2],
    _agent: FileSource<'lab>,
    _replica: SocketProgram,
}

impl<'lab> Stage<'lab> {
    fn start(lab: &'lab Lab) -> Result<Self> {
        Self::start_with(lab, &[])
    }

    fn start_with(lab: &'lab Lab, more: &[&str]) -> Result<Self> {
        let mut replica = lab.host(2).program_in(lab.host(1).cgroup(), &binary("connect-variants")?, &[])?;
        ensure!(replica.tell(&format!("serve {REPLICA} replica"))? == "ok");
        let places = [backend(REPLICA.parse()?)];
        let service = |protocol| json!({ "name": protocol, "port": PORT, "protocol": protocol, "backends": places });
        let agent = FileSource::start(lab, &["tcp", "udp"].map(service), more)?;
        let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
        let tables = maps.tables()?;
        let id = |protocol| {
            let is = |it: &Frontend| it.protocol == protocol;
            let id = tables.frontends().iter().find_map(|(frontend, id)| is(frontend).then_some(*id));
            id.context("no service")
        };
        let ids = [id(PROTOCOL_TCP)?, id(PROTOCOL_UDP)?];
        Ok(Self { lab, maps, ids, _agent: agent, _replica: replica })
    }

    /// Starts a program in the host's namespace and in the served cgroup.
    fn program(&self) -> Result<SocketProgram> {
        self.lab.host(1).program_in(self.lab.host(1).cgroup(), &binary("connect-variants")?, &[])
    }

    /// Whether a listener may exist, over TCP and UDP.
    fn heard(&self) -> [bool; 2] {
        self.ids.map(|id| self.maps.service_load(id).is_none_or(|load| load.may_have_listener()))
    }

    /// Waits until that is so.
    fn hears(&self, expected: [bool; 2]) -> Result<()> {
        eventually_ok("the agent knows the listeners", ROUND + PATIENCE, || {
            let heard = self.heard();
            ensure!(heard == expected, "{heard:?}, not {expected:?}");
            Ok(())
        })
    }

    /// Asserts that these answer until the agent has swept at least once more.
    fn looked(client: &mut SocketProgram, who: [&str; 2]) -> Result<()> {
        let until = Instant::now() + ROUND;
        while Instant::now() < until {
            answers(client, who)?;
        }
        Ok(())
    }
}

/// Asserts that each of a few connections and datagrams reaches this replica.
fn answers(client: &mut SocketProgram, who: [&str; 2]) -> Result<()> {
    for (way, who) in ["tcp", "udp"].into_iter().zip(who) {
        for _ in 0..8 {
            let said = client.tell(&format!("try {way} {DESTINATION}"))?;
            ensure!(said.starts_with(&format!("{who} ")), "{way}: {said}, not {who}");
        }
    }
    Ok(())
}
