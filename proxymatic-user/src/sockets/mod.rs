//! The sockets of every network namespace on this host, seen and ended by sock_diag: a thread of its own that goes where
//! no other may.

mod diag;
mod flows;
mod kernel_support;
mod message;
mod namespaces;
mod request;
mod row;
mod sweep;
mod udp_storage;

pub use flows::{Flow, Process, Seen, flows};
pub use kernel_support::{copies, ends};
pub use request::{BackendRef, DestroyReason, GoneBackend, Idle, Kept, SweepReport, SweepRequest};
pub use row::{Row, Traffic};
pub use sweep::Sweeper;
