//! The status endpoint: read-only HTTP for health checks, Prometheus and people.
//!
//! It runs on a thread of its own and reads the maps itself, so that requests never delay the agent's loop.

mod cache;
mod limits;
mod routes;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
};

use tokio::sync::watch;

use crate::privileges::{self, EnabledFeatures, Thread};

use super::{AgentStatus, metrics::Rejected};
use cache::{Latest, ReadMaps};

/// Opens the listener.
///
/// # Errors
/// The address cannot be bound.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves requests for the lifetime of the process.
///
/// # Errors
/// A thread cannot be started, or the listener cannot be polled.
pub fn start(listener: TcpListener, status: watch::Receiver<AgentStatus>, read: ReadMaps) -> io::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // A blocking thread reads the maps and serializes answers, so that other requests are served meanwhile. Its low
    // priority favours the agent's loop and other programs: on Linux each thread has its own niceness.
    runtime.enable_all().max_blocking_threads(1).thread_name(Thread::Look.name()).on_thread_start(|| {
        let _ = rustix::process::nice(5);
        privileges::drop_to(Thread::Look, EnabledFeatures::default()).expect("capabilities can be given up");
    });
    let runtime = runtime.build()?;
    let listener = {
        let _within = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let answer = move || {
        privileges::drop_to(Thread::Status, EnabledFeatures::default()).expect("capabilities can be given up");
        let rejected = Rejected::default();
        let router = routes::router(Latest::new(status, read, Arc::clone(&rejected)));
        runtime.block_on(limits::serve(&listener, &router, &rejected));
    };
    thread::Builder::new().name(Thread::Status.name().into()).spawn(answer).map(drop)
}

#[cfg(test)]
mod tests;
