//! From what is wanted and what the maps hold to the writes in between: values, in the order that never leaves a
//! service without its backends. Pure: no clock, no kernel, no I/O.

mod allow;
mod change;
mod classes;
mod desired;
mod draft;
mod maglev;
mod op;
mod ports;
mod quarantine;
mod ranges;
mod settings;
mod shown;
mod slots;
mod stay;
mod tables;

pub use change::{Plan, plan, plan_changes};
pub use desired::{Desired, Exposed, Services};
pub use op::MapOp;
pub use quarantine::{QUARANTINE, Quarantine};
pub use tables::{BackendEntry, Capacity, Garbage, ServiceEntry, Tables};
