//! What most tests begin with: Marathon and an agent on host 1, the replicas of one app on host 2, all serving.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::lab::{Dialer, Lab, PATIENCE, Replica, Service, Sim};
use proxymatic_tests::net::host_address;
use proxymatic_tests::process::Process;
use proxymatic_tests::summary::Summary;
use proxymatic_user::dataplane::kernel::{Maps, Pins};
use serde_json::{Value, json};

pub(crate) const APP: &str = "/web";
pub(crate) const PORT: u16 = 1234;
pub(crate) const URL: &str = "http://localhost:1234/";
pub(crate) const SERVICE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT);

const LABEL: &str = "com.meltwater.proxymatic.port.0.";

/// A service with its replicas `a`, `b` and so on, on host 2 from port 8001 up.
pub(crate) struct Served<'lab> {
    pub(crate) lab: &'lab Lab,
    pub(crate) agent: Process,
    pub(crate) sim: Sim<'lab>,
    pub(crate) replicas: Vec<Replica>,
    /// The Mesos task of each replica.
    pub(crate) tasks: Vec<String>,
}

impl<'lab> Served<'lab> {
    /// Starts it, and returns when all replicas get connections.
    pub(crate) fn start(lab: &'lab Lab, replicas: usize) -> Result<Self> {
        Self::labelled(lab, replicas, &[])
    }

    /// The same with labels, by what follows `com.meltwater.proxymatic.port.0.`
    pub(crate) fn labelled(lab: &'lab Lab, replicas: usize, labels: &[(&str, &str)]) -> Result<Self> {
        let labels: serde_json::Map<_, _> =
            labels.iter().map(|(key, value)| (format!("{LABEL}{key}"), json!(value))).collect();
        let served = Self::unready(lab, replicas, json!({ "labels": labels }))?;
        served.when_active(&(0..replicas).collect::<Vec<_>>())?;
        Ok(served)
    }

    /// The same with whatever `POST /sim/apps` takes; returns when the agent serves what Marathon says.
    pub(crate) fn unready(lab: &'lab Lab, replicas: usize, more: Value) -> Result<Self> {
        Self::on(lab, lab.sim()?, replicas, more, &[])
    }

    /// The same with a Marathon that is there already, and arguments for the agent.
    pub(crate) fn on(lab: &'lab Lab, sim: Sim<'lab>, replicas: usize, more: Value, arguments: &[&str]) -> Result<Self> {
        let replicas: Vec<_> = (0..replicas).map(|nth| replica(lab, nth)).collect::<Result<_>>()?;
        let places: Vec<_> = replicas.iter().map(|it| place(it.address)).collect();
        let mut app = json!({ "id": APP, "servicePort": PORT, "tasks": places });
        for (key, value) in more.as_object().into_iter().flatten() {
            app[key] = value.clone();
        }
        let tasks = serde_json::from_value(sim.control("apps", &app)?["tasks"].take())?;
        let agent = lab.agent(arguments)?;
        let served = Self { lab, agent, sim, replicas, tasks };
        lab.host(1).agent_ready(PATIENCE)?;
        Ok(served)
    }

    /// Starts the agent again, and returns when it serves what Marathon says.
    pub(crate) fn start_agent(&mut self) -> Result<()> {
        self.agent = self.lab.agent(&[])?;
        self.lab.host(1).agent_ready(PATIENCE)
    }

    /// Starts one more replica, with its task.
    pub(crate) fn scale(&mut self) -> Result<()> {
        let next = replica(self.lab, self.replicas.len())?;
        self.tasks.push(self.sim.task(APP, 2, next.address.port())?);
        self.replicas.push(next);
        Ok(())
    }

    /// Waits until exactly these replicas get connections, by number from 0.
    pub(crate) fn when_active(&self, which: &[usize]) -> Result<Service> {
        self.lab.service_when(&format!("replicas {which:?} get connections, and no others"), APP, |web| {
            web.active().count() == which.len() && which.iter().all(|nth| web.is_active(self.replicas[*nth].address))
        })
    }

    /// Waits until the replicas are in these states.
    pub(crate) fn when_states(&self, states: &[&str]) -> Result<Service> {
        self.lab.service_when(&format!("the replicas are {states:?}"), APP, |web| {
            // Rows come in order of address and port, which is that of the replicas.
            web.backends.iter().map(|backend| backend.state.as_str()).eq(states.iter().copied())
        })
    }

    /// Opens the service so many times, one connection after the other.
    pub(crate) fn ask(&self, times: u32) -> Result<Summary> {
        self.lab.client(&["http", "--url", URL, "--count", &times.to_string(), "--linger0"])
    }

    /// Fails unless a hundred connections are all answered, by these replicas and no other.
    pub(crate) fn answers_come_from(&self, names: &[&str]) -> Result<()> {
        let seen = self.ask(100)?;
        ensure!(seen.failed == 0 && seen.by_replica.keys().eq(names), "{names:?} should answer: {seen:?}");
        Ok(())
    }
}

/// Connects until a backend has refused once, and the kernel has ejected it.
pub(crate) fn when_ejected(lab: &Lab, client: &mut Dialer) -> Result<()> {
    eventually_ok("a connect is refused", PATIENCE, || {
        let said = client.tell(&format!("who 1 {SERVICE}"))?;
        ensure!(said == "ECONNREFUSED", "{said}");
        Ok(())
    })?;
    ensure!(lab.host(1).verdict("ejected")? == 1, "{}", lab.host(1).verdicts()?);
    Ok(())
}

/// Has an ejection last for an hour, so that it does not matter how long a test takes.
pub(crate) fn eject_for_an_hour(lab: &Lab, backend: SocketAddr) -> Result<()> {
    let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
    let load = maps.load(backend_id(&maps, backend)?).context("no such backend")?;
    load.ejected_until.set((monotonic()? + Duration::from_secs(3600)).as_nanos().try_into()?);
    Ok(())
}

/// For how long a backend is still ejected.
pub(crate) fn ejected_for(lab: &Lab, backend: SocketAddr) -> Result<Duration> {
    let maps = Maps::open(&Pins::at(&lab.host(1).pins()))?;
    let load = maps.load(backend_id(&maps, backend)?).context("no such backend")?;
    Ok(Duration::from_nanos(load.ejected_until.get()).saturating_sub(monotonic()?))
}

pub(crate) fn backend_id(maps: &Maps, at: SocketAddr) -> Result<u32> {
    let tables = maps.tables()?;
    let is = |it: &proxymatic_common::Backend| SocketAddr::new(it.address.into(), it.port.get()) == at;
    let id = tables.backends().iter().find_map(|(id, entry)| is(&entry.backend).then_some(*id));
    id.with_context(|| format!("no backend {at}"))
}

/// The clock of the hooks, which all processes share.
pub(crate) fn monotonic() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

/// Where the n-th replica's task is, for the simulator.
pub(crate) fn place(address: SocketAddr) -> Value {
    json!({ "host": address.ip(), "port": address.port() })
}

/// What curl, which knows nothing of us, prints on host 1: the answer, and whom it takes its peer to be.
pub(crate) fn curl(lab: &Lab, url: &str) -> Result<String> {
    let arguments = ["--silent", "--show-error", "--max-time", "30"];
    let peer = ["--write-out", "%{remote_ip}:%{remote_port}", url];
    let left = lab.host(1).run(Path::new("curl"), &[&arguments[..], &peer].concat(), 2 * PATIENCE)?.well()?;
    Ok(left.stdout)
}

fn replica(lab: &Lab, nth: usize) -> Result<Replica> {
    let name = char::from(b'a' + u8::try_from(nth).context("so many replicas")?);
    lab.replica(2, replica_address(u16::try_from(nth)?).port(), &name.to_string())
}

/// Where the n-th replica is.
pub(crate) fn replica_address(nth: u16) -> SocketAddr {
    (host_address(2), 8001 + nth).into()
}
