//! The sockets of every network namespace on this host, seen and ended by sock_diag: a thread of its own that goes where
//! no other may.

mod diag;
mod ends;
mod flows;
mod job;
mod message;
mod namespaces;
mod remembered;
mod row;
mod sweep;

pub use ends::{copies, ends};
pub use flows::{Flow, Process, Seen, flows};
pub use job::{Gone, Idle, Job, Kept, Owner, Report, Why};
pub use row::{Row, Traffic};
pub use sweep::Sweeper;
