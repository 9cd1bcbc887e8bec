//! What people and programs see: rows that are built once and shown as table or JSON.

mod agent_status;
pub mod http;
mod latency;
mod metrics;
mod page;
mod plan;
mod render;
#[cfg(test)]
mod samples;
mod status;
mod view;

pub use agent_status::{AgentStatus, SourceStatus, Trouble, ask, serve};
pub use latency::Latencies;
pub use plan::Planned;
pub use render::{BackendOf, Backends, Detached, Format, Rows, print, print_error, text};
pub use status::{Seen, Status, see, status};
pub use view::{BackendRow, ServiceCounts, ServiceRow, services};
