//! A counting HTTP client: one connection per request, every answer verified, every failure recorded with time and
//! errno.
#![expect(clippy::print_stderr, reason = "a program's errors go to stderr")]

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use clap::{Args, Parser};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::time::{ClockId, clock_gettime};
use proxymatic_tests::eventually::until;
use proxymatic_tests::http::{self, Url};
use proxymatic_tests::summary::{Failed, Summary};

/// Sends requests, each on a connection of its own, and counts the answering replicas. Exit status 0 if every request
/// was answered, else 1.
#[derive(Parser)]
enum Cli {
    /// Sends a number of requests, one after the other; prints one summary.
    Http {
        /// The number of requests.
        #[arg(long, default_value_t = 1)]
        count: u64,
        #[command(flatten)]
        request: Request,
    },
    /// Sends requests at a constant rate; prints a summary so far at every interval and a last one at the end.
    Load {
        #[command(flatten)]
        end: End,
        /// Threads, each with one connection at a time.
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// Connections per second over all threads; the default is as many as possible.
        #[arg(long)]
        rate: Option<f64>,
        /// Interval of the summaries, in milliseconds.
        #[arg(long, value_name = "MS", default_value_t = 200)]
        report_every: u64,
        #[command(flatten)]
        request: Request,
    },
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct End {
    /// Stop after this many seconds.
    #[arg(long)]
    seconds: Option<u64>,
    /// Stop when standard input is closed.
    #[arg(long)]
    until_stdin_closes: bool,
}

#[derive(Args)]
struct Request {
    /// http://localhost:1234/, or an IP address in place of localhost.
    #[arg(long)]
    url: Url,
    /// Count the addresses that getpeername returns.
    #[arg(long)]
    peer: bool,
    /// Send the time at which the connection began: `?begun=NS` of the monotonic clock.
    #[arg(long)]
    stamp: bool,
    /// Close with a reset, so that many short connections do not use up the local ports.
    #[arg(long)]
    linger0: bool,
    /// Timeout of a connect, and of an answer.
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    timeout: u64,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse() {
        Cli::Http { count, request } => {
            let summary = Mutex::default();
            (0..count).for_each(|_| request.once(&summary));
            let summary = lock(&summary).clone();
            print(&summary).map(|()| summary)
        }
        Cli::Load { end, threads, rate, report_every, request } => {
            load(&request, &end, threads, rate, Duration::from_millis(report_every))
        }
    };
    match outcome {
        Ok(summary) => ExitCode::from(u8::from(summary.failed > 0)),
        Err(error) => {
            eprintln!("client: {error}");
            ExitCode::from(2)
        }
    }
}

fn load(
    request: &Request,
    end: &End,
    threads: usize,
    rate: Option<f64>,
    report_every: Duration,
) -> io::Result<Summary> {
    let parts: Vec<Mutex<Summary>> = (0..threads).map(|_| Mutex::default()).collect();
    let so_far = || parts.iter().fold(Summary::default(), |sum, part| sum.plus(&lock(part)));
    let stop = AtomicBool::new(false);
    // A hanging thread does not slow the others down: each takes the next free turn.
    let (begun, turns) = (Instant::now(), AtomicU32::new(0));
    let turn = |rate| until(begun + Duration::from_secs_f64(f64::from(turns.fetch_add(1, Ordering::Relaxed)) / rate));
    thread::scope(|scope| {
        for part in &parts {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    rate.into_iter().for_each(turn);
                    request.once(part);
                }
            });
        }
        let said = report_until(end, report_every, || print(&so_far()));
        stop.store(true, Ordering::Relaxed);
        said
    })?;
    let summary = so_far();
    print(&summary)?;
    Ok(summary)
}

fn report_until(end: &End, every: Duration, mut report: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let (open, closed) = mpsc::channel::<()>();
    let deadline = end.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    // With a deadline nothing closes the channel, which then is only a clock.
    let _open = if end.until_stdin_closes {
        thread::spawn(move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            drop(open);
        });
        None
    } else {
        Some(open)
    };
    loop {
        let left = deadline.map_or(every, |at| at.saturating_duration_since(Instant::now()));
        if left.is_zero() || closed.recv_timeout(left.min(every)) != Err(RecvTimeoutError::Timeout) {
            return Ok(());
        }
        report()?;
    }
}

impl Request {
    fn once(&self, summary: &Mutex<Summary>) {
        let (begun, at) = (Instant::now(), SystemTime::now());
        let mut local = None;
        let outcome = self.attempt(&mut local);
        let took = begun.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
        match outcome {
            Ok((replica, peer)) => lock(summary).answer(&replica, peer, took),
            Err((during, error)) => lock(summary).fail(Failed {
                at: at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
                took_us: took,
                during: during.to_owned(),
                error: name(&error),
                destination: self.url.address,
                local,
            }),
        }
    }

    /// Returns the replica's name and its peer address, or the step that failed with the error.
    fn attempt(
        &self,
        local: &mut Option<SocketAddr>,
    ) -> Result<(String, Option<SocketAddr>), (&'static str, io::Error)> {
        let connect = |error| ("connect", error);
        let exchange = |error| ("exchange", error);
        let timeout = Duration::from_millis(self.timeout);
        let url = if self.stamp { stamped(&self.url).map_err(connect)? } else { self.url.clone() };
        let mut stream = TcpStream::connect_timeout(&self.url.address, timeout).map_err(connect)?;
        *local = stream.local_addr().ok();
        let peer = if self.peer { Some(stream.peer_addr().map_err(connect)?) } else { None };
        stream.set_read_timeout(Some(timeout)).map_err(connect)?;
        if self.linger0 {
            let reset = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&stream, sockopt::Linger, &reset).map_err(|errno| connect(errno.into()))?;
        }
        let reply = http::exchange(&mut stream, "GET", &url, "").map_err(exchange)?;
        if reply.status != 200 || reply.body.trim().is_empty() {
            return Err(("verify", io::Error::other(format!("status {}", reply.status))));
        }
        Ok((reply.body.trim().to_owned(), peer))
    }
}

/// Adds the time to the URL. It is taken before the socket is made, so the connection begins after it.
fn stamped(url: &Url) -> io::Result<Url> {
    let now = Duration::from(clock_gettime(ClockId::CLOCK_MONOTONIC)?);
    Ok(Url { path: format!("{}?begun={}", url.path, now.as_nanos()), ..url.clone() })
}

/// The errno's name, if it has one.
fn name(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("{:?}", Errno::from_raw(number)),
        None => error.to_string(),
    }
}

fn print(summary: &Summary) -> io::Result<()> {
    let line = serde_json::to_string(summary).map_err(io::Error::other)?;
    writeln!(io::stdout(), "{line}")
}

fn lock(part: &Mutex<Summary>) -> MutexGuard<'_, Summary> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
