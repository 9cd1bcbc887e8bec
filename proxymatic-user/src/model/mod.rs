//! What the operator means, in the operator's words: plain values, no clock, no I/O.

mod backend;
mod service;
mod snapshot;

pub use backend::{Backend, MAX_WEIGHT, State, Weight};
pub use service::{Policy, Protocol, Service, ServiceKey};
pub use snapshot::{Complaint, Snapshot};
