//! The sources of services. Each source sends whole snapshots, or the reason why it has none.
//!
//! A source never sends part of its services. While it fails, it sends no snapshot, so that the last one stays valid:
//! services that a source cannot read are not gone.
//!
//! Another source is a folder here with an implementation of [`Source`], an entry of [`SourceId`], and its flags in
//! `cli/sources.rs`.

mod backoff;
mod clock;
mod credentials;
mod endpoint_order;
mod failure;
pub mod file;
mod http;
mod id;
mod loss_guard;
pub mod marathon;
pub mod registrator;
mod report;
mod resolve;
mod sources;
mod tls;

use std::{collections::BTreeSet, fmt};

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

pub use self::{
    clock::{Clock, ManualClock},
    id::SourceId,
    report::Report,
    sources::Sources,
};
use crate::model::Snapshot;

/// A configured source. Its printed form is its location without credentials.
pub trait Source: fmt::Debug + fmt::Display + Send {
    /// Returns the id of the source.
    fn id(&self) -> SourceId;

    /// Returns what identifies the source across restarts of the agent: URLs without credentials, or a path.
    ///
    /// A source is the same as an earlier one if they have a location in common.
    fn locations(&self) -> BTreeSet<String>;

    /// Sets the services that an earlier agent published from this source. The loss guard compares the first response
    /// with them, and their owners stay. A source without a loss guard ignores them.
    fn set_adopted(&mut self, _adopted: Snapshot) {}

    /// Sets the services that this host serves from this source: their owners stay. A source without owners ignores them.
    fn set_served(&mut self, _served: Snapshot) {}

    /// Returns the future that reads the source for ever and sends reports. It ends after the receiver is dropped.
    fn run(self: Box<Self>, reports: mpsc::Sender<Report>) -> BoxFuture<'static, ()>;
}
