//! How long a change takes to reach connections, and how many connections it fails: for this project, and for HAProxy
//! and Pen as `meltwater/proxymatic` reloads them.

mod old_proxymatic;
mod probe;
mod report;

use std::{
    collections::{BTreeMap, VecDeque},
    env, fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::{
    eventually::{eventually_ok, until},
    lab::{Host, Lab, PATIENCE, SocketProgram, binary},
    process::Process,
};
use serde_json::{Value, json};

use self::report::{Changed, Rolled};
pub(crate) use self::{old_proxymatic::OldProxymatic, probe::Probe, report::Report};
use crate::{machine::Machine, output::Output, peers::FIRST, programs::program};

/// From an event of Marathon to the connections that follow it, at 10, 1,000 and 5,000 services, under load.
#[derive(Debug, clap::Parser)]
pub(crate) struct Change {
    /// Install missing peers by apt.
    #[arg(long)]
    install: bool,
    /// Number of services; repeatable.
    #[arg(long, default_values_t = [10, 1_000, 5_000])]
    services: Vec<u16>,
    /// Milliseconds from TASK_KILLING until a replica stops listening.
    #[arg(long, default_value_t = 1_000)]
    grace: u64,
    #[command(flatten)]
    output: Output,
}

/// Services whose replicas are replaced under load; the next service is measured alone.
const ROLLING: u16 = 8;
/// The address of the simulated Marathon.
const MARATHON: u16 = 8080;
/// The first port of running replicas; no program connects to the others.
const REPLICAS: u16 = 30_000;
/// Number of changes that are measured one at a time.
const SINGLE: usize = 7;
/// Number of changes in a row.
const IN_A_ROW: usize = 100;
/// Milliseconds between two of many changes.
const PAUSE: u64 = 60;

/// Timeout until a change counts as never applied.
const FOLLOWED: Duration = Duration::from_secs(20);

/// The peer that follows Marathon.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Ours,
    Haproxy,
    Pen,
}

impl Who {
    const ALL: [Self; 3] = [Self::Ours, Self::Haproxy, Self::Pen];

    const fn name(self) -> &'static str {
        match self {
            Self::Ours => "proxymatic",
            Self::Haproxy => "haproxy",
            Self::Pen => "pen",
        }
    }
}

/// One peer with one number of services.
struct Bench<'a> {
    lab: &'a Lab,
    answers: SocketProgram,
    /// Whether successive connections go to all replicas. Those of Pen (`-W`) all go to its first replica while it is
    /// idle, so that the time at which Pen knows another one cannot be seen.
    spreads: bool,
    next: u16,
    grace: Duration,
}

impl Change {
    /// The options of `all`.
    pub(crate) fn new() -> Self {
        let services = vec![10, 1_000, 5_000];
        Self { install: false, services, grace: 1_000, output: Output::default() }
    }

    pub(crate) fn run(&self) -> Result<()> {
        self.output.put(&self.measure()?)
    }

    pub(crate) fn measure(&self) -> Result<Report> {
        let begun = Instant::now();
        let (mut changed, mut rolled, mut skipped) = (Vec::new(), Vec::new(), BTreeMap::new());
        for services in &self.services {
            for who in Who::ALL {
                if who != Who::Ours && program(who.name()).is_err() {
                    skipped.insert(who.name().to_owned(), "is not installed; --install does it".to_owned());
                    continue;
                }
                match self.one(who, *services) {
                    Ok((single, many)) => {
                        changed.push(single);
                        rolled.push(many);
                    }
                    Err(error) if who == Who::Ours => return Err(error.context(format!("{services} services"))),
                    // A peer that never follows a change is a result too, and must not end the others' runs.
                    Err(error) => {
                        skipped.insert(format!("{}, {services} services", who.name()), format!("{error:#}"));
                    }
                }
            }
        }
        let (machine, seconds) = (Machine::this(), begun.elapsed().as_secs_f64());
        Ok(Report { machine, seconds, grace_ms: self.grace, skipped, changed, rolled })
    }

    fn one(&self, who: Who, services: u16) -> Result<(Changed, Rolled)> {
        let lab = Lab::start(2)?;
        let host = lab.host(1);
        let this = env::current_exe()?;
        let address = host.address().to_string();
        let answers = ["answer", "--address", &address, "--tcp-ports", &(2 * (ROLLING + 1)).to_string()];
        let answers = host.program_in(host.cgroup(), &this, &answers)?;
        let _sim = simulate(&lab, services)?;
        let _forwarder = start(&lab, who)?;
        let next = REPLICAS + 2 * (ROLLING + 1);
        // Its first line reports that it listens.
        let mut bench =
            Bench { lab: &lab, answers, spreads: who != Who::Pen, next, grace: Duration::from_millis(self.grace) };
        bench.serves()?;
        let load = bench.probe(FIRST, ROLLING, 4, 4_000)?;
        let single = bench.changes(SINGLE)?;
        load.end()?;
        let (connections, failed) = bench.roll(IN_A_ROW, Duration::from_secs(2))?;
        let name = who.name().to_owned();
        let [start_ms, end_ms] = single;
        Ok((
            Changed { name: name.clone(), services, start_ms, end_ms },
            Rolled { name, services, changes: IN_A_ROW, connections, failed },
        ))
    }
}

/// Starts a Marathon with this many apps, of which the first few have running replicas.
fn simulate(lab: &Lab, services: u16) -> Result<Process> {
    let host = lab.host(1);
    let place = |n: u16, k: u16| match n {
        0..=ROLLING => REPLICAS + 2 * n + k,
        // No program connects to these.
        _ => 40_000 + (2 * n + k) % 20_000,
    };
    let task = |n: u16, k: u16| json!({ "host": host.address(), "port": place(n, k) });
    let app = |n: u16| {
        let tasks = [task(n, 0), task(n, 1)];
        json!({ "id": format!("/bench/{n}"), "servicePort": FIRST + n, "mode": "host", "tasks": tasks })
    };
    let file = lab.run_dir().join("apps.json");
    let all = services.max(ROLLING + 1);
    fs::write(&file, serde_json::to_vec(&(0..all).map(app).collect::<Vec<Value>>())?)?;
    let file = file.to_str().context("the run directory is not UTF-8")?;
    let listen = marathon(host).to_string();
    let mut sim = host.spawn(&binary("marathon-sim")?, &["--listen", &listen, "--apps", file])?;
    sim.said("listening on", Duration::from_secs(60))?;
    Ok(sim)
}

fn marathon(host: &Host) -> SocketAddr {
    SocketAddr::from((host.address(), MARATHON))
}

/// Starts the peer that follows Marathon, on host 2.
fn start(lab: &Lab, who: Who) -> Result<Process> {
    let (host, at) = (lab.host(2), marathon(lab.host(1)));
    let folder = lab.run_dir().join("old-proxymatic");
    fs::create_dir_all(&folder)?;
    let folder = folder.to_str().context("the run directory is not UTF-8")?.to_owned();
    let (at, pens) = (at.to_string(), (ROLLING + 1).to_string());
    let old_proxymatic = ["old-proxymatic", "--marathon", &at, "--folder", &folder];
    match who {
        Who::Ours => host.agent(&format!("http://{at}"), &[]),
        Who::Haproxy => host.spawn(&env::current_exe()?, &old_proxymatic),
        Who::Pen => host.spawn(&env::current_exe()?, &[&old_proxymatic[..], &["--pens", &pens]].concat()),
    }
}

/// A running probe, and how much of its output has been read.
struct Watched {
    process: Process,
    read: usize,
}

/// One connection: its start, and the replica that answered.
#[derive(Clone, Debug)]
struct Seen {
    begun: Duration,
    who: String,
}

impl Seen {
    fn failed(&self) -> bool {
        self.who.parse::<u16>().is_err()
    }
}

impl Watched {
    /// Returns its output since the last call.
    fn news(&mut self) -> Result<Vec<Seen>> {
        let said = self.process.stdout()?;
        let whole = said.rfind('\n').map_or(0, |at| at + 1);
        let fresh = said.get(self.read..whole).unwrap_or_default();
        self.read = whole;
        let seen = |line: &str| {
            let (begun, who) = line.split_once(' ')?;
            Some(Seen { begun: Duration::from_nanos(begun.parse().ok()?), who: who.to_owned() })
        };
        Ok(fresh.lines().filter_map(seen).collect())
    }

    fn end(mut self) -> Result<Vec<Seen>> {
        self.process.kill9()?;
        self.news()
    }
}

impl Bench<'_> {
    fn probe(&self, first: u16, ports: u16, threads: u16, every: u64) -> Result<Watched> {
        let host = self.lab.host(2);
        let (address, first, ports) = (host.address().to_string(), first.to_string(), ports.to_string());
        let (threads, every) = (threads.to_string(), every.to_string());
        let arguments = [
            "probe",
            "--address",
            &address,
            "--first",
            &first,
            "--ports",
            &ports,
            "--threads",
            &threads,
            "--every",
            &every,
        ];
        Ok(Watched { process: host.spawn(&env::current_exe()?, &arguments)?, read: 0 })
    }

    /// Waits until every service is answered.
    fn serves(&mut self) -> Result<()> {
        let mut probe = self.probe(FIRST, ROLLING + 1, 1, 2_000)?;
        let mut last: VecDeque<Seen> = VecDeque::new();
        eventually_ok("every service is answered", Duration::from_secs(60), || {
            last.extend(probe.news()?);
            let extra = last.len().saturating_sub(100);
            last.drain(..extra);
            ensure!(last.len() == 100 && !last.iter().any(Seen::failed), "{last:?}");
            Ok(())
        })?;
        probe.end().map(drop)
    }

    fn control(&self, what: &str, body: &Value) -> Result<Value> {
        let path = format!("/sim/{what}");
        let answer = self.lab.host(1).call("POST", marathon(self.lab.host(1)), &path, &body.to_string())?;
        Ok(if answer.trim().is_empty() { Value::Null } else { serde_json::from_str(&answer)? })
    }

    /// Returns when the last event was written to listeners.
    fn written(&self) -> Result<Duration> {
        let answer = self.lab.host(1).call("GET", marathon(self.lab.host(1)), "/sim/written", "")?;
        let answer: Value = serde_json::from_str(&answer)?;
        Ok(Duration::from_nanos(answer["ns"].as_u64().context("no event was written")?))
    }

    /// Returns the tasks of an app: their ids and ports, the oldest first.
    fn tasks(&self, n: u16) -> Result<VecDeque<(String, u16)>> {
        let answer =
            self.lab.host(1).call("GET", marathon(self.lab.host(1)), &format!("/v2/apps/bench/{n}/tasks"), "")?;
        let answer: Value = serde_json::from_str(&answer)?;
        let tasks = answer["tasks"].as_array().context("no tasks")?;
        let mut tasks: VecDeque<_> = tasks
            .iter()
            .filter_map(|task| Some((task["id"].as_str()?.to_owned(), task["ports"][0].as_u64()? as u16)))
            .collect();
        tasks.make_contiguous().sort_by_key(|(_, port)| *port);
        Ok(tasks)
    }

    /// Starts a replica of an app; it listens before Marathon reports it running.
    fn launch(&mut self, n: u16) -> Result<(String, u16)> {
        let port = self.next;
        self.next += 1;
        self.answers.tell(&format!("open {port}"))?;
        let body = json!({ "app": format!("/bench/{n}"), "host": self.lab.host(1).address(), "port": port });
        let task = self.control("tasks", &body)?["task"].as_str().context("no task")?.to_owned();
        Ok((task, port))
    }

    fn state(&self, task: &str, state: &str) -> Result<()> {
        self.control("state", &json!({ "task": task, "state": state })).map(drop)
    }

    /// Ends a replica after its grace period.
    fn gone(&mut self, (task, port): &(String, u16)) -> Result<()> {
        self.answers.tell(&format!("close {port}"))?;
        self.state(task, "TASK_KILLED")
    }

    /// Starts a task, then ends another one of the service, again and again. Measures milliseconds from each event
    /// until the first connection that the new task answers, and until the last one that the old task answers.
    fn changes(&mut self, count: usize) -> Result<[Vec<f64>; 2]> {
        let mut tasks = self.tasks(ROLLING)?;
        let (mut starts, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let mut probe = self.probe(FIRST + ROLLING, 1, 1, 500)?;
            eventually_ok("the probe is answered", PATIENCE, || {
                ensure!(!probe.news()?.is_empty(), "not yet");
                Ok(())
            })?;
            let fresh = self.launch(ROLLING)?;
            let (said, name) = (self.written()?, fresh.1.to_string());
            if self.spreads {
                let first = eventually_ok("the new one answers", FOLLOWED, || {
                    let first = probe.news()?.into_iter().find(|seen| seen.who == name);
                    first.context("not yet")
                })?;
                starts.push(ms(first.begun.saturating_sub(said)));
            }
            tasks.push_back(fresh);
            let old = tasks.pop_front().context("no task")?;
            let (ending, name) = (Instant::now(), old.1.to_string());
            self.state(&old.0, "TASK_KILLING")?;
            let said = self.written()?;
            let (mut last, mut since) = (said, 0);
            eventually_ok("the old one is not asked any more", FOLLOWED, || {
                for seen in probe.news()? {
                    since += 1;
                    if seen.who == name {
                        (last, since) = (last.max(seen.begun), 0);
                    }
                }
                ensure!(since > 100 && ending.elapsed() > self.grace, "{since} since");
                Ok(())
            })?;
            ends.push(ms(last - said));
            self.gone(&old)?;
            probe.end()?;
        }
        Ok([starts, ends])
    }

    /// Replaces this many replicas, one after the other, under load; each stops listening after the grace period.
    /// Returns the number of connections meanwhile, and the failed ones by error.
    fn roll(&mut self, count: usize, rest: Duration) -> Result<(usize, BTreeMap<String, usize>)> {
        let load = self.probe(FIRST, ROLLING, 4, 2_000)?;
        let mut apps = (0..ROLLING).map(|n| self.tasks(n)).collect::<Result<Vec<_>>>()?;
        let mut leaving: VecDeque<(Instant, (String, u16))> = VecDeque::new();
        let begun = Instant::now();
        for nth in 0..count {
            until(begun + Duration::from_millis(PAUSE * nth as u64));
            let n = nth % usize::from(ROLLING);
            let fresh = self.launch(n as u16)?;
            apps[n].push_back(fresh);
            let old = apps[n].pop_front().context("no task")?;
            self.state(&old.0, "TASK_KILLING")?;
            leaving.push_back((Instant::now() + self.grace, old));
            while let Some((_, old)) = leaving.pop_front_if(|(when, _)| *when <= Instant::now()) {
                self.gone(&old)?;
            }
        }
        for (when, old) in leaving {
            until(when);
            self.gone(&old)?;
        }
        until(Instant::now() + rest);
        let seen = load.end()?;
        let mut failed = BTreeMap::new();
        for it in seen.iter().filter(|seen| seen.failed()) {
            *failed.entry(it.who.clone()).or_default() += 1;
        }
        Ok((seen.len(), failed))
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
