//! Cleanup that always runs: by `Drop`, on SIGINT or SIGTERM, or after a SIGKILL by the next run (`leftovers`).
//!
//! A lock is held while anything is made or undone. The signal thread takes the lock and never releases it, so that no
//! thread makes anything new or leaves anything half undone while it cleans up. Therefore neither `make` nor `undo` may
//! make or drop a [`Guard`].

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::{process, thread};

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

/// The prefix of the names that [`unique_name`] returns.
pub(crate) const PREFIX: &str = "proxymatic-lab-";
/// The folder of run directories.
pub(crate) const RUN: &str = "/run";

type Undo = Box<dyn FnOnce() -> Result<()> + Send>;

static GATE: RwLock<()> = RwLock::new(());
static UNDO: Mutex<BTreeMap<u64, Undo>> = Mutex::new(BTreeMap::new());
static EXPECTED: AtomicBool = AtomicBool::new(false);

/// Holds one thing that exists outside this process; dropping it removes that thing.
#[derive(Debug)]
pub struct Guard(u64);

impl Guard {
    /// Makes something, after it has recorded how to undo it. `undo` must treat "not there" as success.
    pub fn new<T>(
        make: impl FnOnce() -> Result<T>,
        undo: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<(Self, T)> {
        let _gate = GATE.read().unwrap_or_else(PoisonError::into_inner);
        match make() {
            Ok(made) => {
                let mut noted = lock();
                let id = noted.last_key_value().map_or(0, |(last, _)| last + 1);
                noted.insert(id, Box::new(undo));
                Ok((Self(id), made))
            }
            Err(error) => {
                warn(undo());
                Err(error)
            }
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _gate = GATE.read().unwrap_or_else(PoisonError::into_inner);
        let undo = lock().remove(&self.0);
        if let Some(undo) = undo {
            warn(undo());
        }
    }
}

/// From now on SIGINT, SIGTERM and SIGHUP undo everything, newest first, and end this process.
pub fn on_signals() -> Result<()> {
    static ONCE: OnceLock<Result<(), String>> = OnceLock::new();
    ONCE.get_or_init(|| watch_signals().map_err(|error| format!("{error:#}"))).clone().map_err(anyhow::Error::msg)
}

/// Parks the caller for good; the signal that ends the process then means success.
pub fn hold_until_signal() -> ! {
    EXPECTED.store(true, Ordering::Relaxed);
    loop {
        thread::park();
    }
}

/// Returns a unique name: prefix, pid, counter. By the pid, the next run knows whether the owner is dead.
pub fn unique_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let name = format!("{PREFIX}{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        // A killed run may have had the same pid; its remains must not be in the way.
        if !Path::new(RUN).join(&name).exists() {
            return name;
        }
    }
}

fn watch_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().context("signal thread")?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?)
    };
    let watch = move || {
        let number = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
                _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
                _ = hangup.recv() => SignalKind::hangup().as_raw_value(),
            }
        });
        let _shut = GATE.write().unwrap_or_else(PoisonError::into_inner);
        let mut noted = lock();
        while let Some((_, undo)) = noted.pop_last() {
            warn(undo());
        }
        process::exit(if EXPECTED.load(Ordering::Relaxed) { 0 } else { 128 + number })
    };
    thread::Builder::new().name("signals".into()).spawn(watch).context("signal thread")?;
    Ok(())
}

fn lock() -> MutexGuard<'static, BTreeMap<u64, Undo>> {
    UNDO.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prints the error of an undo, if there is one.
#[expect(clippy::print_stderr, reason = "cleanup has no caller to return an error to")]
pub(crate) fn warn(undone: Result<()>) {
    if let Err(error) = undone {
        eprintln!("cleaning up: {error:#}");
    }
}
