//! `event watch`: a record of events, complete also for those that begin and end between two polls.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::host::Host;
use crate::eventually::{PATIENCE, eventually_ok};
use crate::process::{Process, binary};

/// A running `proxymatic -j event watch`.
#[derive(Debug)]
pub struct Watcher {
    /// The process, for tests that stop it.
    pub process: Process,
}

impl Host {
    /// Starts `event watch` against the agent and the pins of this host, with more flags. With an agent it prints
    /// events from shortly after its start; without one also the events since the agent's end.
    pub fn event_watch(&self, flags: &[&str]) -> Result<Process> {
        let (pins, socket) = (self.pins().display().to_string(), self.socket().display().to_string());
        let arguments = ["--bpffs", &pins, "--socket", &socket, "event", "watch"];
        self.spawn(&binary("proxymatic")?, &[flags, &arguments].concat())
    }

    /// Starts `event watch` with JSON output for a test.
    pub fn watch(&self) -> Result<Watcher> {
        Ok(Watcher { process: self.event_watch(&["-j"])? })
    }
}

impl Watcher {
    /// Returns all events so far, in order.
    pub fn seen(&self) -> Result<Vec<Value>> {
        let said = self.process.stdout()?;
        let whole = said.rsplit_once('\n').map_or("", |(lines, _)| lines);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// Returns all events of a kind so far, in order.
    pub fn all(&self, event: &str) -> Result<Vec<Value>> {
        Ok(self.seen()?.into_iter().filter(|it| it["event"] == event).collect())
    }

    /// Waits for an event of this kind, and returns the first one; `again` runs before each poll.
    pub fn sees(&self, event: &str, again: impl Fn() -> Result<()>) -> Result<Value> {
        eventually_ok(&format!("a watcher sees {event}"), PATIENCE, || {
            again()?;
            let seen = self.seen()?;
            let found = seen.iter().find(|it| it["event"] == event).cloned();
            found.with_context(|| format!("{seen:?}\n{}", self.process.log()))
        })
    }
}
