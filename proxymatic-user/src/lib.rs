//! The agent, room by room. Data flows one way: `source -> model -> plan -> dataplane`.

pub mod model;
pub mod plan;
