//! Connects to service ports in a loop.

use std::{
    net::{Ipv4Addr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};

/// Connects to service ports in a loop.
#[derive(Debug, clap::Parser)]
pub(crate) struct ConnectLoop {
    /// The first service port.
    #[arg(long)]
    first: u16,
    /// Number of ports from there on; each connect takes the next of a fixed shuffle.
    #[arg(long, default_value_t = 1)]
    ports: u16,
    /// Duration in seconds.
    #[arg(long)]
    seconds: f64,
    /// Print the time of a connect, in microseconds: the median, the 99th percentile, and the maximum.
    #[arg(long)]
    latencies: bool,
}

impl ConnectLoop {
    pub(crate) fn run(&self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs_f64(self.seconds);
        // The same ports in every run, in an order that defeats caches.
        let (mut took, mut random) = (Vec::new(), fastrand::Rng::with_seed(0));
        while Instant::now() < end {
            let port = self.first + random.u16(..self.ports);
            let began = Instant::now();
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).with_context(|| format!("port {port}"))?;
            took.push(began.elapsed().as_secs_f64() * 1e6);
            // Closed with a reset, so that the local ports do not run out in TIME_WAIT.
            setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
        }
        ensure!(!took.is_empty(), "no connect in {} s", self.seconds);
        took.sort_by(f64::total_cmp);
        let of = |part: f64| took[((took.len() - 1) as f64 * part) as usize];
        if self.latencies {
            println!("{:.1} {:.1} {:.1}", of(0.5), of(0.99), of(1.0));
        } else {
            println!("{}", took.len());
        }
        Ok(())
    }
}
