//! The cluster of the demo: the simulated Marathon, the replicas with their tasks, the agent.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use proxymatic_tests::eventually::until;
use proxymatic_tests::lab::{Lab, Replica, Service, Sim};
use proxymatic_tests::process::Process;
use proxymatic_tests::summary::Summary;

pub(crate) const APP: &str = "/demo/web";
pub(crate) const SERVICE_PORT: u16 = 1234;
pub(crate) const URL: &str = "http://localhost:1234/";
/// The kill grace period of Mesos: the time between TASK_KILLING and the end.
const GRACE: Duration = Duration::from_secs(1);
const LOG_LINES: usize = 60;

/// One replica of the app and its Mesos task.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) replica: Replica,
    pub(crate) task: String,
}

/// All processes, in the order in which they end.
#[derive(Debug)]
pub(crate) struct Cluster<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) agent: Option<Process>,
    pub(crate) members: BTreeMap<&'static str, Member>,
    sim: Option<Sim<'lab>>,
}

impl<'lab> Cluster<'lab> {
    pub(crate) fn new(lab: &'lab Lab) -> Self {
        Self { lab, agent: None, members: BTreeMap::new(), sim: None }
    }

    /// Starts Marathon and an app with these replicas: name, host, port.
    pub(crate) fn deploy(&mut self, replicas: &[(&'static str, u8, u16)]) -> Result<()> {
        let sim = self.lab.sim()?;
        let places: Vec<_> = replicas.iter().map(|(_, host, port)| (*host, *port)).collect();
        let started: Vec<_> =
            replicas.iter().map(|(name, host, port)| self.lab.replica(*host, *port, name)).collect::<Result<_>>()?;
        let tasks = sim.app(APP, SERVICE_PORT, &places)?;
        for (((name, ..), replica), task) in replicas.iter().zip(started).zip(tasks) {
            self.members.insert(name, Member { replica, task });
        }
        self.sim = Some(sim);
        Ok(())
    }

    /// Starts one more replica of the app.
    pub(crate) fn scale(&mut self, name: &'static str, host: u8, port: u16) -> Result<()> {
        let replica = self.lab.replica(host, port, name)?;
        let task = self.sim()?.task(APP, host, port)?;
        self.members.insert(name, Member { replica, task });
        Ok(())
    }

    /// Starts the agent, or restarts it.
    pub(crate) fn start_agent(&mut self) -> Result<()> {
        self.agent = Some(self.lab.agent(&[])?);
        Ok(())
    }

    /// Ends a replica as Mesos does, and returns how long the agent took to remove it.
    pub(crate) fn kill(&mut self, name: &str) -> Result<Duration> {
        let mut member = self.members.remove(name).with_context(|| format!("no replica {name}"))?;
        self.sim()?.state(&member.task, "TASK_KILLING")?;
        let told = Instant::now();
        let address = member.replica.address;
        self.service_when(&format!("replica {name} gets no new connections"), |web| !web.is_active(address))?;
        let taken_out = told.elapsed();
        until(told + GRACE);
        member.replica.terminate()?;
        self.sim()?.state(&member.task, "TASK_KILLED")?;
        Ok(taken_out)
    }

    /// Waits until a condition on the app's service holds.
    pub(crate) fn service_when(&self, what: &str, wanted: impl Fn(&Service) -> bool) -> Result<Service> {
        self.lab.service_when(what, APP, wanted)
    }

    /// Waits until exactly the running replicas get connections.
    pub(crate) fn all_active(&self) -> Result<Service> {
        let count = self.members.len();
        self.service_when(&format!("{count} replicas get connections"), |web| {
            web.active().count() == count && self.members.values().all(|member| web.is_active(member.replica.address))
        })
    }

    /// Sends this many requests to the service port.
    pub(crate) fn ask(&self, times: u32) -> Result<Summary> {
        self.lab.client(&["http", "--url", URL, "--count", &times.to_string(), "--peer"])
    }

    /// Returns the last lines of the agent's log.
    pub(crate) fn agent_log(&self) -> String {
        let log = self.agent.as_ref().map(Process::log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Returns the names of the running replicas.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.members.keys().copied().collect()
    }

    fn sim(&self) -> Result<&Sim<'lab>> {
        self.sim.as_ref().context("Marathon is not running")
    }
}
