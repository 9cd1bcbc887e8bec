//! The thread that keeps the hooks of interfaces attached. It reconciles when an interface or an address changes, and
//! every 5 s, because filters can be removed without a notification.

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

/// How often to reconcile at least.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);
/// The kernel answers at once, so a later answer is a fault.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The delay of a retry, and of the check whether another map ABI version was replaced.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Starts the thread. It begins once `serves` is set, reports warnings when they change, and ends when `report`
/// closes.
///
/// # Errors
/// Fails if the thread or its runtime cannot be started.
pub fn start(
    interfaces: Interfaces,
    serves: Arc<AtomicBool>,
    uses: EnabledFeatures,
    report: mpsc::Sender<Vec<Warning>>,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let work = move || {
        // Other threads create no links from here on.
        if let Err(error) = privileges::install(true) {
            tracing::warn!("cannot deny unneeded system calls: {error}; going on without");
        }
        if let Err(error) = privileges::drop_to(Thread::Interfaces, uses) {
            return tracing::error!("cannot drop capabilities: {error}; no interface is served");
        }
        runtime.block_on(follow(interfaces, &serves, &report));
    };
    thread::Builder::new().name(Thread::Interfaces.name().into()).spawn(work).map(drop)
}

async fn follow(mut interfaces: Interfaces, serves: &AtomicBool, report: &mpsc::Sender<Vec<Warning>>) {
    while !serves.load(Ordering::Acquire) && !report.is_closed() {
        sleep(RETRY_DELAY).await;
    }
    let mut last = None;
    while !report.is_closed() {
        if let Err(error) = reconcile_on_changes(&mut interfaces, report, &mut last).await {
            // Attached hooks stay attached.
            tracing::warn!("{error}; retrying in {} s", RETRY_DELAY.as_secs());
        }
        sleep(RETRY_DELAY).await;
    }
}

/// Subscribes before the first reconciliation, so that no change in between is missed.
async fn reconcile_on_changes(
    interfaces: &mut Interfaces,
    report: &mpsc::Sender<Vec<Warning>>,
    last: &mut Option<Vec<Warning>>,
) -> io::Result<()> {
    let groups = [MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr, MulticastGroup::Ipv6Ifaddr];
    let (connection, netlink, mut notifications) = new_multicast_connection(&groups)?;
    // The task ends with the handle.
    tokio::spawn(connection);
    loop {
        let reconciled = timeout(TIMEOUT, interfaces.reconcile(&netlink)).await?;
        let warnings: Vec<_> = reconciled.map_err(io::Error::other)?.into_iter().map(warning).collect();
        if last.as_ref() != Some(&warnings) {
            if report.send(warnings.clone()).await.is_err() {
                return Ok(());
            }
            *last = Some(warnings);
        }
        // The content of notifications is ignored, so that none matters if the kernel drops some (ENOBUFS).
        tokio::select! {
            one = notifications.next() => drop(one.ok_or(io::ErrorKind::BrokenPipe).map_err(io::Error::from)?),
            () = report.closed() => return Ok(()),
            () = sleep(RECONCILE_INTERVAL) => {}
        };
        while let Some(more) = notifications.next().now_or_never() {
            more.ok_or(io::ErrorKind::BrokenPipe).map_err(io::Error::from)?;
        }
    }
}

fn warning(warning: InterfaceWarning) -> Warning {
    Warning { app: format!("interface {}", warning.interface), reason: warning.reason }
}
