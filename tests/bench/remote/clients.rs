//! The programs on the hosts at the ends: packet source, connection source, and the server of both.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    libc,
    sys::socket::{setsockopt, sockopt},
};

use proxymatic_tests::eventually::uninterrupted;

use super::{frames, stage::PAYLOAD};

/// Number of flows of the packets.
const FLOWS: usize = 16;
/// Number of packets per system call.
const BATCH: usize = 64;
/// Number of open connections.
const CALLERS: usize = 16;
/// How much longer clients run than the measurement.
const MARGIN: Duration = Duration::from_millis(300);

/// Sends small datagrams as fast as possible.
#[derive(Debug, clap::Parser)]
pub(crate) struct Pour {
    #[arg(long)]
    to: SocketAddr,
    #[arg(long)]
    seconds: f64,
    /// Without sockets: frames as from a card, by this interface.
    #[arg(long, value_name = "INTERFACE")]
    card: Option<String>,
}

/// Opens connections, one after the other, several at a time.
#[derive(Debug, clap::Parser)]
pub(crate) struct Call {
    #[arg(long)]
    to: SocketAddr,
    #[arg(long)]
    seconds: f64,
}

/// Echoes connections and datagrams.
#[derive(Debug, clap::Parser)]
pub(crate) struct Answer {
    #[arg(long)]
    port: u16,
}

impl Pour {
    pub(crate) fn run(&self) -> Result<()> {
        let flows = (0..FLOWS).map(|_| flow(self.to)).collect::<Result<Vec<_>>>()?;
        println!("begins");
        let end = Instant::now() + Duration::from_secs_f64(self.seconds) + MARGIN;
        if let Some(interface) = &self.card {
            return frames::pour(&flows, interface, end);
        }
        let packets = [b'x'; PAYLOAD as usize * BATCH];
        while Instant::now() < end {
            for flow in &flows {
                // A full queue is intended here.
                let _ = flow.send(&packets);
            }
        }
        Ok(())
    }
}

/// Returns a socket that has received one reply, so that both directions of the flow are known on its path.
fn flow(to: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(Duration::from_secs(2)))?;
    socket.connect(to)?;
    for _ in 0..2 {
        socket.send(b"?")?;
        uninterrupted(|| socket.recv(&mut [0; 8])).with_context(|| format!("no answer from {to}"))?;
    }
    // The kernel cuts the data into packets just before the interface (GSO).
    setsockopt(&socket, sockopt::UdpGsoSegment, &i32::from(PAYLOAD))?;
    Ok(socket)
}

impl Call {
    pub(crate) fn run(&self) -> Result<()> {
        call(self.to)?;
        println!("begins");
        let (count, begun) = (AtomicU64::new(0), Instant::now());
        let measured = begun + Duration::from_secs_f64(self.seconds);
        let caller = || -> Result<()> {
            while Instant::now() < measured + MARGIN {
                call(self.to)?;
                if Instant::now() < measured {
                    count.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        };
        thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(caller)).collect();
            callers.into_iter().try_for_each(|it| it.join().map_err(|_| anyhow!("a caller panicked"))?)
        })?;
        println!("{}", count.into_inner());
        Ok(())
    }
}

/// Connect, request, response, close with a reset, so that the local ports do not run out in TIME_WAIT.
fn call(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
    setsockopt(&stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0]).with_context(|| format!("an answer from {to}"))
}

impl Answer {
    pub(crate) fn run(&self) -> Result<()> {
        let any = (Ipv4Addr::UNSPECIFIED, self.port);
        let (listener, socket) = (TcpListener::bind(any)?, UdpSocket::bind(any)?);
        println!("listening");
        thread::scope(|scope| {
            for _ in 0..CALLERS {
                scope.spawn(|| {
                    let mut word = [0];
                    for mut stream in listener.incoming().flatten() {
                        // Until the peer resets.
                        while stream.read_exact(&mut word).is_ok() && stream.write_all(&word).is_ok() {}
                    }
                });
            }
            let mut word = [0; 64];
            loop {
                let (length, from) = socket.recv_from(&mut word)?;
                // The peer may be gone.
                let _ = socket.send_to(&word[..length], from);
            }
        })
    }
}
