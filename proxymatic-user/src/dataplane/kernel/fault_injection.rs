//! Death before a write of choice, as by `kill -9` or the out-of-memory killer. Only in builds for tests.

use std::{
    env,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Names the write, counted from 1 over the life of the process.
const VARIABLE: &str = "PROXYMATIC_DIE_BEFORE_WRITE";

static WRITES: AtomicU64 = AtomicU64::new(0);

/// Ends this process where the write that follows is the one that was named. Nobody gets to clean up.
pub(super) fn before_write() {
    let nth = WRITES.fetch_add(1, Ordering::Relaxed) + 1;
    let fatal = env::var(VARIABLE).ok().and_then(|number| number.parse().ok());
    if fatal == Some(nth) {
        // Does not return.
        let _ = kill(Pid::this(), Signal::SIGKILL);
    }
}
