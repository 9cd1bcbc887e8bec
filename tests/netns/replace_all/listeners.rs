//! Thousands of listeners that record each connection and when its client started it.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use proxymatic_tests::lab::Host;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener as Listener, TcpStream};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::fixtures::cluster::monotonic;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\ncrowd\n";

/// One accepted connection; times are of the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hit {
    /// The set of listeners that accepted it.
    pub(super) set: usize,
    /// When its client called connect(2).
    pub(super) begun: Duration,
    /// When it was accepted.
    pub(super) accepted: Duration,
}

/// All listeners, served by one thread.
#[derive(Debug)]
pub(super) struct Listeners {
    runtime: Handle,
    hits: Arc<Mutex<Vec<Hit>>>,
    _ends: oneshot::Sender<()>,
}

impl Listeners {
    pub(super) fn start() -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build().context("a runtime")?;
        let handle = runtime.handle().clone();
        let (ends, end) = oneshot::channel();
        // Dropping the sender ends the thread, and the runtime with all its listeners.
        thread::spawn(move || runtime.block_on(end));
        Ok(Self { runtime: handle, hits: Arc::default(), _ends: ends })
    }

    /// Opens more listeners on a host.
    pub(super) fn open(&self, host: &Host, set: usize, count: usize) -> Result<Vec<SocketAddr>> {
        let bind = || (0..count).map(|_| TcpListener::bind((host.address(), 0))).collect::<Result<Vec<_>, _>>();
        let listeners = host.net().enter(bind)??;
        let addresses = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
        let _context = self.runtime.enter();
        for listener in listeners {
            listener.set_nonblocking(true)?;
            self.runtime.spawn(serve(Listener::from_std(listener)?, set, self.hits.clone()));
        }
        Ok(addresses)
    }

    /// Whether this many connections came to a set of listeners. Checks the latest connections only.
    pub(super) fn has(&self, set: usize, count: usize) -> Result<()> {
        let came = lock(&self.hits).iter().rev().take(100 * count).filter(|hit| hit.set == set).count();
        ensure!(came >= count, "{came} came");
        Ok(())
    }

    /// Returns all connections.
    pub(super) fn hits(&self) -> Vec<Hit> {
        lock(&self.hits).clone()
    }
}

async fn serve(listener: Listener, set: usize, hits: Arc<Mutex<Vec<Hit>>>) {
    while let (Ok((stream, _)), Ok(accepted)) = (listener.accept().await, monotonic()) {
        tokio::spawn(answer(stream, set, accepted, hits.clone()));
    }
}

async fn answer(mut stream: TcpStream, set: usize, accepted: Duration, hits: Arc<Mutex<Vec<Hit>>>) -> Option<()> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        (stream.read_buf(&mut request).await.ok()? > 0).then_some(())?;
    }
    let request = String::from_utf8(request).ok()?;
    let begun = request.split_once("begun=")?.1.split(' ').next()?.parse().ok()?;
    lock(&hits).push(Hit { set, begun: Duration::from_nanos(begun), accepted });
    stream.write_all(ANSWER).await.ok()
}

fn lock(hits: &Mutex<Vec<Hit>>) -> MutexGuard<'_, Vec<Hit>> {
    hits.lock().unwrap_or_else(PoisonError::into_inner)
}
