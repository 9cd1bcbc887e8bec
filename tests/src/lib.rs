//! The simulated Marathon and the harness of the root tiers.

pub mod bpffs;
pub mod cgroup;
pub mod cleanup;
pub mod eventually;
pub mod failure;
pub mod http;
pub mod lab;
pub mod net;
pub mod process;
pub mod sim;
pub mod skip;
pub mod soak;
pub mod summary;
