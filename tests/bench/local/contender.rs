//! One entry of a part: its host, its processes, and its measurements.

use std::{collections::BTreeMap, env, fs, path::Path, time::Duration};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::{
    cgroup::Cgroup,
    eventually::eventually_ok,
    lab::{Host, PATIENCE, SocketProgram},
    process::Process,
};
use serde_json::Value;

use super::measurement::Metric;
use crate::{
    answer,
    load::Done,
    peers::{BULK, DATAGRAMS, FIRST, IPERF, PLACES, Peer, Shape},
    programs::program,
};

/// The kinds of work through a forwarder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Connect, one request, one response, close.
    Crr,
    /// One connect(2) after the other.
    Connect,
    /// Request after request on persistent connections, by wrk.
    Rr,
    /// Bulk data over one connection, by iperf3.
    Bulk,
    /// Request after request from connected UDP sockets.
    Udp,
    /// Request after request from unconnected UDP sockets.
    UdpUnconnected,
}

impl Work {
    pub(crate) const ALL: [Self; 6] = [Self::Crr, Self::Connect, Self::Rr, Self::Bulk, Self::Udp, Self::UdpUnconnected];
    pub(crate) const CONNECTIONS: [Self; 2] = [Self::Crr, Self::Connect];

    const fn is_udp(self) -> bool {
        matches!(self, Self::Udp | Self::UdpUnconnected)
    }
}

/// A host with one forwarder on it.
pub(crate) struct Contender<'a> {
    peer: Peer,
    shape: Shape,
    destination: u16,
    host: &'a Host,
    backends: &'a Host,
    load: SocketProgram,
    processes: Vec<Process>,
    /// The measurements, one value for each round.
    pub(crate) values: BTreeMap<Metric, Vec<f64>>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(
        peer: Peer,
        shape: Shape,
        destination: u16,
        host: &'a Host,
        backends: &'a Host,
        processes: Vec<Process>,
    ) -> Result<Self> {
        let load = host.program_in(host.cgroup(), &env::current_exe()?, &["load"])?;
        Ok(Self { peer, shape, destination, host, backends, load, processes, values: BTreeMap::new() })
    }

    /// Waits until it answers all requests without a failure.
    pub(crate) fn warm_up(&mut self) -> Result<()> {
        let mut works = vec!["crr"];
        works.extend(self.peer.takes_udp().then_some("udp-unconnected"));
        for work in works {
            eventually_ok("every request is answered", PATIENCE, || {
                let done = self.order(work, 200)?;
                ensure!(done.count > 0 && done.failed == 0, "{work}: {done:?}");
                Ok(())
            })
            .with_context(|| self.processes.iter().map(Process::log).collect::<String>())?;
        }
        Ok(())
    }

    pub(crate) fn measure(&mut self, work: Work) -> Result<()> {
        if work.is_udp() && !self.peer.takes_udp() {
            return Ok(());
        }
        match work {
            Work::Crr => {
                let (cpu, switches) = (self.cpu()?, self.switches()?);
                let done = self.order("crr", 500)?;
                let (cpu, switches) = (self.cpu()? - cpu, self.switches()?.saturating_sub(switches));
                self.note(Metric::Crr, done.count as f64 / done.seconds);
                self.note(Metric::CpuUs, cpu / done.count as f64);
                self.note(Metric::Switches, switches as f64 / done.count as f64);
                self.note(Metric::Failed, done.failed as f64);
            }
            Work::Connect => {
                let done = self.order("connect", 300)?;
                for (metric, value) in
                    [Metric::ConnectP50, Metric::ConnectP99, Metric::ConnectP999].into_iter().zip(done.connect_us)
                {
                    self.note(metric, value);
                }
            }
            Work::Rr => {
                let value = self.wrk()?;
                self.note(Metric::Rr, value);
            }
            Work::Bulk => {
                let value = self.iperf()?;
                self.note(Metric::Bulk, value);
            }
            Work::Udp => {
                let done = self.order("udp", 300)?;
                self.note(Metric::Udp, done.count as f64 / done.seconds);
            }
            Work::UdpUnconnected => {
                let done = self.order("udp-unconnected", 300)?;
                self.note(Metric::UdpUnconnected, done.count as f64 / done.seconds);
            }
        }
        Ok(())
    }

    fn note(&mut self, metric: Metric, value: f64) {
        self.values.entry(metric).or_default().push(value);
    }

    /// Returns the address, the first port and the number of ports for a kind of work.
    fn target(&self, udp: bool) -> (String, u16, u16) {
        let all = u32::from(self.shape.services) * u32::from(self.shape.backends);
        let places = all.min(u32::from(PLACES)) as u16;
        let backend = self.backends.address().to_string();
        let own = self.host.address().to_string();
        match (self.peer.is_direct(), udp) {
            (true, false) => (backend, answer::TCP, places),
            (true, true) => (backend, answer::UDP, self.shape.backends),
            (false, false) => (own, FIRST, self.destination),
            (false, true) => (own, DATAGRAMS, 1),
        }
    }

    fn order(&mut self, work: &str, ms: u32) -> Result<Done> {
        let (address, first, ports) = self.target(work.starts_with("udp"));
        let said = self.load.tell(&format!("{work} {address} {first} {ports} {ms}"))?;
        serde_json::from_str(&said).with_context(|| format!("load printed {said:?}"))
    }

    /// Returns requests per second.
    fn wrk(&self) -> Result<f64> {
        let (address, first, _) = self.target(false);
        let url = format!("http://{address}:{first}/");
        let said = self.run("wrk", &["--threads", "1", "--connections", "16", "--duration", "1s", &url])?;
        ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
        let rate = said.lines().find_map(|line| line.trim().strip_prefix("Requests/sec:"));
        Ok(rate.context("wrk printed no rate")?.trim().parse()?)
    }

    /// Returns gigabits per second, as received.
    fn iperf(&self) -> Result<f64> {
        let (address, port) = match self.peer.is_direct() {
            true => (self.backends.address(), IPERF),
            false => (self.host.address(), BULK),
        };
        let said = self.run("iperf3", &["-c", &address.to_string(), "-p", &port.to_string(), "-t", "1", "-J"])?;
        let said: Value = serde_json::from_str(&said)?;
        let bits = said["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 printed no rate")?;
        Ok(bits / 1e9)
    }

    fn run(&self, name: &str, arguments: &[&str]) -> Result<String> {
        let left = self.host.run(&program(name)?, arguments, Duration::from_secs(20))?;
        Ok(left.well().with_context(|| format!("{name} {arguments:?}"))?.stdout)
    }

    fn cgroups(&self) -> [&Cgroup; 2] {
        [self.host.cgroup(), self.backends.cgroup()]
    }

    /// Returns microseconds of CPU time so far: client, forwarder, backends, and the kernel on their behalf.
    fn cpu(&self) -> Result<f64> {
        let used = |cgroup: &Cgroup| -> Result<f64> {
            let file = cgroup.path().join("cpu.stat");
            let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
            let word = text.split_whitespace().nth(1).context("cpu.stat is empty")?;
            Ok(word.parse()?)
        };
        self.cgroups().into_iter().map(used).sum()
    }

    /// Returns the context switches so far of the same processes.
    fn switches(&self) -> Result<u64> {
        let mut all = 0;
        for cgroup in self.cgroups() {
            for pid in cgroup.processes()? {
                let threads = Path::new("/proc").join(pid.to_string()).join("task");
                for thread in fs::read_dir(threads).into_iter().flatten().flatten() {
                    let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
                    let lines = status.lines().filter(|line| line.contains("ctxt_switches:"));
                    all += lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum::<u64>();
                }
            }
        }
        Ok(all)
    }
}
