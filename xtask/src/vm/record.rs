//! The record of the last run on a kernel, as docs/kernels.json has it.

use serde::{Deserialize, Serialize};

use super::outcome::Outcome;

/// The record of one kernel.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    /// One of [`KERNELS`](super::kernels::KERNELS).
    pub(super) series: String,
    /// Version of the package.
    pub(super) package: String,
    pub(super) accelerator: String,
    /// The duration from the machine's start to its end.
    pub(super) seconds: f64,
    /// The commit that was built.
    pub(super) commit: String,
    pub(super) outcome: Outcome,
}
