//! Output of the demo: numbered headings, a line with the reason, bars, checks. Colour only on a terminal.

use std::io::{self, IsTerminal as _};
use std::{env, fmt::Display};

use anyhow::{Result, bail};
use proxymatic_tests::process::Finished;
use proxymatic_tests::summary::Summary;

const BOLD: &str = "1";
const GREEN: &str = "32";
const RED: &str = "31";
/// The greatest width of a bar.
const BAR: u64 = 60;

/// The results so far.
#[derive(Debug)]
pub(crate) struct Stage {
    acts: u32,
    checks: u32,
    colour: bool,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let wanted = env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { acts: 0, checks: 0, colour: wanted && io::stdout().is_terminal() }
    }

    /// Returns the number of passed checks.
    pub(crate) fn checks(&self) -> u32 {
        self.checks
    }

    /// Prints the heading of an act and the reason for it.
    pub(crate) fn act(&mut self, title: &str, why: &str) {
        self.acts += 1;
        println!("\n{}", self.paint(BOLD, &format!("{}. {title}", self.acts)));
        self.say(why);
    }

    /// Prints plain lines.
    pub(crate) fn say(&self, lines: &str) {
        for line in lines.lines() {
            println!("   {line}");
        }
    }

    /// Checks one condition.
    pub(crate) fn check(&mut self, what: &str, holds: bool, otherwise: impl Display) -> Result<()> {
        if !holds {
            bail!("{what}: {otherwise}");
        }
        self.checks += 1;
        println!("   {}  {what}", self.paint(GREEN, "ok"));
        Ok(())
    }

    /// Checks that no request of a client failed.
    pub(crate) fn none_failed(&mut self, seen: &Summary) -> Result<()> {
        let what = format!(
            "{} requests, {} failed; the slowest took {:.1} ms",
            seen.ok + seen.failed,
            seen.failed,
            seen.slowest_ms()
        );
        let first: Vec<_> = seen.failures.iter().take(5).collect();
        self.check(&what, seen.failed == 0 && seen.ok > 0, format_args!("{:?}\n{first:#?}", seen.errors))
    }

    /// Prints how often each replica answered.
    pub(crate) fn answers(&self, seen: &Summary) {
        let most = seen.by_replica.values().max().copied().unwrap_or(1).max(1);
        for (replica, count) in &seen.by_replica {
            let width = if most > BAR { count * BAR / most } else { *count };
            println!("   replica {replica} {count:6}  {}", "#".repeat(usize::try_from(width).unwrap_or_default()));
        }
    }

    /// Prints a command and its output.
    pub(crate) fn ran(&self, command: &str, left: &Finished) {
        println!();
        self.say(&self.paint(BOLD, &format!("$ {command}")));
        self.say(&left.stdout);
        self.say(&left.stderr);
        println!();
    }

    /// Prints the end of a demo with a failed check.
    pub(crate) fn failed(&self, error: &anyhow::Error, agent_log: &str) {
        println!("   {}  {error:#}", self.paint(RED, "FAILED"));
        if !agent_log.is_empty() {
            println!("\nThe agent's log, its last lines:\n{agent_log}");
        }
        println!("demo: a check failed after {} that passed", self.checks);
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
