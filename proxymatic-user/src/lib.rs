//! The agent, room by room. Data flows one way: `source -> model -> plan -> dataplane`.
//!
//! [`agent`] carries values from one to the next and owns all state; [`surface`] shows it, [`cli`] is the way in.

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
