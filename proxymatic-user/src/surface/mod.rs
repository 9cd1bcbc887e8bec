//! What people and programs see: rows that are built once and shown as table or JSON.

mod agent_status;
mod plan;
mod render;
mod status;
mod view;

pub use agent_status::{AgentStatus, RestoredFrom, SelfTestStatus, SourceStatus, Trouble, ask, serve};
pub use plan::Planned;
pub use render::{BackendOf, Backends, Detached, Format, Rows, print, print_error};
pub use status::{Status, status};
pub use view::{BackendRow, ServiceRow, services};
