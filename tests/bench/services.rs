//! The cost of a connect with one service and with many.

use std::{env, fs, time::Duration};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::{
    eventually::eventually_ok,
    lab::{Host, Lab, binary},
};
use serde_json::{Value, json};

use crate::statistics::median;

/// The mean run time of the connect program by `hook show`, with one service and with many.
#[derive(Debug, clap::Parser)]
pub(crate) struct Services {
    /// Number of services on the second host.
    #[arg(long, default_value_t = 10_000)]
    services: u16,
    /// Rounds; each measures every case once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// The first service port.
pub(crate) const FIRST: u16 = 10_000;
/// The port of a host's replica.
const REPLICA: u16 = 8001;

/// One case.
struct Case<'a> {
    name: String,
    host: &'a Host,
    ports: u16,
    means: Vec<f64>,
}

impl Services {
    pub(crate) fn run(&self) -> Result<()> {
        let lab = Lab::start(2)?;
        let _one = serve(&lab, 1, 1)?;
        let _many = serve(&lab, 2, self.services)?;
        let case = |name: String, host, ports| Case { name, host: lab.host(host), ports, means: Vec::new() };
        let mut cases = [
            case("1 service".into(), 1, 1),
            case(format!("{} services, one destination", self.services), 2, 1),
            case(format!("{} services, all destination in random order", self.services), 2, self.services),
        ];
        for round in 0..self.rounds {
            // Another order each round, so that no case always follows the same other.
            for step in 0..cases.len() {
                let case = &mut cases[(step + round) % 3];
                case.means.push(measure(case.host, case.ports)?);
            }
        }
        let base = median(&cases[0].means);
        println!("mean run time of connect4, median of {} rounds, interleaved", self.rounds);
        println!("{:>8}  {:>8}  {:>15}", "ns", "ratio", "min .. max");
        for case in &cases {
            let mean = median(&case.means);
            let (least, most) = case.means.iter().fold((f64::MAX, 0_f64), |(a, b), x| (a.min(*x), b.max(*x)));
            println!("{mean:>8.0}  {:>8.2}  {least:>6.0} .. {most:>5.0}  {}", mean / base, case.name);
        }
        Ok(())
    }
}

/// A host with a Marathon, an agent, and a replica behind every service.
pub(crate) fn serve(lab: &Lab, number: u8, services: u16) -> Result<Vec<proxymatic_tests::process::Process>> {
    let host = lab.host(number);
    let task = json!({ "host": host.address(), "port": REPLICA });
    let app = |n: u16| json!({ "id": format!("/bench/{n}"), "servicePort": FIRST + n, "tasks": [task] });
    let apps: Vec<Value> = (0..services).map(app).collect();
    let file = lab.run_dir().join(format!("apps-{number}.json"));
    fs::write(&file, serde_json::to_vec(&apps)?)?;
    let listen = format!("{}:8080", host.address());
    let file = file.to_str().context("the run directory is not UTF-8")?;
    let mut sim = host.spawn(&binary("marathon-sim")?, &["--listen", &listen, "--apps", file])?;
    sim.said("listening on", Duration::from_secs(30))?;
    let replica = host.replica(REPLICA, "r")?;
    let agent = host.agent(&format!("http://{listen}"), &[])?;
    eventually_ok("all services are there", Duration::from_secs(30), || {
        let there = host.services()?.len();
        ensure!(there == usize::from(services), "{there} of {services}");
        Ok(())
    })?;
    Ok(vec![agent, replica.process, sim])
}

/// Returns the mean over two seconds by `hook show`, while one process connects.
fn measure(host: &Host, ports: u16) -> Result<f64> {
    let program = env::current_exe()?;
    let (first, ports) = (FIRST.to_string(), ports.to_string());
    let mut clients =
        host.spawn(&program, &["connect-loop", "--first", &first, "--ports", &ports, "--seconds", "2.5"])?;
    clients.close_stdin();
    let said = host.proxymatic(&["-j", "hook", "show", "--seconds", "2"])?.well()?.stdout;
    clients.finish(Duration::from_secs(10))?.well()?;
    let hooks: Vec<Value> = serde_json::from_str(&said)?;
    let connect = hooks.iter().find(|hook| hook["hook"] == "connect4").context("no connect4")?;
    ensure!(connect["runs"].as_u64() > Some(1000), "too few runs to tell: {connect}");
    connect["mean_ns"].as_f64().context("no mean")
}
