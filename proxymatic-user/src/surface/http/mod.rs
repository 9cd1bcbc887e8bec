//! The status endpoint: what is to be seen, read-only, for health checks, for Prometheus and for people.
//!
//! It runs on a thread of its own, and reads the maps itself: however it is asked, the agent's loop does not notice.

mod cache;
mod limits;
mod routes;

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::AtomicU64},
    thread,
};

use tokio::sync::watch;

use crate::privileges::{self, EnabledFeatures, Thread};

use super::{AgentStatus, Overview};
use cache::Latest;

/// How many connections were turned away.
pub(super) type Rejected = Arc<AtomicU64>;

/// Looks at what there is, or says in one sentence why that cannot be done.
pub type Look = Box<dyn Fn(AgentStatus) -> Result<Overview, String> + Send + Sync>;

/// Begins to listen.
///
/// # Errors
/// The address cannot be had.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Answers for as long as this process runs.
///
/// # Errors
/// No thread can be started, or the listener cannot be waited for.
pub fn start(listener: TcpListener, status: watch::Receiver<AgentStatus>, look: Look) -> io::Result<()> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    // One thread looks at the maps and writes answers down, so that others may be given meanwhile. It stands back for
    // the agent's loop, and for programs: on Linux niceness is each thread's own.
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
        let router = routes::router(Latest::new(status, look, Arc::clone(&rejected)));
        runtime.block_on(limits::serve(&listener, &router, &rejected));
    };
    thread::Builder::new().name(Thread::Status.name().into()).spawn(answer).map(drop)
}

#[cfg(test)]
mod tests;
