//! `event watch`: a record of what happened, in which nothing is missed that passes between two looks.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Host, PATIENCE, binary};
use crate::eventually::eventually_ok;
use crate::process::Process;

/// A running `proxymatic -j event watch`.
#[derive(Debug)]
pub struct Watcher {
    /// The process itself, to be stopped.
    pub process: Process,
}

impl Host {
    /// Starts `event watch` against the agent and the pins of this host, with more flags. With an agent it sees what happens
    /// from some time after this; without one also what happened since the agent died.
    pub fn event_watch(&self, flags: &[&str]) -> Result<Process> {
        let (pins, socket) = (self.pins().display().to_string(), self.socket().display().to_string());
        let arguments = ["--bpffs", &pins, "--socket", &socket, "event", "watch"];
        self.spawn(&binary("proxymatic")?, &[flags, &arguments].concat())
    }

    /// The same, to be read by a test.
    pub fn watch(&self) -> Result<Watcher> {
        Ok(Watcher { process: self.event_watch(&["-j"])? })
    }
}

impl Watcher {
    /// All events so far, in order.
    pub fn seen(&self) -> Result<Vec<Value>> {
        let said = self.process.stdout()?;
        let whole = said.rsplit_once('\n').map_or("", |(lines, _)| lines);
        whole.lines().map(|line| serde_json::from_str(line).with_context(|| line.to_owned())).collect()
    }

    /// All events of a kind so far, in order.
    pub fn all(&self, event: &str) -> Result<Vec<Value>> {
        Ok(self.seen()?.into_iter().filter(|it| it["event"] == event).collect())
    }

    /// Waits until it has seen this event, and returns the first of them; `again` is done before each look.
    pub fn sees(&self, event: &str, again: impl Fn() -> Result<()>) -> Result<Value> {
        eventually_ok(&format!("a watcher sees {event}"), PATIENCE, || {
            again()?;
            let seen = self.seen()?;
            let found = seen.iter().find(|it| it["event"] == event).cloned();
            found.with_context(|| format!("{seen:?}\n{}", self.process.log()))
        })
    }
}
