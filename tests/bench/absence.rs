//! From Marathon's return to the first change that is served, after absences of several lengths.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use proxymatic_tests::{
    eventually::{eventually, until},
    lab::{Host, Lab, PATIENCE, Sim},
};
use serde_json::json;

/// How long an agent takes to serve a change after Marathon was away.
#[derive(Debug, clap::Parser)]
pub(crate) struct Absence {
    /// The absences, in seconds.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 120, 1_200])]
    seconds: Vec<u64>,
    /// How often the first of them is measured, the others once.
    #[arg(long, default_value_t = 3)]
    times: usize,
}

impl Absence {
    pub(crate) fn run(&self) -> Result<()> {
        println!("{:>9}{:>28}{:>28}", "absence", "change in the absence", "change at the return");
        for (nth, seconds) in self.seconds.iter().enumerate() {
            for _ in 0..if nth == 0 { self.times } else { 1 } {
                let [before, after] = measure(Duration::from_secs(*seconds))?;
                println!("{seconds:>7} s{:>24.0} ms{:>25.0} ms", before.as_secs_f64() * 1e3, after.as_secs_f64() * 1e3);
            }
        }
        Ok(())
    }
}

/// Returns the time until an app is served that was made in the absence, and until one is that was made right after
/// the return.
fn measure(absence: Duration) -> Result<[Duration; 2]> {
    let lab = Lab::start(2)?;
    let app = |id: &str, port: u16| json!({ "id": id, "servicePort": port, "tasks": [{ "host": "10.9.0.1", "port": 31_000 }] });
    let file = lab.run_dir().join("apps.json");
    let apps = file.to_str().context("the run directory is not UTF-8")?.to_owned();
    fs::write(&file, json!([app("/before", 1001)]).to_string())?;
    let mut sim = lab.sim_with(&["--apps", &apps])?;
    let host = lab.host(2);
    let _agent = host.agent(&lab.marathon_url(), &[])?;
    served(host, 1001)?;
    sim.process.kill9()?;
    let gone = Instant::now();
    fs::write(&file, json!([app("/before", 1001), app("/meanwhile", 1002)]).to_string())?;
    until(gone + absence);
    // The process listens a few milliseconds after its start.
    let back = Instant::now();
    let sim: Sim<'_> = lab.sim_with(&["--apps", &apps])?;
    let posted = Instant::now();
    sim.control("apps", &app("/after", 1003))?;
    let (meanwhile, after) = std::thread::scope(|scope| {
        let meanwhile = scope.spawn(|| served(host, 1002));
        let after = served(host, 1003);
        (meanwhile.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), after)
    });
    Ok([meanwhile?.saturating_duration_since(back), after?.saturating_duration_since(posted)])
}

/// Waits until a service has a backend, and returns when that was seen.
fn served(host: &Host, port: u16) -> Result<Instant> {
    eventually(&format!("port {port} is served"), 2 * PATIENCE, || {
        let services = host.services().ok()?;
        services.iter().any(|it| it.port == port && it.active().count() == 1).then(Instant::now)
    })
}
