//! Makes load on command and prints the result: `local` runs it on each host for work that wrk and iperf3 cannot do.
//!
//! wrk and iperf3 cannot connect to another service each time, nor time connect(2); netperf, which has a
//! connect-request-response test, is not free software and not in Debian.

use std::{
    io::{self, BufRead as _, ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream as Blocking},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpStream, UdpSocket},
};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};
use serde::{Deserialize, Serialize};

use crate::{answer::MESSAGE, statistics::permille};

/// Takes commands from standard input, `WORK ADDRESS FIRST PORTS MS`, and answers each with one line of JSON.
#[derive(Debug, clap::Parser)]
pub(crate) struct Load;

/// The result of one command.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Done {
    /// Connections or requests that were answered.
    pub(crate) count: u64,
    /// Connections or requests that failed or timed out.
    pub(crate) failed: u64,
    /// The duration.
    pub(crate) seconds: f64,
    /// The time of one connect(2), in microseconds: the median, the 99th and the 99.9th percentile.
    pub(crate) connect_us: [f64; 3],
}

/// Number of connections, or UDP sockets, in flight.
const AT_ONCE: usize = 16;
/// Timeout of a datagram.
const LOST: Duration = Duration::from_millis(200);

impl Load {
    pub(crate) fn run(&self) -> Result<()> {
        for line in io::stdin().lock().lines() {
            let line = line?;
            let words: Vec<&str> = line.split_whitespace().collect();
            let [work, address, first, ports, ms] = words[..] else { bail!("cannot read {line:?}") };
            let targets = Targets {
                address: address.parse()?,
                first: first.parse()?,
                count: ports.parse()?,
                random: fastrand::Rng::with_seed(0),
            };
            let time = Duration::from_millis(ms.parse()?);
            let done = match work {
                "crr" => connections(targets, time),
                "udp" => datagrams(targets, time, true),
                "udp-unconnected" => datagrams(targets, time, false),
                "connect" => connects(targets, time),
                _ => bail!("no work is called {work}"),
            };
            println!("{}", serde_json::to_string(&done.with_context(|| line.clone())?)?);
        }
        Ok(())
    }
}

/// The ports to connect to, in a fixed shuffle that defeats caches.
struct Targets {
    address: Ipv4Addr,
    first: u16,
    count: u16,
    random: fastrand::Rng,
}

impl Targets {
    fn next(&mut self) -> SocketAddr {
        SocketAddr::from((self.address, self.first + self.random.u16(..self.count)))
    }
}

/// One connection with one request, from socket(2) to close(2).
struct Flight {
    stream: TcpStream,
    sent: bool,
    answered: bool,
}

/// The next step of a connection.
enum Step {
    Waits,
    Landed,
    Failed,
}

impl Flight {
    fn start(targets: &mut Targets, poll: &Poll, token: usize) -> Result<Self> {
        let mut stream = TcpStream::connect(targets.next())?;
        poll.registry().register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, sent: false, answered: false })
    }

    fn step(&mut self) -> Step {
        let failed = |error: &io::Error| match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::NotConnected => Step::Waits,
            _ => Step::Failed,
        };
        if !self.sent {
            match self.stream.write(&[b'C'; MESSAGE]) {
                Ok(MESSAGE) => self.sent = true,
                Ok(_) => return Step::Failed,
                Err(error) => return failed(&error),
            }
        }
        let mut bytes = [0; 2 * MESSAGE];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) if self.answered => return Step::Landed,
                Ok(0) => return Step::Failed,
                Ok(_) => self.answered = true,
                Err(error) => return failed(&error),
            }
        }
    }
}

/// Opens connection after connection, each with one request.
fn connections(mut targets: Targets, time: Duration) -> Result<Done> {
    let mut poll = Poll::new()?;
    let mut flights =
        (0..AT_ONCE).map(|token| Flight::start(&mut targets, &poll, token)).collect::<Result<Vec<_>>>()?;
    let (mut done, begun, mut events) = (Done::default(), Instant::now(), Events::with_capacity(AT_ONCE));
    while begun.elapsed() < time {
        poll.poll(&mut events, Some(Duration::from_millis(100)))?;
        for event in &events {
            let Token(token) = event.token();
            match flights[token].step() {
                Step::Waits => continue,
                Step::Landed => done.count += 1,
                Step::Failed => done.failed += 1,
            }
            flights[token] = Flight::start(&mut targets, &poll, token)?;
        }
    }
    Ok(Done { seconds: begun.elapsed().as_secs_f64(), ..done })
}

/// Sends request after request from UDP sockets, one in flight for each.
fn datagrams(mut targets: Targets, time: Duration, connected: bool) -> Result<Done> {
    let mut poll = Poll::new()?;
    let mut sockets = Vec::with_capacity(AT_ONCE);
    for token in 0..AT_ONCE {
        let mut socket = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        let to = targets.next();
        if connected {
            socket.connect(to)?;
        }
        poll.registry().register(&mut socket, Token(token), Interest::READABLE)?;
        sockets.push((socket, to, Instant::now()));
    }
    let ask = |socket: &UdpSocket, to: SocketAddr| {
        let question = [b'U'; MESSAGE];
        if connected { socket.send(&question) } else { socket.send_to(&question, to) }
    };
    let (mut done, begun, mut events) = (Done::default(), Instant::now(), Events::with_capacity(AT_ONCE));
    for (socket, to, _) in &sockets {
        ask(socket, *to)?;
    }
    let mut bytes = [0; 2 * MESSAGE];
    while begun.elapsed() < time {
        poll.poll(&mut events, Some(LOST / 2))?;
        for event in &events {
            let Token(token) = event.token();
            let (socket, to, asked) = &mut sockets[token];
            // Each reply is followed by the next request until there is no more: an edge-triggered socket reports only
            // once.
            while let Ok((_, from)) = socket.recv_from(&mut bytes) {
                done.count += u64::from(from == *to);
                done.failed += u64::from(from != *to);
                *asked = Instant::now();
                let _ = ask(socket, *to);
            }
        }
        if events.is_empty() {
            for (socket, to, asked) in sockets.iter_mut().filter(|(_, _, asked)| asked.elapsed() > LOST) {
                done.failed += 1;
                *asked = Instant::now();
                let _ = ask(socket, *to);
            }
        }
    }
    Ok(Done { seconds: begun.elapsed().as_secs_f64(), ..done })
}

/// Times one connect(2) after the other.
fn connects(mut targets: Targets, time: Duration) -> Result<Done> {
    let (mut took, mut failed, begun) = (Vec::new(), 0, Instant::now());
    while begun.elapsed() < time {
        let to = targets.next();
        let begun = Instant::now();
        let Ok(stream) = Blocking::connect(to) else {
            failed += 1;
            continue;
        };
        took.push(begun.elapsed().as_secs_f64() * 1e6);
        // Closed with a reset, so that the local ports do not run out in TIME_WAIT.
        setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    }
    let connect_us = [500, 990, 999].map(|of| permille(&took, of));
    Ok(Done { count: took.len() as u64, failed, seconds: begun.elapsed().as_secs_f64(), connect_us })
}
