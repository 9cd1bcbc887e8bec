//! What the operator means, in the operator's words: plain values, no clock, no I/O.

mod backend;
mod beside;
mod health;
mod labels;
mod service;
mod snapshot;
mod vip;

pub use backend::{Backend, MAX_WEIGHT, State, Weight};
pub(crate) use beside::beside;
pub use health::{Condition, Health, Vitals, cut_off};
pub use labels::{Labels, PORT_PREFIX, PREFIX, PortLabels};
pub use service::{Policy, Protocol, Service, ServiceKey};
pub use snapshot::{Complaint, Snapshot};
pub use vip::Vip;
