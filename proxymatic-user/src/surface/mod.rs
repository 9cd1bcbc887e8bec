//! What operators and programs see: rows that are built once and shown as a table or JSON.

mod agent_status;
mod cgroups;
mod colour;
mod dump;
#[cfg(test)]
mod fixtures;
mod flow;
pub mod http;
mod metrics;
mod page;
mod plan;
mod render;
mod status;
mod table;
mod top;
mod view;
mod watch_event;

pub use crate::agent::{
    AgentStatus, AwaitedBackend, EjectedBackend, Latencies, ProbeCounts, RestoredFrom, SelfTestStatus, SourceFailure,
    SourceStatus, WatchEvent,
};
pub use agent_status::{Watch, ask, serve, watch_agent};
pub use dump::{Dump, dump};
pub use flow::{FlowRow, flow_rows};
pub use plan::Planned;
pub use render::{
    BackendOf, Backends, DetachResult, DrainResult, Format, HealthcheckResult, Rows, print, print_error, print_line,
    print_notice, text,
};
pub use status::{Ejection, Overview, Status, collect, status};
pub use top::{Board, Order, Sample, draw, samples};
pub use view::{BackendRow, RoundTrips, ServiceCounts, ServiceRow, WARMING, add_reasons, services};
