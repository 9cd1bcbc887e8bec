//! The time of commands and of the endpoint with many services, and their effect on connects.

use std::{
    env,
    net::{Ipv4Addr, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::{
    eventually::until,
    http::{Url, exchange},
    lab::{Host, Lab, PATIENCE},
};

use crate::{
    services::{FIRST, serve},
    statistics::median,
};

/// The time of commands and answers, and of connects with a scrape each second and without.
#[derive(Debug, clap::Parser)]
pub(crate) struct Surface {
    /// Number of services.
    #[arg(long, default_value_t = 10_000)]
    services: u16,
    /// Rounds; each measures every case once.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Duration of the connects in each round.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
}

const ENDPOINT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);
/// After this time the endpoint reads the maps again.
const STALE: Duration = Duration::from_millis(1100);

impl Surface {
    pub(crate) fn run(&self) -> Result<()> {
        let lab = Lab::start(1)?;
        let host = lab.host(1);
        let _running = serve(&lab, 1, self.services)?;
        println!("{} services; ms, median of {} (longest)", self.services, self.rounds);
        self.time("proxymatic -j service show", || {
            Ok(host.proxymatic(&["-j", "service", "show"])?.well()?.stdout.len())
        })?;
        for path in ["/metrics", "/v1/services", "/v1/status", "/", "/status"] {
            self.time(path, || {
                let body = answer(host, path)?;
                Ok(body.len())
            })?;
        }
        let (mut quiet, mut scraped) = (Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            quiet.push(self.connects(host, false)?);
            scraped.push(self.connects(host, true)?);
        }
        println!("one connect, µs: medians of {} rounds of {} s, interleaved", self.rounds, self.seconds);
        println!("{:>9}  {:>9}  {:>9}", "median", "99 %", "longest");
        for (rounds, what) in [(quiet, "nobody looks"), (scraped, "/metrics each second")] {
            let [half, most, all] = [0, 1, 2].map(|nth| median(&rounds.iter().map(|it| it[nth]).collect::<Vec<_>>()));
            println!("{half:>9.1}  {most:>9.1}  {all:>9.1}  {what}");
        }
        Ok(())
    }

    fn time(&self, what: &str, mut work: impl FnMut() -> Result<usize>) -> Result<()> {
        let (mut times, mut bytes) = (Vec::new(), 0);
        for _ in 0..self.rounds {
            until(Instant::now() + STALE);
            let began = Instant::now();
            bytes = work()?;
            times.push(began.elapsed().as_secs_f64() * 1e3);
        }
        let longest = times.iter().copied().fold(0.0, f64::max);
        println!("{:>9.1}  ({longest:.1})  {what}, {bytes} bytes", median(&times));
        Ok(())
    }

    /// Median, 99th percentile and maximum of connects, in microseconds.
    fn connects(&self, host: &Host, scrape: bool) -> Result<[f64; 3]> {
        let (first, ports) = (FIRST.to_string(), self.services.to_string());
        let seconds = self.seconds.to_string();
        let arguments = ["connect-loop", "--first", &first, "--ports", &ports, "--seconds", &seconds, "--latencies"];
        let mut clients = host.spawn(&env::current_exe()?, &arguments)?;
        clients.close_stdin();
        let end = Instant::now() + Duration::from_secs_f64(self.seconds);
        while scrape && Instant::now() < end {
            let next = Instant::now() + Duration::from_secs(1);
            answer(host, "/metrics")?;
            until(next);
        }
        let said = clients.finish(Duration::from_secs_f64(self.seconds) + PATIENCE)?.well()?.stdout;
        let numbers: Vec<f64> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        numbers.try_into().map_err(|_| anyhow::anyhow!("connect-loop printed {said:?}"))
    }
}

fn answer(host: &Host, path: &str) -> Result<String> {
    host.net().enter(|| {
        let mut stream = TcpStream::connect(ENDPOINT)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let reply = exchange(&mut stream, "GET", &Url::new(ENDPOINT, path), "").context(path.to_owned())?;
        ensure!(reply.status == 200, "{path}: {}", reply.status);
        Ok(reply.body)
    })?
}
