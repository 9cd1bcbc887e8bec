//! Long-lived connections: each sends chunks, receives them back, and checks every byte until it is told to end.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::eventually::{eventually_ok, until};
use proxymatic_tests::lab::{Host, PATIENCE};

use super::client::greeted;

/// The size of a chunk.
const CHUNK: usize = 2_000;
/// The interval of a connection's chunks: short enough that data is always in flight, long enough to leave CPU time to
/// others.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest time of an echo before the connection counts as broken: longer than any test has an interface down.
const BROKEN: Duration = Duration::from_secs(60);

/// Connections that go on meanwhile.
pub(super) struct Transfers {
    all: Vec<Transfer>,
    stop: Arc<AtomicBool>,
}

struct Transfer {
    to: SocketAddr,
    /// The name of the replica that greeted.
    name: char,
    chunks: Arc<AtomicU64>,
    thread: JoinHandle<io::Result<()>>,
}

impl Transfers {
    /// Opens this many connections from a host, to one address after the other.
    pub(super) fn start(host: &Host, to: &[SocketAddr], count: usize) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let begin = |to: &SocketAddr| -> Result<Transfer> {
            let (stream, name) = greeted(host, *to)?;
            let (chunks, stop) = (Arc::new(AtomicU64::new(0)), stop.clone());
            let counted = chunks.clone();
            let thread = thread::spawn(move || transfer(stream, &counted, &stop));
            Ok(Transfer { to: *to, name, chunks, thread })
        };
        let all = to.iter().cycle().take(count).map(begin).collect::<Result<_>>()?;
        Ok(Self { all, stop })
    }

    /// Returns the number of connections to this backend.
    pub(super) fn of(&self, name: char) -> usize {
        self.all.iter().filter(|it| it.name == name).count()
    }

    /// Waits until each connection to one of these backends has received this many more chunks.
    pub(super) fn go_on(&self, names: &str, more: u64) -> Result<()> {
        let concerned: Vec<_> = self.all.iter().filter(|it| names.contains(it.name)).collect();
        let goals: Vec<_> = concerned.iter().map(|it| it.chunks.load(Ordering::Relaxed) + more).collect();
        eventually_ok("all transfers go on", BROKEN + PATIENCE, || {
            for (it, goal) in concerned.iter().zip(&goals) {
                ensure!(!it.thread.is_finished(), "one to {} with {} has ended", it.to, it.name);
                ensure!(it.chunks.load(Ordering::Relaxed) >= *goal, "one to {} with {} stands still", it.to, it.name);
            }
            Ok(())
        })
    }

    /// Ends all connections, and fails if a connection to one of these backends has met an error.
    pub(super) fn finish(self, names: &str) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for it in self.all {
            let outcome = it.thread.join().map_err(|_| anyhow::anyhow!("a transfer panicked"))?;
            if names.contains(it.name) {
                outcome.with_context(|| format!("a transfer to {} with {}", it.to, it.name))?;
            }
        }
        Ok(())
    }
}

fn transfer(mut stream: TcpStream, chunks: &AtomicU64, stop: &AtomicBool) -> io::Result<()> {
    stream.set_read_timeout(Some(BROKEN))?;
    stream.set_nodelay(true)?;
    let mut heard = vec![0; CHUNK];
    while !stop.load(Ordering::Relaxed) {
        let next = Instant::now() + PAUSE;
        // Each chunk differs, so that late or repeated data is detected.
        let nth = chunks.load(Ordering::Relaxed);
        let said: Vec<u8> = (0..CHUNK as u64).map(|at| (nth.wrapping_mul(31) + at) as u8).collect();
        stream.write_all(&said)?;
        stream.read_exact(&mut heard)?;
        if heard != said {
            return Err(io::Error::other(format!("chunk {nth} came back as another")));
        }
        chunks.store(nth + 1, Ordering::Relaxed);
        until(next);
    }
    Ok(())
}
