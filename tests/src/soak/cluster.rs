//! The cluster of the soak: three hosts, a simulated Marathon, an agent with clients on the first host, and three
//! services.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use super::allowed_failures::{self, EndedReplica};
use super::replicas::{Member, Replicas, now};
use super::report::Report;
use crate::eventually::{eventually_ok, until};
use crate::lab::{Lab, Load, Sim, binary};
use crate::process::Process;
use crate::summary::Summary;

/// The number of replicas of a service at the beginning and at the end.
pub(super) const CREW: usize = 3;
/// The agent retries a failing Marathon after 20 s at most; a busy machine adds to that.
const PATIENCE: Duration = Duration::from_secs(60);
/// Timeout of a UDP reply, in milliseconds: longer than a busy machine delays it.
const ANSWER: &str = "10000";
/// Datagrams after which no socket uses a removed replica: each socket sends several of them.
const WITHOUT: u64 = 200;
/// The first port of replicas, below the ephemeral ports. A port is not reused for a while.
const PORTS: std::ops::Range<u16> = 10_000..30_000;

/// Everything that runs.
#[derive(Debug)]
pub(super) struct Cluster<'lab> {
    pub(super) lab: &'lab Lab,
    pub(super) sim: Sim<'lab>,
    pub(super) crews: Vec<Replicas>,
    agent: Option<Process>,
    /// The program itself and a copy of it, which replace each other.
    programs: [PathBuf; 2],
    ended: Vec<EndedReplica>,
    started: u16,
}

/// The clients of one round.
#[derive(Debug)]
pub(super) struct Clients(Vec<(u16, bool, Load)>);

impl<'lab> Cluster<'lab> {
    /// Starts it, and returns when all replicas are served.
    pub(super) fn start(lab: &'lab Lab) -> Result<Self> {
        let program = binary("proxymatic")?;
        let copy = lab.run_dir().join("proxymatic-next");
        fs::copy(&program, &copy).with_context(|| format!("copy {}", program.display()))?;
        let crew = |app, port, udp| Replicas { app, port, udp, members: Vec::new() };
        let crews = vec![crew("/soak/web", 1234, false), crew("/soak/api", 1235, false), crew("/soak/dns", 1236, true)];
        let mut cluster =
            Self { lab, sim: lab.sim()?, crews, agent: None, programs: [program, copy], ended: Vec::new(), started: 0 };
        for of in 0..cluster.crews.len() {
            let members = cluster.recruit(of, CREW)?;
            let crew = &mut cluster.crews[of];
            let places: Vec<_> = members.iter().map(Member::place).collect();
            let protocol = if crew.udp { "udp" } else { "tcp" };
            let app = json!({ "id": crew.app, "servicePort": crew.port, "protocol": protocol, "mode": "host", "tasks": places });
            let answer = cluster.sim.control("apps", &app)?;
            crew.join(members, &answer["tasks"])?;
        }
        cluster.start_agent()?;
        cluster.settle()?;
        Ok(cluster)
    }

    /// Starts processes of new replicas, on host 2 and 3 in turn.
    pub(super) fn recruit(&mut self, of: usize, count: usize) -> Result<Vec<Member>> {
        let (lab, crew) = (self.lab, &self.crews[of]);
        let word = crew.app.rsplit('/').next().unwrap_or_default();
        let mut members = Vec::new();
        for _ in 0..count {
            let nth = self.started;
            self.started += 1;
            let port = PORTS.start + nth % (PORTS.end - PORTS.start);
            members.push(Member::start(lab, crew.udp, 2 + (nth % 2) as u8, port, format!("{word}{nth}"))?);
        }
        Ok(members)
    }

    /// Records that a replica has ended.
    pub(super) fn note(&mut self, ended: EndedReplica) {
        self.ended.push(ended);
    }

    /// Returns the replicas that have ended since the last call.
    pub(super) fn take_ended(&mut self) -> Vec<EndedReplica> {
        std::mem::take(&mut self.ended)
    }

    /// Waits until exactly the replicas of one service get connections.
    pub(super) fn settle_one(&self, of: usize) -> Result<()> {
        let crew = &self.crews[of];
        eventually_ok(&format!("exactly the replicas of {} are served", crew.app), PATIENCE, || {
            let service = self.lab.host(1).service(crew.app)?;
            let all = crew.members.iter().all(|member| service.is_active(member.address));
            ensure!(all && service.backends.len() == crew.members.len(), "{service:?}, not {:?}", crew.members);
            Ok(())
        })
    }

    /// Waits until exactly the replicas of all services get connections.
    pub(super) fn settle(&self) -> Result<()> {
        (0..self.crews.len()).try_for_each(|of| self.settle_one(of))
    }

    /// Waits until the status has no warnings.
    pub(super) fn well(&self) -> Result<()> {
        eventually_ok("all is well", PATIENCE, || self.lab.host(1).well().map(drop))
    }

    /// Starts the agent, and returns when it serves Marathon's apps.
    pub(super) fn start_agent(&mut self) -> Result<()> {
        let (host, marathon) = (self.lab.host(1), self.lab.marathon_url());
        self.agent = Some(host.agent_program(&self.programs[0], host.cgroup(), &["--marathon", &marathon])?);
        host.agent_ready(PATIENCE)
    }

    /// Kills the agent by SIGKILL.
    pub(super) fn kill_agent(&mut self) -> Result<()> {
        self.agent.take().context("no agent")?.kill9().map(drop)
    }

    /// Stops the agent by SIGTERM; the next one is the other program.
    pub(super) fn stop_agent(&mut self) -> Result<()> {
        let left = self.agent.take().context("no agent")?.terminate(PATIENCE)?;
        ensure!(left.success(), "the agent that was asked to stop failed: {left}");
        self.programs.reverse();
        Ok(())
    }

    /// Returns the agent's private memory in kB; the maps belong to the kernel.
    pub(super) fn memory(&self) -> Result<u64> {
        let pid = self.agent.as_ref().context("no agent")?.pid()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).context("no RssAnon")?;
        line.trim().trim_end_matches(" kB").parse().with_context(|| format!("RssAnon is {line:?}"))
    }

    /// Returns the number of entries of each map.
    pub(super) fn fill(&self) -> Result<BTreeMap<String, u64>> {
        let status = self.lab.host(1).status()?;
        let maps = status["maps"].as_array().context("no maps in the status")?;
        let fill = |map: &serde_json::Value| Some((map["map"].as_str()?.to_owned(), map["used"].as_u64()?));
        maps.iter().map(|map| fill(map).with_context(|| format!("{map}"))).collect()
    }

    /// Returns the count of each verdict that was counted.
    pub(super) fn verdicts(&self) -> Result<BTreeMap<String, u64>> {
        let all: BTreeMap<String, u64> = serde_json::from_value(self.lab.host(1).verdicts()?)?;
        Ok(all.into_iter().filter(|(_, count)| *count > 0).collect())
    }

    /// Starts clients of all services.
    pub(super) fn clients(&self) -> Result<Clients> {
        let load = |crew: &Replicas| {
            let host = self.lab.host(1);
            let load = if crew.udp {
                let sockets = ["--connected", "4", "--unconnected", "4", "--timeout", ANSWER];
                host.udp_load(([127, 0, 0, 1], crew.port).into(), &sockets)
            } else {
                // Each request takes a while, so that some are always open.
                let url = format!("http://localhost:{}/slow?ms=5", crew.port);
                host.load(&url, &["--threads", "8", "--rate", "100", "--linger0"])
            };
            Ok((crew.port, crew.udp, load?))
        };
        self.crews.iter().map(load).collect::<Result<_>>().map(Clients)
    }

    /// Waits until the maps are as full as at the beginning: every quarantine is over, and no connection is counted.
    pub(super) fn is_as_it_was(&self, fill: &BTreeMap<String, u64>) -> Result<()> {
        eventually_ok("the maps are as full as in the beginning", PATIENCE, || {
            let (now, open) = (self.fill()?, self.lab.host(1).open_connections()?);
            ensure!(now == *fill, "{now:?}, not {fill:?}");
            ensure!(open == 0, "{open} connections are counted as open without any client");
            Ok(())
        })
    }
}

impl Clients {
    /// Waits until each client has done this many more requests.
    pub(super) fn reach(&self, more: u64) -> Result<()> {
        self.0.iter().try_for_each(|(.., load)| load.reaches(more).map(drop))
    }

    /// Waits until no socket of a UDP service uses this replica any more, whether or not it still answers: the agent
    /// has swept all namespaces.
    pub(super) fn leave_alone(&self, port: u16, replica: &str) -> Result<()> {
        let Some((.., load)) = self.0.iter().find(|(at, udp, _)| *udp && *at == port) else { return Ok(()) };
        let answered = |seen: &Summary| seen.by_replica.get(replica).copied().unwrap_or(0);
        eventually_ok(&format!("no socket uses {replica}"), PATIENCE, || {
            let (begun, before) = (now(), answered(&load.so_far()?));
            let seen = load.reaches(WITHOUT)?;
            ensure!(answered(&seen) == before, "it has answered {} times", answered(&seen) - before);
            let failed = seen.failures.iter().find(|failure| failure.at > begun);
            ensure!(failed.is_none(), "{failed:?}");
            Ok(())
        })
    }

    /// Ends the clients, and judges their failures.
    pub(super) fn finish(self, ended: &[EndedReplica], report: &mut Report) -> Result<()> {
        for (port, udp, load) in self.0 {
            let seen = load.finish()?;
            let judged =
                if udp { allowed_failures::udp(port, &seen, ended) } else { allowed_failures::tcp(port, &seen, ended) };
            report.saw(udp, &seen, judged);
        }
        Ok(())
    }
}

/// Waits for a while, so that two changes are independent.
pub(super) fn pass(time: Duration) {
    until(Instant::now() + time);
}
