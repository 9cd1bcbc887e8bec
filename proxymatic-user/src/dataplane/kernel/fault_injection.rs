//! Kills the agent before a chosen write, as `kill -9` or the out-of-memory killer would. Only in builds for tests.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The environment variable with the number of the fatal write, counted from 1 since the process started.
const VARIABLE: &str = "PROXYMATIC_DIE_BEFORE_WRITE";

static WRITES: AtomicU64 = AtomicU64::new(0);

/// Kills this process if the next write is the chosen one, without any cleanup.
pub(super) fn before_write() {
    let nth = WRITES.fetch_add(1, Ordering::Relaxed) + 1;
    let fatal = env::var(VARIABLE).ok().and_then(|number| number.parse().ok());
    if fatal == Some(nth) {
        // Does not return.
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }
}
