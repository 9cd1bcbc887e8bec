//! Opens connection after connection, and prints the start of each and the replica that answered: `change` measures
//! with it.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;
use nix::errno::Errno;
use nix::time::{ClockId, clock_gettime};
use proxymatic_tests::eventually::until;

/// Prints a line for each connection until it is ended: nanoseconds of CLOCK_MONOTONIC, and a port or an errno.
#[derive(Debug, clap::Parser)]
pub(crate) struct Probe {
    /// The address to connect to.
    #[arg(long)]
    address: Ipv4Addr,
    /// The first port.
    #[arg(long)]
    first: u16,
    /// Number of ports from there on, in turn.
    #[arg(long, default_value_t = 1)]
    ports: u16,
    /// Threads, each with one connection at a time.
    #[arg(long, default_value_t = 1)]
    threads: u16,
    /// Microseconds between two connections of a thread.
    #[arg(long, default_value_t = 500)]
    every: u64,
}

/// Timeout of a connection and its answer.
const PATIENCE: Duration = Duration::from_secs(3);

impl Probe {
    pub(crate) fn run(&self) -> Result<()> {
        thread::scope(|scope| {
            for nth in 0..self.threads {
                scope.spawn(move || self.probe(nth));
            }
        });
        Ok(())
    }

    fn probe(&self, nth: u16) {
        let mut turn = 0_u16;
        loop {
            turn = turn.wrapping_add(1);
            let next = Instant::now() + Duration::from_micros(self.every);
            let port = self.first + turn.wrapping_add(nth) % self.ports;
            let begun = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
            let who = match ask((self.address, port).into()) {
                Ok(who) => who,
                Err(error) => error
                    .raw_os_error()
                    .map_or_else(|| error.to_string(), |number| format!("{:?}", Errno::from_raw(number))),
            };
            println!("{} {}", begun.as_nanos(), who.replace(' ', "-"));
            until(next);
        }
    }
}

/// Returns the port that answers a request on a connection of its own.
fn ask(to: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[b'C'; crate::answer::MESSAGE])?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.trim() {
        // A forwarder that accepts and has no backend.
        "" => Err(std::io::Error::other("closed without an answer")),
        who => Ok(who.to_owned()),
    }
}
