//! The counts of a soak, and the history of its changes.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::time::Duration;

use super::allowed_failures::Judgement;
use crate::summary::Summary;

/// The length of the history that a failure prints.
const TAIL: usize = 40;
/// How much the agent's memory may grow after the first measurement, in kB: one heap arena of the allocator and some.
const GROWTH: u64 = 16 << 10;

/// The result of a soak.
#[derive(Debug, Default)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The duration.
    pub time: Duration,
    /// Unexpected failures; empty on success.
    pub faults: Vec<String>,
    changes: BTreeMap<&'static str, u64>,
    tcp: Seen,
    udp: Seen,
    memory: Option<(u64, u64, u64)>,
    fill: BTreeMap<String, u64>,
    verdicts: BTreeMap<String, u64>,
    history: VecDeque<String>,
}

/// The counts of clients of one protocol.
#[derive(Debug, Default)]
struct Seen {
    answered: u64,
    failed: u64,
    resets: u64,
    errors: BTreeMap<String, u64>,
    allowed: BTreeMap<&'static str, u64>,
}

impl Report {
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// Records that a change begins.
    pub(super) fn begin(&mut self, change: &'static str) {
        *self.changes.entry(change).or_default() += 1;
        self.note(change);
    }

    /// Adds a line to the history.
    pub(super) fn note(&mut self, line: &str) {
        if self.history.len() == TAIL {
            self.history.pop_front();
        }
        self.history.push_back(format!("{:.3} {line}", super::replicas::now()));
    }

    /// Records the agent's memory in kB.
    pub(super) fn memory(&mut self, now: u64) {
        let (first, _, most) = self.memory.unwrap_or((now, now, now));
        self.memory = Some((first, now, most.max(now)));
        if now > first + GROWTH && self.faults.is_empty() {
            self.faults.push(format!("the agent has grown from {first} kB to {now} kB"));
        }
    }

    pub(super) fn saw(&mut self, udp: bool, seen: &Summary, judged: Judgement) {
        let sum = if udp { &mut self.udp } else { &mut self.tcp };
        sum.answered += seen.ok;
        sum.failed += seen.failed;
        sum.resets += seen.resets.values().sum::<u64>();
        seen.errors.iter().for_each(|(error, count)| *sum.errors.entry(error.clone()).or_default() += count);
        judged.allowed.into_iter().for_each(|reason| *sum.allowed.entry(reason).or_default() += 1);
        self.faults.extend(judged.faults);
    }

    pub(super) fn end(&mut self, fill: &BTreeMap<String, u64>, verdicts: BTreeMap<String, u64>) {
        self.fill.clone_from(fill);
        self.verdicts = verdicts;
    }

    /// Returns a line about all rounds so far.
    pub(super) fn line(&self) -> String {
        let changes: u64 = self.changes.values().sum();
        format!(
            "{:5} s  {changes} changes, {} connects, {} datagrams, {} failed and allowed, {} faults",
            self.time.as_secs(),
            self.tcp.answered + self.tcp.failed,
            self.udp.answered + self.udp.failed,
            self.tcp.allowed.values().chain(self.udp.allowed.values()).sum::<u64>(),
            self.faults.len()
        )
    }

    /// Returns the seed and the latest history.
    #[must_use]
    pub fn tail(&self) -> String {
        let history: String = self.history.iter().map(|line| format!("  {line}\n")).collect();
        format!("seed {}; the latest changes:\n{history}", self.seed)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}, {} s", self.seed, self.time.as_secs())?;
        writeln!(f, "changes    {}", counts(&self.changes))?;
        for (name, seen) in [("connects", &self.tcp), ("datagrams", &self.udp)] {
            writeln!(f, "{name:10} {} answered, {} failed: {}", seen.answered, seen.failed, counts(&seen.errors))?;
            writeln!(f, "{:10} allowed: {}", "", counts(&seen.allowed))?;
        }
        writeln!(f, "{:10} {} sockets were reset because their replica was gone", "", self.udp.resets)?;
        if let Some((first, last, most)) = self.memory {
            writeln!(f, "memory     {first} kB at first, {last} kB at last, {most} kB at most")?;
        }
        writeln!(f, "maps       {} in the beginning and in the end", counts(&self.fill))?;
        writeln!(f, "verdicts   {}", counts(&self.verdicts))?;
        match self.faults.len() {
            0 => write!(f, "no faults"),
            some => {
                writeln!(f, "{some} FAULTS")?;
                self.faults.iter().take(TAIL).try_for_each(|fault| writeln!(f, "  {fault}"))?;
                write!(f, "{}", self.tail())
            }
        }
    }
}

fn counts<K: fmt::Display>(of: &BTreeMap<K, u64>) -> String {
    let all: Vec<_> = of.iter().map(|(name, count)| format!("{count} {name}")).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}
