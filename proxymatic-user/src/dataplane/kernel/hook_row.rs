//! `HookRow`: one attached hook, as `hook show` prints it.

use std::{borrow::Cow, time::Duration};

/// One attached hook, as `hook show` prints it.
#[derive(Clone, Debug, serde::Serialize)]
pub struct HookRow {
    /// The name of the hook, which is also the name of its program.
    pub hook: &'static str,
    /// The configured name of the interface; `None` for a hook of a cgroup.
    pub interface: Option<String>,
    /// The kernel's id of the program that the hook runs.
    pub program: u32,
    /// The kernel's id of the link; `None` for a clsact filter.
    pub link: Option<u32>,
    /// The pin of the link.
    pub pin: Option<String>,
    /// Whether the kernel runs the program for the sockets of the cgroup or the packets of the interface; `None` if this
    /// process cannot find out.
    pub effective: Option<bool>,
    /// How often the program ran while the kernel measured, on all interfaces together.
    pub runs: u64,
    /// Mean time of one run in nanoseconds; `None` if the kernel measured no run.
    pub mean_ns: Option<f64>,
}

impl HookRow {
    /// Returns the name of the hook, followed by `@` and its interface if it has one.
    pub fn name(&self) -> Cow<'static, str> {
        match &self.interface {
            Some(interface) => format!("{}@{interface}", self.hook).into(),
            None => self.hook.into(),
        }
    }
}

/// Returns the mean time of a run in nanoseconds; `None` for no runs.
pub(super) fn mean_ns(runs: u64, time: Duration) -> Option<f64> {
    (runs > 0).then(|| time.as_nanos() as f64 / runs as f64)
}
