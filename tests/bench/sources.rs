//! The time from Marathon to the maps, on a very large cluster.

use std::{
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::time::{ClockId, clock_gettime};
use proxymatic_common::SlotRange;
use proxymatic_tests::{
    eventually::{eventually, eventually_ok},
    lab::{Host, Lab, binary},
    process::Process,
};
use proxymatic_user::dataplane::kernel::{Maps, Pins};
use serde_json::{Value, json};

use crate::statistics::{median, percentile};

/// The time from Marathon's answers and events to the maps.
#[derive(Debug, clap::Parser)]
pub(crate) struct Sources {
    /// Number of apps, each with one service port.
    #[arg(long, default_value_t = 5_000)]
    apps: u16,
    /// Number of tasks of each app.
    #[arg(long, default_value_t = 4)]
    tasks: u16,
    /// Number of tasks that end, one after the other.
    #[arg(long, default_value_t = 300)]
    events: usize,
    /// Milliseconds between two ends.
    #[arg(long, default_value_t = 20)]
    pause: u64,
}

/// The times of events in ms, one for each.
#[derive(Debug, Default)]
struct Times {
    /// From the request to the simulator, which searches the task, to the switch.
    asked: Vec<f64>,
    /// From the simulator's write of the event to the switch.
    written: Vec<f64>,
    /// Number of listings requested meanwhile.
    listings: usize,
}

/// The first service port.
const FIRST: u16 = 10_000;
/// The address of the simulated Marathon.
const MARATHON: u16 = 8080;

/// The results, times in ms and memory in MB.
#[derive(Debug)]
pub(crate) struct Measured {
    /// One listing of the simulated Marathon alone.
    pub(crate) answer: f64,
    /// From the agent's start to the last service in the maps.
    pub(crate) read: f64,
    /// From the bytes of an event that ends a task to the switch, one for each.
    pub(crate) written: Vec<f64>,
    asked: Vec<f64>,
    listings: usize,
    /// The agent's resident memory at the end, and its maximum.
    pub(crate) resident: f64,
    pub(crate) highest: f64,
}

impl Sources {
    pub(crate) fn run(&self) -> Result<()> {
        let found = self.measure(|_, _, _| Ok(()))?;
        let many = u32::from(self.apps) * u32::from(self.tasks);
        println!("{} apps, {many} tasks; medians in ms", self.apps);
        println!("{:>9.0}  the simulated Marathon alone: one listing, asked for and received", found.answer);
        println!("{:>9.0}  from the agent's start to the last service in the maps", found.read);
        println!("{:>9.0}  the difference: attaching, reading, planning, writing", found.read - found.answer);
        println!("{:>9.2}  from the event's bytes that end a task to its service's switch", median(&found.written));
        println!("{:>9.2}  the same, 99th percentile of {}", percentile(&found.written, 99), found.written.len());
        println!("{:>9}  full reads went on meanwhile", found.listings);
        println!("{:>9.2}  from the request that makes the simulator end the task", median(&found.asked));
        println!("{:>9.2}  the same, 99th percentile", percentile(&found.asked, 99));
        println!("{:>9.0}  MB: the agent's resident memory, now", found.resident);
        println!("{:>9.0}  MB: and at its highest", found.highest);
        Ok(())
    }

    /// Returns the benchmark for another one: this many apps, tasks of each, and events.
    pub(crate) fn of(apps: u16, tasks: u16, events: usize) -> Self {
        Self { apps, tasks, events, pause: 20 }
    }

    /// Measures. Before the agent starts, `first` gets the lab, its host, and Marathon's listing.
    pub(crate) fn measure(&self, first: impl FnOnce(&Lab, &Host, &str) -> Result<()>) -> Result<Measured> {
        let lab = Lab::start(1)?;
        let host = lab.host(1);
        let marathon = SocketAddr::from((host.address(), MARATHON));
        let mut sim = self.simulate(&lab, host)?;
        let (answer, body) = self.answer_alone(host, marathon)?;
        first(&lab, host, &body)?;
        drop(body);
        let (services, backends, slots) = self.capacity();
        let sizes = ["--max-services", &services, "--max-backends", &backends, "--max-slots", &slots];
        // So frequent that full reads go on while events arrive.
        let flags = [&["--refresh-interval", "1"][..], &sizes].concat();
        let started = Instant::now();
        let agent = host.agent(&format!("http://{marathon}"), &flags)?;
        let (maps, read) = self.first_read(host, started)?;
        let times = self.events(host, marathon, &maps)?;
        let found = Measured {
            answer: ms(answer),
            read: ms(read),
            written: times.written,
            asked: times.asked,
            listings: times.listings,
            resident: resident(&agent, "VmRSS:")?,
            highest: resident(&agent, "VmHWM:")?,
        };
        sim.terminate(Duration::from_secs(5))?;
        Ok(found)
    }

    /// Returns the map sizes for this cluster: the defaults, if they are enough.
    fn capacity(&self) -> (String, String, String) {
        let backends = u32::from(self.apps) * u32::from(self.tasks);
        let services = (u32::from(self.apps) + 64).max(16_384);
        (services.to_string(), (backends + backends / 4).max(65_536).to_string(), (1 << 20).to_string())
    }

    fn simulate(&self, lab: &Lab, host: &Host) -> Result<Process> {
        let task = |n: u16, k: u16| json!({ "host": format!("10.{}.{}.{}", 100 + k, n >> 8, n & 255), "port": 31_000 });
        let tasks = |n| (0..self.tasks).map(|k| task(n, k)).collect::<Vec<_>>();
        let app = |n| json!({ "id": format!("/bench/{n}"), "servicePort": FIRST + n, "tasks": tasks(n) });
        let file = lab.run_dir().join("apps.json");
        fs::write(&file, serde_json::to_vec(&(0..self.apps).map(app).collect::<Vec<Value>>())?)?;
        let file = file.to_str().context("the run directory is not UTF-8")?;
        let listen = format!("{}:{MARATHON}", host.address());
        let mut sim = host.spawn(&binary("marathon-sim")?, &["--listen", &listen, "--apps", file])?;
        sim.said("listening on", Duration::from_secs(60))?;
        Ok(sim)
    }

    /// Returns the simulator's own time for a listing, the second one: the first one builds its texts.
    fn answer_alone(&self, host: &Host, marathon: SocketAddr) -> Result<(Duration, String)> {
        let path = "/v2/apps?embed=apps.tasks&embed=apps.readiness";
        host.call("GET", marathon, path, "")?;
        let asked = Instant::now();
        let body = host.call("GET", marathon, path, "")?;
        Ok((asked.elapsed(), body))
    }

    fn first_read(&self, host: &Host, started: Instant) -> Result<(Maps, Duration)> {
        let pins = Pins::at(&host.pins());
        let maps = eventually("the agent has made its maps", Duration::from_secs(10), || Maps::open(&pins).ok())?;
        let last = u32::from(self.apps) - 1;
        // Ids are assigned in order of the ports, so the last service is the last to be switched.
        eventually("the last service is there", Duration::from_secs(60), || {
            maps.slot_range(last).filter(|head| head.length() == u32::from(self.tasks))
        })?;
        let read = started.elapsed();
        eventually_ok("all services are there", Duration::from_secs(10), || {
            let there = host.services()?.len();
            ensure!(there == usize::from(self.apps), "{there}");
            Ok(())
        })?;
        Ok((maps, read))
    }

    fn events(&self, host: &Host, marathon: SocketAddr, maps: &Maps) -> Result<Times> {
        let state = host.call("GET", marathon, "/v2/tasks", "")?;
        let state: Value = serde_json::from_str(&state)?;
        let tasks = state["tasks"].as_array().context("no tasks")?;
        let step = (tasks.len() / self.events.max(1)).max(1);
        host.call("DELETE", marathon, "/sim/log", "")?;
        let mut times = Times::default();
        for task in tasks.iter().step_by(step).take(self.events) {
            let (id, app) = (task["id"].as_str().context("no id")?, task["appId"].as_str().context("no app")?);
            let service: u32 = app.rsplit('/').next().context("no number")?.parse()?;
            let before = maps.slot_range(service).context("no head")?;
            let body = json!({ "task": id, "state": "TASK_KILLING" }).to_string();
            let asked = monotonic()?;
            let switched = thread::scope(|scope| {
                // Watched while the response to the request is still under way, which may take longer than the switch.
                let watch = scope.spawn(|| switched(maps, service, before));
                host.call("POST", marathon, "/sim/state", &body)?;
                watch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).with_context(|| id.to_owned())
            })?;
            let written: Value = serde_json::from_str(&host.call("GET", marathon, "/sim/written", "")?)?;
            let written = Duration::from_nanos(written["ns"].as_u64().context("the event was never written")?);
            ensure!(asked <= written && written <= switched, "{asked:?}, {written:?}, {switched:?}");
            times.asked.push(ms(switched - asked));
            times.written.push(ms(switched - written));
            pause(Duration::from_millis(self.pause));
        }
        let log: Vec<Value> = serde_json::from_str(&host.call("GET", marathon, "/sim/log", "")?)?;
        times.listings = log.iter().filter(|request| request["path"] == "/v2/apps").count();
        Ok(times)
    }
}

/// Returns when a service has another slot range than before. It sleeps between two looks, since no other program
/// watches maps on a host.
fn switched(maps: &Maps, service: u32, before: SlotRange) -> Result<Duration> {
    let started = monotonic()?;
    while maps.slot_range(service) == Some(before) {
        ensure!(monotonic()? - started < Duration::from_secs(10), "it was never taken out");
        pause(Duration::from_micros(50));
    }
    monotonic()
}

#[expect(clippy::disallowed_methods, reason = "a finer step than `eventually` has, or its own would be measured")]
fn pause(time: Duration) {
    thread::sleep(time);
}

/// The time of CLOCK_MONOTONIC, which the simulator reports too.
fn monotonic() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC)?.into())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// Returns a line of /proc/PID/status, in MB.
pub(crate) fn resident(process: &Process, line: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{}/status", process.pid()?))?;
    let found = status.lines().find_map(|text| text.strip_prefix(line)).context("no such line")?;
    let kilobytes: f64 = found.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes / 1024.0)
}
