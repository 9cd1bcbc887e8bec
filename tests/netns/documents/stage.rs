//! The cluster of the documents: Marathon and a client on host 1, three replicas of /demo/web on three hosts.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use proxymatic_tests::eventually::{eventually, eventually_ok};
use proxymatic_tests::lab::{Lab, PATIENCE, Replica, Sim, SocketProgram, binary};
use proxymatic_tests::process::Process;
use serde_json::{Value, json};

const APP: &str = "/demo/web";
const PORT: u16 = 1234;
/// The name of Marathon's host in the documents.
const MARATHON: &str = "marathon.example";
/// How long a command is repeated until it prints the shown output.
const SETTLE: Duration = Duration::from_secs(30);

pub(super) struct Stage<'lab> {
    lab: &'lab Lab,
    sim: Option<Sim<'lab>>,
    agent: Option<Process>,
    replicas: BTreeMap<&'static str, Replica>,
    /// Programs on host 1 that listen and are no Marathon tasks.
    programs: BTreeMap<String, Replica>,
    /// Programs that hold connections.
    held: Vec<SocketProgram>,
    /// The places of the next app's tasks.
    places: Vec<Value>,
}

pub(super) fn lab() -> Result<Lab> {
    Lab::start(3)
}

impl<'lab> Stage<'lab> {
    pub(super) fn set(lab: &'lab Lab) -> Result<Self> {
        let members = [("a", 1, 8001), ("b", 2, 8002), ("c", 3, 8003)];
        let replicas = members.map(|(name, host, port)| lab.replica(host, port, name).map(|replica| (name, replica)));
        let replicas = replicas.into_iter().collect::<Result<_>>()?;
        let mut stage = Self {
            lab,
            sim: None,
            agent: None,
            replicas,
            programs: BTreeMap::new(),
            held: Vec::new(),
            places: Vec::new(),
        };
        stage.start_marathon()?;
        stage.start_agent()?;
        Ok(stage)
    }

    /// Executes an event.
    pub(super) fn event(&mut self, event: &str) -> Result<()> {
        match event.split_once(": ").unwrap_or((event, "")) {
            ("replica killed", name) => {
                let (_, mut replica) =
                    self.replicas.remove_entry(name).with_context(|| format!("no replica {name}"))?;
                replica.process.kill9().map(drop)
            }
            ("connection held", to) => {
                let mut client = self.lab.host(1).tcp_client()?;
                // One connect may fail on a dead replica that Marathon still lists.
                eventually_ok("a connection is held", PATIENCE, || {
                    let said = client.tell(&format!("connect held {to}"))?;
                    ensure!(said == "ok", "{said}");
                    Ok(())
                })?;
                self.held.push(client);
                Ok(())
            }
            ("listens", what) => {
                let (name, port) = what.split_once(' ').context("listens: NAME PORT")?;
                let everywhere = SocketAddr::from(([0, 0, 0, 0], port.parse()?));
                self.programs.insert(name.to_owned(), self.lab.host(1).replica_at(everywhere, name, &[])?);
                Ok(())
            }
            ("ends", name) => {
                let mut program = self.programs.remove(name).with_context(|| format!("{name} does not run"))?;
                program.process.kill9().map(drop)
            }
            ("Marathon gone", "") => self.sim.take().context("it is gone already")?.process.kill9().map(drop),
            ("Marathon back", "") => self.start_marathon(),
            ("agent gone", "") => self.agent.take().context("it is gone already")?.kill9().map(drop),
            ("agent back", "") => self.start_agent(),
            ("tasks at", places) => {
                let place = |place: &str| -> Result<Value> {
                    let (host, port) = place.split_once(':').with_context(|| format!("{place}: not HOST:PORT"))?;
                    Ok(json!({ "host": host, "port": port.parse::<u16>()? }))
                };
                self.places = places.split_whitespace().map(place).collect::<Result<_>>()?;
                Ok(())
            }
            _ => bail!("unknown event"),
        }
    }

    /// Deploys an app to Marathon; its tasks are at the places given before.
    pub(super) fn deploy(&mut self, app: &str) -> Result<()> {
        let app: Value = serde_json::from_str(app).with_context(|| format!("an app that is no JSON: {app}"))?;
        let tasks = std::mem::take(&mut self.places);
        let sim = self.sim.as_ref().context("Marathon is gone")?;
        sim.control("apps", &json!({ "app": app, "tasks": tasks })).map(drop)
    }

    /// Runs a command on host 1 until it prints the expected output or the time is over. Returns the last output, with
    /// the paths and names of a real host in place of the lab's.
    pub(super) fn run(&self, command: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let begun = Instant::now();
        let done = || {
            let printed = self.run_once(command);
            let settled = printed.as_ref().is_ok_and(|it| wanted(it)) || begun.elapsed() > SETTLE;
            settled.then_some(printed)
        };
        eventually(command, PATIENCE + SETTLE, done)?
    }

    fn run_once(&self, command: &str) -> Result<String> {
        let host = self.lab.host(1);
        if command == "cargo xtask demo" {
            // The demo makes a cluster of its own.
            let said = std::process::Command::new(binary("proxymatic-demo")?).output()?;
            return Ok(String::from_utf8(said.stdout)?);
        }
        let programs = binary("proxymatic")?;
        let programs = programs.parent().context("no folder")?.display().to_string();
        let (pins, socket) = (host.pins().display().to_string(), host.socket().display().to_string());
        let marathon = host.address().to_string();
        let script = format!(
            "export PATH={programs}:$PATH BPFFS={pins} AGENT_SOCKET={socket} NO_COLOR=1; {{ {}\n}} 2>&1",
            command.replace(MARATHON, &marathon)
        );
        let left = host.run(Path::new("sh"), &["-c", &script], PATIENCE)?;
        let cgroup = host.cgroup().path().display().to_string();
        let marathon = format!("{marathon}:8080");
        let names = [
            (pins.as_str(), "/sys/fs/bpf/proxymatic"),
            (&socket, "/run/proxymatic.sock"),
            (&cgroup, "/sys/fs/cgroup"),
            (&marathon, "marathon.example:8080"),
        ];
        let said = names.iter().fold(left.stdout, |text, (lab, real)| text.replace(lab, real));
        let is_unmeasured = command.contains("hook show") && !command.contains("--seconds");
        Ok(if is_unmeasured { unmeasured(&said) } else { said })
    }

    fn start_marathon(&mut self) -> Result<()> {
        let sim = self.lab.sim()?;
        sim.app(APP, PORT, &[(1, 8001), (2, 8002), (3, 8003)])?;
        self.sim = Some(sim);
        Ok(())
    }

    fn start_agent(&mut self) -> Result<()> {
        // When the agent polls a Marathon that is gone, it reports another failure than that of the events.
        self.agent = Some(self.lab.agent(&["--self-test", "1", "--refresh-interval", "3600"])?);
        self.lab.host(1).agent_ready(PATIENCE)
    }
}

/// Replaces the run counts and mean times of `hook show` by those of a kernel that does not measure: it measures for
/// all tests if one of them asks for it.
fn unmeasured(said: &str) -> String {
    let line = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [hook, program, link, effective, _, mean, pin] if mean != "MEAN_NS" => {
            format!("{hook}  {program}  {link}  {effective}  0  -  {pin}\n")
        }
        _ => format!("{line}\n"),
    };
    said.lines().map(line).collect()
}
