#![no_std]
//! The decisions of the data plane: a flow and the tables in, a verdict out.
//!
//! Generic over [`Tables`], so that the eBPF programs and the tests on a developer's machine run the same code. Nothing
//! here knows a hook, a map or aya; nothing in the hooks decides.

#[cfg(test)]
extern crate std;

mod route;
mod select;
mod socket;

pub use route::{Choice, Flow, Verdict, route};
pub use socket::{release, reverse, track};

use proxymatic_common::{Address, Backend, Cell64, Class, Config, Frontend, Head, Load, Reason, Slot};

/// What a decision reads and counts. The programs answer from BPF maps, the tests from plain memory.
pub trait Tables {
    /// What the agent set; `None` only where there is no map at all.
    fn config(&self) -> Option<&Config>;
    /// The cookie of the network namespace that the socket at hand is in.
    fn netns(&self) -> u64;
    /// The class of an address that is not a loopback one.
    fn class(&self, address: &Address) -> Option<Class>;
    /// The id of a service.
    fn frontend(&self, frontend: &Frontend) -> Option<u32>;
    /// A service's head; the zero head where the id has none.
    fn head(&self, service: u32) -> Head;
    /// A slot by index.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// A backend by id.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// What is counted of a backend.
    fn load(&self, id: u32) -> Option<&Load>;
    /// 32 random bits.
    fn random(&self) -> u32;
    /// Nanoseconds of the monotonic clock.
    fn now(&self) -> u64;
    /// Adds one.
    fn add(&self, cell: &Cell64);
    /// Adds one to a reason's counter.
    fn count(&self, reason: Reason);
}

#[cfg(test)]
mod fixture;
