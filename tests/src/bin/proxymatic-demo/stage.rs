//! How the demo speaks: numbered headings, a line of why, bars, checks. Colour only where a terminal wants it.

use std::io::{self, IsTerminal as _};
use std::{env, fmt::Display};

use anyhow::{Result, bail};
use proxymatic_tests::process::Finished;
use proxymatic_tests::summary::Summary;

const BOLD: &str = "1";
const GREEN: &str = "32";
const RED: &str = "31";
/// A bar is never wider than this.
const BAR: u64 = 60;

/// What has been shown so far.
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

    /// How many checks have passed.
    pub(crate) fn checks(&self) -> u32 {
        self.checks
    }

    /// A new act, and why it matters.
    pub(crate) fn act(&mut self, title: &str, why: &str) {
        self.acts += 1;
        println!("\n{}", self.paint(BOLD, &format!("{}. {title}", self.acts)));
        self.say(why);
    }

    /// Plain lines.
    pub(crate) fn say(&self, lines: &str) {
        for line in lines.lines() {
            println!("   {line}");
        }
    }

    /// One fact that must hold.
    pub(crate) fn check(&mut self, what: &str, holds: bool, otherwise: impl Display) -> Result<()> {
        if !holds {
            bail!("{what}: {otherwise}");
        }
        self.checks += 1;
        println!("   {}  {what}", self.paint(GREEN, "ok"));
        Ok(())
    }

    /// Checks that a client lost nothing.
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

    /// Who answered how often.
    pub(crate) fn answers(&self, seen: &Summary) {
        let most = seen.by_replica.values().max().copied().unwrap_or(1).max(1);
        for (replica, count) in &seen.by_replica {
            let width = if most > BAR { count * BAR / most } else { *count };
            println!("   replica {replica} {count:6}  {}", "#".repeat(usize::try_from(width).unwrap_or_default()));
        }
    }

    /// A command and what it printed.
    pub(crate) fn ran(&self, command: &str, left: &Finished) {
        println!();
        self.say(&self.paint(BOLD, &format!("$ {command}")));
        self.say(&left.stdout);
        self.say(&left.stderr);
        println!();
    }

    /// The end of a demo that did not hold.
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
