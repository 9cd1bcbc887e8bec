//! What the operator means, in the operator's words: plain values, no clock, no I/O.

mod allowed;
mod backend;
mod beside;
mod duration;
mod health;
mod labels;
mod nearest;
mod service;
mod settings;
mod snapshot;
mod vip;

pub use allowed::Allowed;
pub use backend::{Backend, MAX_WEIGHT, State, Weight};
pub(crate) use beside::beside;
pub use duration::duration;
pub use health::{Condition, Health, Vitals, cut_off};
pub use labels::{Labels, PORT_PREFIX, PREFIX, PortLabels, ServiceLabels};
pub(crate) use nearest::nearest;
pub use service::{Protocol, Service, ServiceKey};
pub use settings::{CONNECT, Policy, Settings};
pub use snapshot::{Complaint, Snapshot};
pub use vip::Vip;
