//! The sockets of every network namespace on this host, listed and destroyed through sock_diag by a thread of its
//! own.

mod diag;
mod flows;
mod kernel_support;
mod listening;
mod message;
mod namespaces;
mod netns_addresses;
mod request;
mod row;
mod sweep;
mod udp_storage;

pub use flows::{Flow, Flows, Process, flows};
pub use kernel_support::{supports_destroy, supports_pidfd_getfd};
pub use listening::{AutobindPorts, Listening};
pub use netns_addresses::NetnsPublisher;
pub use request::{BackendRef, ConntrackUsage, DestroyReason, GoneBackend, Idle, SweepReport, SweepRequest};
pub use row::{Row, Traffic};
pub use sweep::Sweeper;
