//! A UDP client with connected and unconnected sockets: it waits for every reply, and records every failure with time
//! and errno. It prints a summary so far every second, and a last one when its input ends.
#![expect(clippy::print_stdout, reason = "a program's answer goes to stdout")]

use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use nix::errno::Errno;
use proxymatic_tests::eventually::{uninterrupted, until};
use proxymatic_tests::summary::{Failed, Summary};

/// Sends datagrams to a UDP service until standard input is closed. Exit status 0 if every datagram was answered, else
/// 1.
#[derive(Parser)]
struct Cli {
    /// The service address.
    #[arg(long, value_name = "ADDR:PORT")]
    to: SocketAddr,
    /// Number of connected sockets.
    #[arg(long, default_value_t = 2)]
    connected: usize,
    /// Number of unconnected sockets.
    #[arg(long, default_value_t = 2)]
    unconnected: usize,
    /// Datagrams per second and socket.
    #[arg(long, default_value_t = 20.0)]
    rate: f64,
    /// How many datagrams a socket sends before a new one replaces it.
    #[arg(long, default_value_t = 100)]
    each: u32,
    /// Timeout of a reply.
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    timeout: u64,
}

/// A socket, and the replica that last answered it.
struct Asker {
    socket: UdpSocket,
    connected: bool,
    last: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let parts: Vec<Mutex<Summary>> = (0..cli.connected + cli.unconnected).map(|_| Mutex::default()).collect();
    let so_far = || parts.iter().fold(Summary::default(), |sum, part| sum.plus(&lock(part)));
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        for (nth, part) in parts.iter().enumerate() {
            let (cli, stop) = (&cli, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    one_socket(cli, nth < cli.connected, part, stop);
                }
            });
        }
        let (open, closed) = mpsc::channel::<()>();
        thread::spawn(move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            drop(open);
        });
        while closed.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
            print(&so_far());
        }
        stop.store(true, Ordering::Relaxed);
    });
    let summary = so_far();
    print(&summary);
    ExitCode::from(u8::from(summary.failed > 0))
}

/// The life of one socket: it ends after this many datagrams, or with the first failure.
fn one_socket(cli: &Cli, connected: bool, part: &Mutex<Summary>, stop: &AtomicBool) {
    let mut asker = None;
    for _ in 0..cli.each {
        let (begun, at) = (Instant::now(), SystemTime::now());
        let mut outcome = ask(cli, connected, &mut asker);
        if connected && outcome.as_ref().err().is_some_and(is_told) {
            // When its replica is gone, it does what programs do: it connects and sends again.
            let who = asker.take().and_then(|asker| asker.last).unwrap_or_default();
            *lock(part).resets.entry(who).or_default() += 1;
            outcome = ask(cli, connected, &mut asker);
        }
        let took = begun.elapsed().as_micros().try_into().unwrap_or(u64::MAX);
        match outcome {
            Ok(who) => lock(part).answer(&who, None, took),
            Err(error) => {
                let during = if connected { "connected" } else { "unconnected" };
                lock(part).fail(Failed {
                    at: at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
                    took_us: took,
                    during: during.to_owned(),
                    error: error
                        .raw_os_error()
                        .map_or_else(|| error.to_string(), |number| format!("{:?}", Errno::from_raw(number))),
                    destination: cli.to,
                    local: asker.as_ref().and_then(|asker| asker.socket.local_addr().ok()),
                });
                // A late reply must not count as the reply to the next request.
                return;
            }
        }
        if stop.load(Ordering::Relaxed) {
            return;
        }
        until(begun + Duration::from_secs_f64(1.0 / cli.rate));
    }
}

/// Whether the socket was closed from outside, as SOCK_DESTROY does. A program that waits for a reply gets
/// ECONNABORTED; one that sends first finds the socket without a peer (udp_abort and udp_sendmsg of net/ipv4/udp.c).
fn is_told(error: &io::Error) -> bool {
    let told = [Errno::ECONNABORTED, Errno::EDESTADDRREQ];
    error.raw_os_error().is_some_and(|number| told.contains(&Errno::from_raw(number)))
}

fn ask(cli: &Cli, connected: bool, asker: &mut Option<Asker>) -> io::Result<String> {
    let asker = match asker {
        Some(asker) => asker,
        None => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.set_read_timeout(Some(Duration::from_millis(cli.timeout)))?;
            if connected {
                socket.connect(cli.to)?;
            }
            asker.insert(Asker { socket, connected, last: None })
        }
    };
    let mut buffer = [0; 64];
    let length = if asker.connected {
        asker.socket.send(b"?")?;
        uninterrupted(|| asker.socket.recv(&mut buffer))?
    } else {
        asker.socket.send_to(b"?", cli.to)?;
        let (length, from) = uninterrupted(|| asker.socket.recv_from(&mut buffer))?;
        if from != cli.to {
            return Err(io::Error::other(format!("answered by {from}")));
        }
        length
    };
    let who = String::from_utf8_lossy(&buffer[..length]).into_owned();
    asker.last = Some(who.clone());
    Ok(who)
}

fn print(summary: &Summary) {
    // A summary consists of numbers and text, so writing it cannot fail.
    println!("{}", serde_json::to_string(summary).unwrap_or_default());
}

fn lock(part: &Mutex<Summary>) -> MutexGuard<'_, Summary> {
    part.lock().unwrap_or_else(PoisonError::into_inner)
}
