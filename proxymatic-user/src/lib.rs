//! The agent, room by room. Data flows one way: `source -> model -> plan -> dataplane`.
//!
//! [`agent`] owns all state and carries values from one room to the next; [`surface`] shows the state, and [`cli`] is
//! the command line.

pub mod addresses;
pub mod agent;
pub mod backend_probe;
pub mod cli;
pub mod dataplane;
pub mod features;
pub mod host_checks;
pub mod interfaces;
pub mod model;
pub mod plan;
pub mod privileges;
pub mod self_test;
pub mod sockets;
pub mod source;
pub mod state;
pub mod surface;
