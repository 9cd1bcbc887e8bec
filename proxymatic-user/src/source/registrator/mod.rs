//! registrator as a source: it keeps the containers of each host in etcd, under a folder for each service.
//!
//! The folder is read whole, then watched: any change means that it is read again. What is merely missing stays until
//! a second answer lacks it too: that of a member which has lost its data looks like any other. [`mod@read`] and
//! [`wire`] are pure.

mod client;
mod config;
mod login;
pub mod read;
pub mod wire;

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use self::client::{Client, Failure, Listing};
pub use self::config::{AccessFiles, Config};
use super::{
    Report, SourceId,
    backoff::{Backoff, Jitter, Limits},
    loss_guard::{Asked, LossGuard},
    resolve::Resolver,
};
use crate::model::Snapshot;

/// How long after a change it is read: a container that starts writes several keys.
const QUIET: Duration = Duration::from_millis(100);
/// The longest rest between two reads while things change.
const REST: Duration = Duration::from_secs(1);

/// Reads and watches etcd for ever and reports each whole answer, and each trouble. Returns when nobody takes reports
/// any more.
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
    // The state of the hasher is random for each process: that is all that is wanted of it.
    let mut dice = Jitter::new(RandomState::new().hash_one(1));
    let limits = Limits { first: config.first_wait, ..Limits::default() };
    let (mut reading, mut watching) = (Backoff::default(), Backoff::default());
    let trouble = |reason: String, attempt, again_in| {
        let url = config.to_string();
        Report::Failed { source: SourceId::Registrator, url, reason, attempt, again_in }
    };
    let client = loop {
        match Client::new(config) {
            Ok(client) => break client,
            Err(error) => {
                let (attempt, again_in, tell) = reading.next(&error.to_string(), limits, &mut dice);
                if tell
                    && reports.send(trouble(format!("etcd cannot be asked: {error}"), attempt, again_in)).await.is_err()
                {
                    return;
                }
                tokio::time::sleep(again_in).await;
            }
        }
    };
    let mut hosts = Resolver::default();
    let (mut doubts, mut said) = (LossGuard::default(), config.adopted.clone());
    loop {
        let at = Instant::now();
        let listing = match client.list().await {
            Ok(listing) => listing,
            Err(Failure(reason)) => {
                let (attempt, again_in, tell) = reading.next(&reason, limits, &mut dice);
                if tell && reports.send(trouble(reason, attempt, again_in)).await.is_err() {
                    return;
                }
                tokio::time::sleep(again_in).await;
                continue;
            }
        };
        reading.clear();
        let mut snapshot = snapshot(config, &listing, &mut hosts).await;
        let asked = Asked { at, now: Instant::now(), confirm: config.confirm, whole: true };
        snapshot.share(&said);
        // Nothing says beforehand what is about to leave.
        doubts.filter(&said, &mut snapshot, &BTreeSet::new(), &asked);
        said = snapshot.clone();
        if reports.send(Report::Snapshot { source: SourceId::Registrator, snapshot, at }).await.is_err() {
            return;
        }
        let again = doubts.again(config.confirm);
        let until_then =
            |wait: Duration| again.map_or(wait, |moment| wait.min(moment.saturating_duration_since(Instant::now())));
        let rest = at.elapsed().clamp(QUIET, REST);
        match tokio::time::timeout(until_then(dice.jitter(config.refresh)), client.changed(&listing)).await {
            Ok(Ok(())) => {
                watching.clear();
                tokio::time::sleep(rest).await;
            }
            // Time for a look, whatever the watch says.
            Err(_) => watching.clear(),
            Ok(Err(Failure(reason))) => {
                let (attempt, again_in, tell) = watching.next(&reason, limits, &mut dice);
                let again_in = until_then(again_in);
                // That a watch ends now and then is usual, and where etcd is gone the next read says so.
                let reason = format!("{reason}; until it can be watched, changes are seen only by polling");
                if tell && attempt > 1 && reports.send(trouble(reason, attempt, again_in)).await.is_err() {
                    return;
                }
                tokio::time::sleep(again_in).await;
            }
        }
    }
}

async fn snapshot(config: &Config, listing: &Listing, hosts: &mut Resolver) -> Snapshot {
    let needed: BTreeSet<_> = read::names(&listing.entries).map(str::to_owned).collect();
    let found = hosts.resolve(&needed).await;
    read::read(&listing.entries, &config.prefix, &found, config.expose_host)
}
