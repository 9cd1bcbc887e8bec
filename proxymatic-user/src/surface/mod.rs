//! What people and programs see: rows that are built once and shown as table or JSON.

mod agent_status;
mod cgroups;
mod colour;
mod dump;
mod flow;
mod happening;
pub mod http;
mod latency;
mod metrics;
mod page;
mod plan;
mod render;
#[cfg(test)]
mod samples;
mod status;
mod table;
mod top;
mod view;

pub use agent_status::{
    AgentStatus, OutStatus, RestoredFrom, SelfTestStatus, SourceStatus, Trouble, Watch, ask, serve, watch_agent,
};
pub use dump::{Dump, dump};
pub use flow::{FlowRow, flow_rows};
pub use happening::Happening;
pub use latency::Latencies;
pub use plan::Planned;
pub use render::{
    Answered, BackendOf, Backends, Detached, Format, Moved, Rows, note, print, print_error, print_line, text,
};
pub use status::{Ejection, Seen, Status, see, status};
pub use top::{Board, Order, Sample, draw, samples};
pub use view::{BackendRow, RoundTrips, ServiceCounts, ServiceRow, services};
