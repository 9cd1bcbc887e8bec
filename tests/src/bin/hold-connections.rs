//! Clients that hold their sockets: each sends requests on a TCP connection, a connected UDP socket and an unconnected
//! one, all opened at the start, and on a new TCP and a new UDP socket each time. Every reply must arrive, and
//! getpeername(2) and recvfrom(2) must return the service address.
#![expect(clippy::print_stdout, reason = "its summaries are its output")]

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, ensure};
use clap::Parser;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use proxymatic_tests::eventually::{uninterrupted, until};
use proxymatic_tests::lab::PATIENCE;
use proxymatic_tests::summary::{Failed, Summary};

/// Pause between the rounds of one client: the test is about failures, not about throughput.
const PAUSE: Duration = Duration::from_millis(2);
const REPORT: Duration = Duration::from_millis(50);

/// Sends requests to a service whose replicas answer with words, until standard input is closed; prints a summary so
/// far again and again.
#[derive(Parser)]
struct Args {
    /// The service address.
    #[arg(long)]
    service: SocketAddr,
    /// The number of clients, each with sockets of its own.
    #[arg(long, default_value_t = 8)]
    clients: u8,
}

struct Kept {
    stream: TcpStream,
    connected: UdpSocket,
    loose: UdpSocket,
}

fn main() -> Result<ExitCode> {
    let Args { service, clients } = Args::parse();
    let kept = (0..clients).map(|_| Kept::open(service)).collect::<Result<Vec<_>>>()?;
    let (summary, stop) = (Mutex::new(Summary::default()), AtomicBool::new(false));
    let so_far = || summary.lock().unwrap_or_else(PoisonError::into_inner).clone();
    thread::scope(|scope| -> Result<()> {
        for kept in kept {
            let (summary, stop) = (&summary, &stop);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    kept.round(service, summary);
                    until(Instant::now() + PAUSE);
                }
            });
        }
        let (open, closed) = mpsc::channel::<()>();
        thread::spawn(move || {
            let _ = io::stdin().read_to_end(&mut Vec::new());
            drop(open);
        });
        while closed.recv_timeout(REPORT) == Err(RecvTimeoutError::Timeout) {
            println!("{}", serde_json::to_string(&so_far())?);
        }
        stop.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    println!("{}", serde_json::to_string(&so_far())?);
    Ok(ExitCode::from(u8::from(so_far().failed > 0)))
}

impl Kept {
    fn open(service: SocketAddr) -> Result<Self> {
        let connected = datagrams()?;
        connected.connect(service)?;
        Ok(Self { stream: stream(service)?, connected, loose: datagrams()? })
    }

    fn round(&self, service: SocketAddr, summary: &Mutex<Summary>) {
        let asked: [(&str, Result<String>); 5] = [
            ("kept connection", ask_stream(&self.stream, service)),
            ("kept connected datagrams", ask_peer(&self.connected, service)),
            ("kept datagrams", ask_to(&self.loose, service)),
            ("new connection", stream(service).and_then(|stream| ask_stream(&stream, service))),
            ("new datagrams", datagrams().and_then(|socket| ask_to(&socket, service))),
        ];
        let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, answer) in asked {
            match answer {
                Ok(word) => summary.answer(&format!("{what}: {word}"), None, 0),
                Err(error) => summary.fail(Failed {
                    at: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().as_secs_f64(),
                    took_us: 0,
                    during: what.to_owned(),
                    error: format!("{error:#}"),
                    destination: service,
                    local: None,
                }),
            }
        }
    }
}

fn stream(service: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&service, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // So that many short connections do not use up the local ports.
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    Ok(stream)
}

fn datagrams() -> Result<UdpSocket> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn ask_stream(mut stream: &TcpStream, service: SocketAddr) -> Result<String> {
    let peer = stream.peer_addr()?;
    ensure!(peer == service, "getpeername returned {peer}");
    stream.write_all(b"?")?;
    let mut buffer = [0; 64];
    let length = uninterrupted(|| stream.read(&mut buffer))?;
    ensure!(length > 0, "closed");
    Ok(String::from_utf8_lossy(&buffer[..length]).into())
}

fn ask_peer(socket: &UdpSocket, service: SocketAddr) -> Result<String> {
    let peer = socket.peer_addr()?;
    ensure!(peer == service, "getpeername returned {peer}");
    socket.send(b"?")?;
    received(socket, service)
}

fn ask_to(socket: &UdpSocket, service: SocketAddr) -> Result<String> {
    socket.send_to(b"?", service)?;
    received(socket, service)
}

fn received(socket: &UdpSocket, service: SocketAddr) -> Result<String> {
    let mut buffer = [0; 64];
    let (length, from) = uninterrupted(|| socket.recv_from(&mut buffer))?;
    ensure!(from == service, "answered by {from}");
    Ok(String::from_utf8_lossy(&buffer[..length]).into())
}
