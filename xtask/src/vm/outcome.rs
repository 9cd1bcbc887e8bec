//! The result of one virtual machine, read from the files that it wrote.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::report::Verdict;

/// The whole result.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Outcome {
    /// Seconds from the start of the kernel to the first test.
    pub(super) boot: f64,
    /// The kernel's release, as `uname -r` prints it.
    pub(super) release: String,
    /// In the order of running; tests that never began are last.
    pub(super) tests: Vec<Test>,
    /// Facts about the kernel by name: lines `FACT NAME: VALUE` in the output of tests.
    pub(super) facts: BTreeMap<String, String>,
}

/// One test.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Test {
    pub(super) name: String,
    /// The duration; not recorded, because it says more of the machine than of the kernel.
    #[serde(skip)]
    pub(super) seconds: f64,
    pub(super) verdict: Verdict,
}

/// Reads the folder that a machine wrote to, for its tests.
///
/// # Errors
/// The machine did not reach the first test.
pub(super) fn read(folder: &Path, given: &[&str]) -> Result<Outcome> {
    let booted = fs::read_to_string(folder.join("booted")).context("no test was begun")?;
    let release = fs::read_to_string(folder.join("release"))?;
    let results = fs::read_to_string(folder.join("results")).unwrap_or_default();
    let mut outcome =
        Outcome { boot: booted.trim().parse()?, release: release.trim().to_owned(), ..Outcome::default() };
    for name in given {
        let log = fs::read(folder.join("log").join(name)).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let (seconds, verdict) = verdict(name, &results, &log);
        outcome.facts.extend(facts(&log));
        outcome.tests.push(Test { name: (*name).to_owned(), seconds, verdict });
    }
    Ok(outcome)
}

impl Outcome {
    /// The tests that failed.
    pub(super) fn failed(&self) -> impl Iterator<Item = (&Test, &str)> {
        self.tests.iter().filter_map(|test| match &test.verdict {
            Verdict::Failed(why) => Some((test, why.as_str())),
            _ => None,
        })
    }

    /// Returns the tests with skipped parts, and those parts.
    pub(super) fn skipped(&self) -> impl Iterator<Item = (&Test, &[String])> {
        self.tests.iter().filter_map(|test| match &test.verdict {
            Verdict::Skipped(what) => Some((test, what.as_slice())),
            _ => None,
        })
    }
}

/// Reads the lines `begin NAME SECONDS` and `end NAME SECONDS STATUS` of all tests, and the output of this test.
fn verdict(name: &str, results: &str, log: &str) -> (f64, Verdict) {
    let line = |word: &str| {
        let mut lines = results.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        lines.find(|it| it.first() == Some(&word) && it.get(1) == Some(&name))
    };
    let at = |line: &[&str]| line.get(2).and_then(|it| it.parse::<f64>().ok()).unwrap_or(0.0);
    let Some(begun) = line("begin") else {
        return (0.0, Verdict::Failed("never begun".into()));
    };
    let Some(ended) = line("end") else {
        return (0.0, Verdict::Failed("the machine ended in the middle of it".into()));
    };
    let verdict = match ended.get(3).copied() {
        Some("0") => Verdict::of_success(log),
        // timeout(1) returns these after SIGTERM, and after the SIGKILL that follows.
        Some("124" | "137" | "143") => Verdict::Failed("not done in its time".into()),
        status => Verdict::Failed(format!("exit code {}", status.unwrap_or("unknown"))),
    };
    (at(&ended) - at(&begun), verdict)
}

fn facts(log: &str) -> impl Iterator<Item = (String, String)> {
    let facts = log.lines().filter_map(|line| line.strip_prefix("FACT ")?.split_once(": "));
    facts.map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: &str = "running 1 test\ntest a ... ok\n\ntest result: ok. 1 passed; 0 failed\n";

    fn of(results: &str, log: &str) -> Verdict {
        verdict("m::a", results, log).1
    }

    #[test]
    fn test_passes_only_if_it_ended_with_a_verdict() {
        let ended = "begin m::a 10.5\nend m::a 12.0 0\n";
        assert_eq!(verdict("m::a", ended, OK), (1.5, Verdict::Passed));
        let failed = |why: &str| Verdict::Failed(why.into());
        assert_eq!(of(ended, "test result: ok. 0 passed; 0 failed"), failed("there is no such test"));
        assert_eq!(of("begin m::a 1.0\nend m::a 2.0 101\n", OK), failed("exit code 101"));
        assert_eq!(of("begin m::a 1.0\nend m::a 2.0 143\n", OK), failed("not done in its time"));
        assert_eq!(of("begin m::a 1.0\n", OK), failed("the machine ended in the middle of it"));
        assert_eq!(of("begin m::ab 1.0\nend m::ab 2.0 0\n", OK), failed("never begun"));
    }

    #[test]
    fn test_with_a_skipped_part_is_not_passed() {
        let log = format!("SKIPPED mptcp: this kernel has none\n{OK}");
        let ended = "begin m::a 1.0\nend m::a 2.0 0\n";
        assert_eq!(of(ended, &log), Verdict::Skipped(vec!["mptcp: this kernel has none".into()]));
    }

    #[test]
    fn facts_are_read_from_separate_lines() {
        let found: Vec<_> = facts("x FACT no: 1\nFACT set_retval: yes\n").collect();
        assert_eq!(found, [("set_retval".to_owned(), "yes".to_owned())]);
    }
}
