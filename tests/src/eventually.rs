//! Waits for conditions. This is the only place in the project where a thread sleeps.

use std::io::{self, ErrorKind};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use std::{env, thread};

use anyhow::{Result, anyhow};

/// Timeout of any one step of a test. It only guards against a step that never ends: a busy machine takes many times
/// longer than an idle one.
pub const PATIENCE: Duration = Duration::from_secs(30);

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A factor for all timeouts, for slow machines such as an emulated one.
const FACTOR_VARIABLE: &str = "PROXYMATIC_TEST_PATIENCE";

/// Polls `probe` until it returns `Some`; fails with `what` after `timeout`. One poll counts for at most a third of it.
pub fn eventually<T>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let timeout = stretched(timeout);
    poll(timeout, || probe().ok_or(())).map_err(|()| anyhow!("{what}: not within {timeout:?}"))
}

/// Like [`eventually`] for a probe that returns a reason: the last reason is part of the error.
pub fn eventually_ok<T>(what: &str, timeout: Duration, probe: impl FnMut() -> Result<T>) -> Result<T> {
    let timeout = stretched(timeout);
    poll(timeout, probe).map_err(|last| anyhow!("{what}: not within {timeout:?}; last: {last:#}"))
}

/// Waits for a deadline that is itself the condition, such as the end of a grace period.
pub fn until(deadline: Instant) {
    pause(deadline.saturating_duration_since(Instant::now()));
}

/// Returns the result of a socket call with a timeout. A signal interrupts such a call whatever its handler does, and
/// so does a process stop and continue: signal(7).
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn stretched(timeout: Duration) -> Duration {
    static FACTOR: OnceLock<u32> = OnceLock::new();
    let said = || env::var(FACTOR_VARIABLE).ok().and_then(|it| it.parse().ok()).unwrap_or(1);
    timeout * *FACTOR.get_or_init(said)
}

fn poll<T, E>(timeout: Duration, mut probe: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let (mut left, mut wait) = (timeout, FIRST_PAUSE);
    loop {
        let begun = Instant::now();
        match probe() {
            Ok(fact) => return Ok(fact),
            Err(last) if left.is_zero() => return Err(last),
            Err(_) => pause(wait.min(left)),
        }
        // If the whole machine stalls, so do those that are waited for. One stall must not use up their time.
        left = left.saturating_sub(begun.elapsed().min(timeout / 3));
        wait = (wait * 2).min(LONGEST_PAUSE);
    }
}

#[expect(clippy::disallowed_methods, reason = "everything that waits, waits here")]
fn pause(wait: Duration) {
    thread::sleep(wait);
}
