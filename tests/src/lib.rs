//! The harness of the root tiers, the benchmarks and the demo.

pub mod bpffs;
pub mod cgroup;
pub mod cleanup;
pub mod eventually;
pub mod failure;
pub mod http;
pub mod lab;
pub mod leftovers;
pub mod net;
pub mod process;
pub mod skip;
pub mod soak;
pub mod stalls;
pub mod summary;
