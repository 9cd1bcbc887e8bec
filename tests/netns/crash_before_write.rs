//! The agent crashes before each of its writes in turn. The next agent repairs the maps, and existing services stay
//! available.
//!
//! Each host of the lab tries numbers of its own, so their quarantines run at the same time.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::libc::SIGKILL;
use proxymatic_tests::eventually::eventually_ok;
use proxymatic_tests::failure::TestResult;
use proxymatic_tests::lab::{Host, Lab, Load, Replica, binary};
use proxymatic_tests::net::host_address;
use proxymatic_tests::process::Process;
use proxymatic_user::dataplane::kernel::{Maps, Pins};
use proxymatic_user::plan::MapState;
use serde_json::{Value, json};

use crate::bpftool;
use crate::fixtures::cluster::{PORT, URL};
use crate::fixtures::file_source::{backend, service};

/// The variable that tells the agent when to crash; see the feature `fault-injection` of the agent's crate.
const VARIABLE: &str = "PROXYMATIC_DIE_BEFORE_WRITE";
/// How many hosts try numbers at the same time.
const SITES: u8 = 8;
/// The host of the replicas.
const REPLICAS: u8 = SITES + 1;
/// Five seconds of quarantine, plus the start and the end on a machine that runs eight agents.
const SETTLES: Duration = Duration::from_secs(120);
/// A second service port.
const OTHER: u16 = PORT + 1;
const OTHER_URL: &str = "http://localhost:1235/";

#[test]
fn crash_in_first_publication_is_completed_by_next_agent() -> TestResult {
    let stage = Stage::start()?;
    let wanted = [stage.web(0..2), stage.other()];
    let writes = stage.at_every_write(|site, nth| {
        site.write(&wanted)?;
        let died = site.dies_or_settles(nth, &wanted)?;
        if died {
            site.next_agent_settles(&wanted)?;
            site.answers(URL, &["a", "b"])?;
        }
        Ok(died)
    })?;
    println!("killed before each of the {writes} writes of a first publication");
    assert!(writes >= 20, "{writes}");
    Ok(())
}

#[test]
fn crash_in_replacement_of_all_backends_fails_no_connect() -> TestResult {
    let stage = Stage::start()?;
    let (before, after) = ([stage.web(0..2)], [stage.web(2..4)]);
    let writes = stage.at_every_write(|site, nth| {
        let died = site.dies_under_load(nth, URL, &before, &after)?;
        site.answers(URL, &["c", "d"])?;
        Ok(died)
    })?;
    println!("killed before each of the {writes} writes of a replacement");
    assert!(writes >= 12, "{writes}");
    Ok(())
}

#[test]
fn crash_in_removal_keeps_other_service_and_frees_the_port() -> TestResult {
    let stage = Stage::start()?;
    let (before, after) = ([stage.web(0..2), stage.other()], [stage.other()]);
    let writes = stage.at_every_write(|site, nth| {
        let died = site.dies_under_load(nth, OTHER_URL, &before, &after)?;
        let destination = site.host.tcp_client()?.tell(&format!("connect c 127.0.0.1:{PORT}"))?;
        ensure!(destination == "ECONNREFUSED", "the port is an ordinary one again: {destination}");
        let passed = site.host.verdict("no_backend")?;
        ensure!(passed == 0, "the hooks have still answered for it: {passed}");
        Ok(died)
    })?;
    println!("killed before each of the {writes} writes of a removal");
    assert!(writes >= 10, "{writes}");
    Ok(())
}

#[test]
fn shipped_agent_ignores_fault_injection() -> TestResult {
    let has = |program: &str| -> Result<bool> {
        let bytes = fs::read(binary(program)?)?;
        Ok(bytes.windows(VARIABLE.len()).any(|window| window == VARIABLE.as_bytes()))
    };
    assert!(has("proxymatic-mortal")?, "or this test would hold whatever is shipped");
    assert!(!has("proxymatic")?);
    Ok(())
}

/// The replicas, and independent hosts.
struct Stage {
    // Dropped first, because they run in the lab.
    replicas: Vec<Replica>,
    lab: Lab,
}

impl Stage {
    fn start() -> Result<Self> {
        let lab = Lab::start(REPLICAS)?;
        let start = |(nth, name): (u16, &str)| lab.replica(REPLICAS, 8001 + nth, name);
        let replicas = (0..).zip(["a", "b", "c", "d", "e"]).map(start).collect::<Result<_>>()?;
        Ok(Self { replicas, lab })
    }

    /// The service with some of the first four replicas.
    fn web(&self, which: std::ops::Range<usize>) -> Value {
        let backends: Vec<_> = self.replicas[which].iter().map(|it| backend(it.address)).collect();
        let allow = json!(["127.0.0.0/8", format!("{}/16", host_address(0))]);
        service(&backends, &[("allow", allow), ("affinity", json!("0s"))])
    }

    /// A second service, with the last replica.
    fn other(&self) -> Value {
        let backends: Vec<_> = self.replicas[4..].iter().map(|it| backend(it.address)).collect();
        service(&backends, &[("name", json!("other")), ("port", json!(OTHER))])
    }

    /// Runs a scenario once for each write; the scenario returns whether the agent crashed. Ends at the first number
    /// without a write, and returns the number of writes.
    fn at_every_write(&self, scenario: impl Fn(&Site<'_>, u64) -> Result<bool> + Sync) -> Result<u64> {
        let play = |number: u8| -> Result<u64> {
            let site = Site { host: self.lab.host(number), agent: None.into() };
            let mut nth = u64::from(number);
            loop {
                let died = scenario(&site, nth).with_context(|| format!("killed before write {nth}"))?;
                site.clear()?;
                if !died {
                    return Ok(nth - 1);
                }
                nth += u64::from(SITES);
            }
        };
        let counts: Vec<Result<u64>> = thread::scope(|scope| {
            let threads: Vec<_> = (1..=SITES).map(|number| scope.spawn(move || play(number))).collect();
            threads.into_iter().map(|it| it.join().unwrap_or_else(|_| Err(anyhow!("a thread panicked")))).collect()
        });
        counts.into_iter().collect::<Result<Vec<_>>>()?.into_iter().min().context("no site")
    }
}

/// A host whose agent crashes again and again.
struct Site<'lab> {
    host: &'lab Host,
    agent: std::cell::RefCell<Option<Process>>,
}

impl Site<'_> {
    /// Writes the services that the next agent reads.
    fn write(&self, services: &[Value]) -> Result<()> {
        fs::write(self.file(), json!({ "services": services }).to_string()).context("write the services")
    }

    fn file(&self) -> std::path::PathBuf {
        self.host.socket().with_extension("json")
    }

    /// Starts an agent that serves these services, then kills it.
    fn serve(&self, services: &[Value]) -> Result<()> {
        self.write(services)?;
        let mut agent = self.start(&[])?;
        self.settles(services)?;
        agent.kill9().map(drop)
    }

    /// Starts an agent that crashes before this write. Returns whether it crashed; if not, it has done all its writes.
    fn dies_or_settles(&self, nth: u64, services: &[Value]) -> Result<bool> {
        let mut agent = self.start(&[&format!("{VARIABLE}={nth}")])?;
        let mut died = false;
        eventually_ok("the agent dies, or has done all there is to do", SETTLES, || {
            if let Some(status) = agent.try_wait()? {
                ensure!(status.signal() == Some(SIGKILL), "{status}\n{}", agent.log());
                died = true;
                return Ok(());
            }
            self.is_settled(services)
        })?;
        self.agent.replace(Some(agent));
        Ok(died)
    }

    /// Like [`Self::dies_or_settles`], for an agent that adopts another agent's maps, followed by a new agent if it
    /// crashed. Asserts that no connect to this URL fails meanwhile.
    fn dies_under_load(&self, nth: u64, url: &str, before: &[Value], after: &[Value]) -> Result<bool> {
        self.serve(before)?;
        let load = self.load(url)?;
        self.write(after)?;
        let died = self.dies_or_settles(nth, after)?;
        load.reaches(10)?;
        if died {
            self.next_agent_settles(after)?;
            load.reaches(10)?;
        }
        let seen = load.finish()?;
        ensure!(seen.failed == 0, "killed before write {nth}: {seen:?}");
        Ok(died)
    }

    /// Starts an agent, which completes the remaining writes.
    fn next_agent_settles(&self, services: &[Value]) -> Result<()> {
        let agent = self.start(&[])?;
        self.settles(services)?;
        self.agent.replace(Some(agent));
        Ok(())
    }

    fn settles(&self, services: &[Value]) -> Result<()> {
        eventually_ok("the maps are those of an agent that never died", SETTLES, || self.is_settled(services))
    }

    fn is_settled(&self, services: &[Value]) -> Result<()> {
        let tables = Maps::open(&Pins::at(&self.host.pins()))?.tables()?;
        let (shape, wanted) = (Shape::of(&tables), Shape::wanted(services)?);
        ensure!(shape == wanted, "{shape:?} is not {wanted:?}");
        // A [`Shape`] omits entries without references, so those entries must have been freed.
        ensure!(tables.garbage().is_empty(), "{:?}", tables.garbage());
        for (map, entries) in [("SERVICE_NAMES", wanted.ids[0]), ("BACKEND_NAMES", wanted.ids[1])] {
            let has = bpftool::entries(&Pins::at(&self.host.pins()).map(map))?;
            ensure!(has == entries, "{map} has {has} entries, not {entries}");
        }
        Ok(())
    }

    /// Starts the agent with fault injection and these variables.
    fn start(&self, variables: &[&str]) -> Result<Process> {
        let host = self.host;
        let paths = [host.cgroup().path(), &host.pins(), &host.socket(), &self.file()];
        let [cgroup, pins, socket, file] = paths.map(|path| path.display().to_string());
        let program = binary(if variables.is_empty() { "proxymatic" } else { "proxymatic-mortal" })?;
        let program = program.display().to_string();
        let agent = [&program, "run", "--cgroup", &cgroup, "--bpffs", &pins, "--socket", &socket, "--file", &file];
        // Several agents run at a time.
        let small = ["--max-services", "64", "--max-backends", "256", "--max-slots", "4096"];
        host.spawn(Path::new("env"), &[variables, &agent, &small].concat())
    }

    fn load(&self, url: &str) -> Result<Load> {
        let load = self.host.load(url, &["--threads", "1", "--rate", "50", "--linger0"])?;
        load.reaches(5)?;
        Ok(load)
    }

    fn answers(&self, url: &str, names: &[&str]) -> Result<()> {
        let seen = self.host.client(&["http", "--url", url, "--count", "40", "--linger0"])?;
        ensure!(seen.failed == 0 && seen.by_replica.keys().eq(names), "{names:?} should answer: {seen:?}");
        Ok(())
    }

    /// Restores the state before the first agent.
    fn clear(&self) -> Result<()> {
        if let Some(mut agent) = self.agent.replace(None)
            && agent.try_wait()?.is_none()
        {
            agent.kill9()?;
        }
        self.host.proxymatic(&["detach"])?.well().map(drop)
    }
}

/// The meaning of the maps, independent of ids and slots.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    /// Name, port, allow list, and the active backends.
    services: BTreeSet<(String, u16, usize, BTreeSet<String>)>,
    ids: [usize; 5],
}

impl Shape {
    fn of(tables: &MapState) -> Self {
        let service = |(frontend, id): (&proxymatic_common::Frontend, &u32)| {
            let entry = &tables.services()[id];
            let slots = tables.slots_of(entry.slot_range).iter();
            let shown = |id: u32| tables.backends().get(&id).map_or(format!("{id}"), |it| place(it.backend.port.get()));
            (
                entry.name.clone(),
                frontend.port.get(),
                entry.allow.len(),
                slots.map(|slot| shown(slot.backend())).collect(),
            )
        };
        Self {
            services: tables.frontends().iter().map(service).collect(),
            ids: [
                tables.services().len(),
                tables.backends().len(),
                tables.slots_taken() as usize,
                tables.ports().len(),
                tables.services().values().map(|entry| entry.allow.len()).sum(),
            ],
        }
    }

    /// Converts services of the file into the same form.
    fn wanted(services: &[Value]) -> Result<Self> {
        let mut shape = Self { services: BTreeSet::new(), ids: [services.len(), 0, 0, services.len(), 0] };
        for service in services {
            let name = service["name"].as_str().context("no name")?.to_owned();
            let port = u16::try_from(service["port"].as_u64().context("no port")?)?;
            let Some(backends) = service["backends"].as_array() else { bail!("no backends") };
            let places: BTreeSet<_> =
                backends.iter().filter_map(|it| it["port"].as_u64()).map(|port| place(port as u16)).collect();
            let allowed = service["allow"].as_array().map_or(0, Vec::len);
            for (count, more) in shape.ids[1..].iter_mut().zip([places.len(), places.len(), 0, allowed]) {
                *count += more;
            }
            shape.services.insert((name, port, allowed, places));
        }
        Ok(shape)
    }
}

fn place(port: u16) -> String {
    format!("port {port}")
}
