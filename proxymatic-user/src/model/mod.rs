//! The operator's view of services, in the operator's terms: plain values, no clock, no I/O.

mod allow_rule;
mod backend;
mod duration;
mod file_keys;
mod health;
mod labels;
mod merge_join;
mod service;
mod settings;
mod snapshot;
mod suggest;
mod vip;

pub use allow_rule::AllowRule;
pub use backend::{Backend, MAX_WEIGHT, State, Weight};
pub use duration::duration;
pub(crate) use file_keys::{FileKey, known_file_keys};
pub use health::{Health, TaskState, TaskStatus, all_unreachable};
pub use labels::{Labels, PORT_PREFIX, PREFIX, PortLabels, ShareList, label_table};
pub(crate) use merge_join::merge_join;
pub use service::{MAX_NEW, Protocol, Service, ServiceKey, Start};
pub(crate) use settings::SavedSettings;
pub use settings::{CONNECT, GivenSettings, Policy, Settings};
pub use snapshot::{Snapshot, Warning};
pub(crate) use suggest::suggest;
pub use vip::Vip;
