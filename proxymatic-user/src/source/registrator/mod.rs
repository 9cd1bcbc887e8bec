//! The registrator source: registrator keeps the containers of each host in etcd, in a folder for each service.
//!
//! The source reads the whole folder, then watches it. After any change it reads the folder again. A service that lost
//! most of its backends keeps them until a second response confirms it: a member that has lost its data responds like any
//! other. [`convert`](mod@convert) and [`wire`] are pure.

mod client;
mod config;
pub mod convert;
mod login;
mod response_failure;
pub mod wire;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use self::client::{Client, Listing};
pub use self::config::{AccessFiles, Config};
use super::{
    Source,
    backoff::{Backoff, Jitter, Limits, Retry},
    id::SourceId,
    loss_guard::{LossGuard, Response},
    report::Report,
    resolve::Resolver,
};
use crate::model::Snapshot;

/// The time from a change to the read: a container that starts writes several keys.
const QUIET: Duration = Duration::from_millis(100);
/// The longest pause between two reads while things change.
const REST: Duration = Duration::from_secs(1);

impl Source for Config {
    fn id(&self) -> SourceId {
        SourceId::Registrator
    }

    fn locations(&self) -> BTreeSet<String> {
        let location = |url: &reqwest::Url| format!("{}{}", url.as_str().trim_end_matches('/'), self.prefix);
        self.endpoints.iter().map(location).collect()
    }

    fn set_adopted(&mut self, adopted: Snapshot) {
        self.adopted = adopted;
    }

    fn run(self: Box<Self>, reports: mpsc::Sender<Report>) -> BoxFuture<'static, ()> {
        Box::pin(run(*self, reports))
    }
}

/// Reads and watches etcd for ever, and reports each whole response and each failure. Returns after the receiver of the
/// reports is dropped.
pub async fn run(config: Config, reports: mpsc::Sender<Report>) {
    tokio::select! {
        () = follow(&config, &reports) => {}
        () = reports.closed() => {}
    }
}

async fn follow(config: &Config, reports: &mpsc::Sender<Report>) {
    for warning in &config.access.warnings {
        tracing::warn!("{warning}");
    }
    // The state of the hasher is random for each process.
    let mut jitter = Jitter::new(RandomState::new().hash_one(1));
    let limits = Limits { first: config.first_wait, ..Limits::default() };
    let (mut reading, mut watching) = (Backoff::default(), Backoff::default());
    let failed =
        |reason: String, retry: &Retry| Report::failed(SourceId::Registrator, config.to_string(), reason, retry);
    let client = loop {
        match Client::new(config) {
            Ok(client) => break client,
            Err(what) => {
                let retry = reading.next(&what, limits, &mut jitter);
                if retry.report && reports.send(failed(format!("etcd {what}"), &retry)).await.is_err() {
                    return;
                }
                tokio::time::sleep(retry.again_in).await;
            }
        }
    };
    let mut hosts = Resolver::default();
    let (mut loss_guard, mut published) = (LossGuard::default(), config.adopted.clone());
    loop {
        let at = Instant::now();
        let listing = match client.list().await {
            Ok(listing) => listing,
            Err(failure) => {
                let reason = failure.to_string();
                let retry = reading.next(&reason, limits, &mut jitter);
                if retry.report && reports.send(failed(reason, &retry)).await.is_err() {
                    return;
                }
                tokio::time::sleep(retry.again_in).await;
                continue;
            }
        };
        reading.clear();
        let mut snapshot = snapshot(config, &listing, &mut hosts).await;
        let response = Response { at, now: Instant::now(), confirm: config.confirm, whole: true, published: true };
        snapshot.share(&published);
        // Nothing announces which containers are about to leave.
        loss_guard.filter(&published, &mut snapshot, &BTreeSet::new(), &response);
        published = snapshot.clone();
        if reports.send(Report::Snapshot { source: SourceId::Registrator, snapshot, at }).await.is_err() {
            return;
        }
        let confirm_at = loss_guard.confirm_at(config.confirm);
        let until_confirmation = |wait: Duration| {
            confirm_at.map_or(wait, |moment| wait.min(moment.saturating_duration_since(Instant::now())))
        };
        let rest = at.elapsed().clamp(QUIET, REST);
        let watch = client.changed(&listing);
        match tokio::time::timeout(until_confirmation(jitter.jitter(config.refresh)), watch).await {
            Ok(Ok(())) => {
                watching.clear();
                tokio::time::sleep(rest).await;
            }
            // The time of the next read has come without a change.
            Err(_) => watching.clear(),
            Ok(Err(failure)) => {
                let reason = failure.to_string();
                let mut retry = watching.next(&reason, limits, &mut jitter);
                retry.again_in = until_confirmation(retry.again_in);
                // A watch ends now and then. If etcd is gone, the next read reports it.
                let reason = format!("{reason}; until it can be watched, changes are seen only by polling");
                if retry.report && retry.attempt > 1 && reports.send(failed(reason, &retry)).await.is_err() {
                    return;
                }
                tokio::time::sleep(retry.again_in).await;
            }
        }
    }
}

async fn snapshot(config: &Config, listing: &Listing, hosts: &mut Resolver) -> Snapshot {
    let needed: BTreeSet<_> = convert::host_names(&listing.entries).map(str::to_owned).collect();
    let addresses = hosts.resolve(&needed).await;
    convert::convert(&listing.entries, &config.prefix, &addresses, config.expose_host)
}
