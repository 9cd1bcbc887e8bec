//! Keeps the hooks of interfaces where they are wanted, on a thread of its own: looks whenever an interface or an address of
//! this host changes, and now and then, since filters can be removed without a word.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _};
use rtnetlink::{MulticastGroup, new_multicast_connection};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use crate::{
    dataplane::kernel::{InterfaceWarning, Interfaces},
    model::Warning,
    privileges::{self, EnabledFeatures, Thread},
};

/// How often is looked at least.
const EVERY: Duration = Duration::from_secs(5);
/// The kernel answers at once, or something is badly wrong.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait after something went wrong, and for another version to be replaced.
const AGAIN: Duration = Duration::from_secs(1);

/// Starts the thread. It begins once `serves` is set, and says after each look what cannot be done, where that has changed;
/// until nobody listens.
///
/// # Errors
/// There is no thread to be had.
pub fn start(
    interfaces: Interfaces,
    serves: Arc<AtomicBool>,
    uses: EnabledFeatures,
    report: mpsc::Sender<Vec<Warning>>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        // The others make no links any more.
        if let Err(error) = privileges::install(true) {
            tracing::warn!("cannot forbid system calls that are not needed: {error}; going on without");
        }
        if let Err(error) = privileges::drop_to(Thread::Interfaces, uses) {
            return tracing::error!("cannot give up capabilities: {error}; no interface is served");
        }
        runtime.block_on(follow(interfaces, &serves, &report));
    };
    thread::Builder::new().name(Thread::Interfaces.name().into()).spawn(work).map(drop)
}

async fn follow(mut interfaces: Interfaces, serves: &AtomicBool, report: &mpsc::Sender<Vec<Warning>>) {
    while !serves.load(Ordering::Acquire) && !report.is_closed() {
        sleep(AGAIN).await;
    }
    let mut last = None;
    while !report.is_closed() {
        if let Err(error) = listen(&mut interfaces, report, &mut last).await {
            // What is in place stays so.
            tracing::warn!("{error}; looking again in {} s", AGAIN.as_secs());
        }
        sleep(AGAIN).await;
    }
}

/// Listens first and looks then: what changes in between is told.
async fn listen(
    interfaces: &mut Interfaces,
    report: &mpsc::Sender<Vec<Warning>>,
    last: &mut Option<Vec<Warning>>,
) -> io::Result<()> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, netlink, mut told) = new_multicast_connection(&groups)?;
    // Ends with the handle.
    tokio::spawn(connection);
    loop {
        let kept = timeout(PATIENCE, interfaces.reconcile(&netlink)).await?;
        let warnings: Vec<_> = kept.map_err(io::Error::other)?.into_iter().map(warning).collect();
        if last.as_ref() != Some(&warnings) {
            if report.send(warnings.clone()).await.is_err() {
                return Ok(());
            }
            *last = Some(warnings);
        }
        // What changed is not looked at, so that nothing is lost where the kernel had no room to say all (ENOBUFS).
        tokio::select! {
            one = told.next() => drop(one.ok_or(io::ErrorKind::BrokenPipe).map_err(io::Error::from)?),
            () = report.closed() => return Ok(()),
            () = sleep(EVERY) => {}
        };
        while let Some(more) = told.next().now_or_never() {
            more.ok_or(io::ErrorKind::BrokenPipe).map_err(io::Error::from)?;
        }
    }
}

fn warning(trouble: InterfaceWarning) -> Warning {
    Warning { app: format!("interface {}", trouble.interface), reason: trouble.reason }
}
