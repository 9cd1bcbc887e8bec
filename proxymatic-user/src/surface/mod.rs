//! What people and programs see: rows that are built once and shown as table or JSON.

mod agent_status;
mod cgroups;
mod colour;
mod dump;
mod flow;
mod happening;
mod plan;
mod render;
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
pub use plan::Planned;
pub use render::{BackendOf, Backends, Detached, Format, Moved, Rows, note, print, print_error, print_line};
pub use status::{Ejection, Status, status};
pub use top::{Board, Order, Sample, draw, samples};
pub use view::{BackendRow, ServiceRow, services};
