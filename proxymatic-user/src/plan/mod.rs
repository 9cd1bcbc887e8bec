//! Computes the writes that lead from the map state to the desired state. The writes are values, in an order that never
//! leaves a service without its backends. Pure: no clock, no kernel, no I/O.

mod allow;
mod backends;
mod builder;
mod classes;
mod desired;
mod display;
mod maglev;
mod op;
mod planner;
mod ports;
mod quarantine;
mod ranges;
mod retained;
mod settings;
mod slots;
mod tables;

pub use desired::{Desired, Exposed, Services};
pub use op::{EntryWriter, MapOp};
pub use planner::{Plan, plan, plan_changes};
pub use quarantine::{QUARANTINE, Quarantine};
pub use tables::{BackendEntry, Capacity, Garbage, MapState, ServiceEntry};
