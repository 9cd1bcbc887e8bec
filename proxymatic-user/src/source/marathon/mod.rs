//! The Marathon source: its event stream says when to read, a full listing says which services there are.
//!
//! [`convert`](mod@convert) and [`sse`] are pure, and so are the parts that decide when to read
//! (`schedule`), what to read (`pending_refresh`) and which part of a response to publish (`published`). Only a whole
//! response counts. After any other response the source sends no snapshot, so that the last one stays valid, and reports
//! the failure.

mod announced_ends;
pub mod api;
mod auth;
mod claim;
mod claim_check;
mod claim_rules;
mod client;
mod config;
pub mod convert;
mod dcos;
mod definition;
mod definition_cache;
mod endpoint;
mod event;
mod first_versions;
mod health_carryover;
mod health_results;
pub mod lookups;
mod merge;
mod ownership;
mod pending_refresh;
mod pods;
pub mod ports;
mod published;
mod read_loop;
mod reader;
mod report;
mod response_failure;
mod schedule;
mod server_clock;
pub mod sse;
mod stream;
mod task_notes;
mod task_started;
mod timestamp;

use std::collections::BTreeSet;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

pub use self::{
    auth::{Access, AccessFiles},
    claim_rules::ClaimRules,
    config::Config,
    endpoint::{Endpoint, parse},
    schedule::Timing,
};
use self::{
    client::Client,
    lookups::Options,
    published::PublishedState,
    read_loop::ReadLoop,
    reader::Reader,
    schedule::{Backoff, Jitter},
    stream::ReadState,
};
use super::{Source, failure::Failure, id::SourceId, report::Report};
use crate::model::Snapshot;

impl Source for Config {
    fn id(&self) -> SourceId {
        SourceId::Marathon
    }

    fn locations(&self) -> BTreeSet<String> {
        self.endpoints.iter().map(ToString::to_string).collect()
    }

    fn set_adopted(&mut self, adopted: Snapshot) {
        self.served = adopted.clone();
        self.adopted = adopted;
    }

    fn set_served(&mut self, served: Snapshot) {
        self.served = served;
    }

    fn run(self: Box<Self>, reports: mpsc::Sender<Report>) -> BoxFuture<'static, ()> {
        Box::pin(run(*self, reports))
    }
}

/// Reads Marathon for ever, and reports each whole response and each failure. Returns after the receiver of the reports
/// is dropped.
pub async fn run(config: Config, reports: mpsc::Sender<Report>) {
    let Config { endpoints, access, group_size, expose_host, claims, adopted, served, timing, clock, seed } = config;
    for warning in &access.warnings {
        tracing::warn!("{warning}");
    }
    let (mut jitter, mut backoff) = (Jitter::new(seed), Backoff::default());
    let client = loop {
        match Client::new(endpoints.clone(), &access, clock.clone()) {
            Ok(client) => break client,
            Err(what) => {
                let failure = Failure::without_url("Marathon", what);
                let retry = backoff.next(&failure.what, &timing, &mut jitter);
                if retry.report && reports.send(report::failed(&failure, &retry)).await.is_err() {
                    return;
                }
                clock.sleep(retry.again_in).await;
            }
        }
    };
    let reads = ReadState::default();
    let (summaries, events) = mpsc::channel(stream::MAX_WAITING);
    let options = Options { group_size, expose_host, claims: claims.into() };
    let reader = Reader::new(&client, options, &adopted);
    let published = PublishedState::after(adopted, served);
    tokio::select! {
        () = stream::follow(&client, &timing, !seed, summaries, &reports, &reads) => {}
        () = ReadLoop::new(reader, published, timing, clock, &reads).run(jitter, events, &reports) => {}
        () = reports.closed() => {}
    }
}
