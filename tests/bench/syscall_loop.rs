//! Repeats one system call and prints its time: `hooks` runs it in each cgroup.

use std::{
    io::{self, BufRead as _},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Instant,
};

use anyhow::{Result, bail};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use crate::statistics::median;

/// Takes commands from standard input, `WORK ADDRESS FIRST PORTS`, and answers each with nanoseconds per call.
#[derive(Debug, clap::Parser)]
pub(crate) struct SyscallLoop;

/// Number of calls that are timed together: reading the clock costs as much as a call.
const TOGETHER: u32 = 64;
/// Number of repetitions for one answer.
const SAMPLES: usize = 250;

impl SyscallLoop {
    pub(crate) fn run(&self) -> Result<()> {
        for line in io::stdin().lock().lines() {
            let line = line?;
            let words: Vec<&str> = line.split_whitespace().collect();
            let [work, address, first, ports] = words[..] else { bail!("cannot read {line:?}") };
            let ports = Ports { address: address.parse()?, first: first.parse()?, count: ports.parse()? };
            println!("{}", measure(work, ports)?);
        }
        Ok(())
    }
}

/// The ports to connect to, in a fixed shuffle that defeats caches.
#[derive(Clone, Copy)]
struct Ports {
    address: Ipv4Addr,
    first: u16,
    count: u16,
}

fn measure(work: &str, ports: Ports) -> Result<f64> {
    let mut random = fastrand::Rng::with_seed(0);
    let mut next = move || SocketAddr::from((ports.address, ports.first + random.u16(..ports.count)));
    let kept = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mut call = || -> Result<()> {
        match work {
            "reconnect" => connect(&kept, &next())?,
            "fresh" => {
                let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
                connect(&socket, &next())?;
            }
            // No reply is needed; an error that a host returns is that of the datagram before.
            "send" => drop(kept.send_to(b"x", next())),
            _ => bail!("no work is called {work}"),
        }
        Ok(())
    };
    let mut samples = Vec::with_capacity(SAMPLES);
    for _ in 0..SAMPLES {
        let begun = Instant::now();
        for _ in 0..TOGETHER {
            call()?;
        }
        samples.push(begun.elapsed().as_nanos() as f64 / f64::from(TOGETHER));
    }
    Ok(median(&samples))
}
