//! The result of a test tier: which tests passed, failed or were skipped, the duration of each, and how to rerun one.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

/// The verdict on one test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Passed,
    /// It could not test something on this machine: the skipped parts, each with the reason.
    Skipped(Vec<String>),
    /// The reason, in a few words.
    Failed(String),
}

impl Verdict {
    /// Returns the verdict on a test that ended with success, from its output: whether it ran at all, and what it
    /// skipped (lines `SKIPPED WHAT: WHY`).
    pub(crate) fn of_success(output: &str) -> Self {
        // With a name that no test has, the test program succeeds.
        if !output.contains("test result: ok. 1 passed") {
            return Self::Failed("there is no such test".into());
        }
        let skipped: Vec<_> = output.lines().filter_map(|it| it.strip_prefix("SKIPPED ")).map(str::to_owned).collect();
        if skipped.is_empty() { Self::Passed } else { Self::Skipped(skipped) }
    }
}

/// One test that ran.
#[derive(Clone, Debug)]
pub(crate) struct Ran {
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    pub(crate) took: Duration,
    /// Its output, kept if it failed.
    pub(crate) log: Option<PathBuf>,
    /// The arguments of `cargo xtask test` that rerun just this test.
    pub(crate) again: String,
}

/// The result of one tier.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) tests: Vec<Ran>,
    /// Failures that are no tests: a build, a lint, a tool that could not be installed. One line each.
    pub(crate) errors: Vec<String>,
}

impl Report {
    /// A tier without tests of its own: a command that succeeded or failed.
    pub(crate) fn from_result(result: anyhow::Result<()>) -> Self {
        Self { tests: Vec::new(), errors: result.err().map(|error| format!("{error:#}")).into_iter().collect() }
    }

    pub(crate) fn failed(&self) -> impl Iterator<Item = (&Ran, &str)> {
        self.tests.iter().filter_map(|test| match &test.verdict {
            Verdict::Failed(why) => Some((test, why.as_str())),
            Verdict::Passed | Verdict::Skipped(_) => None,
        })
    }

    pub(crate) fn skipped(&self) -> impl Iterator<Item = (&Ran, &[String])> {
        self.tests.iter().filter_map(|test| match &test.verdict {
            Verdict::Skipped(what) => Some((test, what.as_slice())),
            Verdict::Passed | Verdict::Failed(_) => None,
        })
    }

    pub(crate) fn is_ok(&self) -> bool {
        self.errors.is_empty() && self.failed().next().is_none()
    }

    /// `290 passed, 1 skipped, 0 failed`; empty for a tier without tests.
    pub(crate) fn counts(&self) -> String {
        if self.tests.is_empty() {
            return String::new();
        }
        let (failed, skipped) = (self.failed().count(), self.skipped().count());
        format!("{} passed, {skipped} skipped, {failed} failed", self.tests.len() - failed - skipped)
    }
}

/// Returns the table of all tiers that ran, then the failed and skipped tests by name.
pub(crate) fn table(tiers: &[(String, Duration, Report)]) -> String {
    let mut lines = Vec::new();
    for (tier, took, report) in tiers {
        let verdict = if report.is_ok() { "ok" } else { "FAILED" };
        let line = format!("{tier:<8}{:>7.1} s  {verdict:<6}  {}", took.as_secs_f32(), report.counts());
        lines.push(line.trim_end().to_owned());
    }
    let total: Duration = tiers.iter().map(|(_, took, _)| *took).sum();
    lines.push(format!("{:<8}{:>7.1} s", "all", total.as_secs_f32()));
    for (tier, _, report) in tiers {
        for (test, what) in report.skipped() {
            lines.extend(what.iter().map(|what| format!("skipped in {tier}: {}: {what}", test.name)));
        }
    }
    for (tier, _, report) in tiers {
        for error in &report.errors {
            lines.push(format!("failed in {tier}: {error}\n    run it alone: cargo xtask test {tier}"));
        }
        for (test, why) in report.failed() {
            lines.push(format!("failed in {tier}: {}: {why}", test.name));
            lines.push(format!("    run it alone: cargo xtask test {}", test.again));
            lines.extend(test.log.iter().map(|log| format!("    log: {}", log.display())));
        }
    }
    lines.join("\n")
}

/// Returns the tests with the longest durations, longest first, one line each.
pub(crate) fn slowest(tiers: &[(String, Duration, Report)], most: usize) -> Vec<String> {
    let mut all: Vec<_> =
        tiers.iter().flat_map(|(tier, _, report)| report.tests.iter().map(move |it| (tier, it))).collect();
    all.sort_by_key(|(_, test)| std::cmp::Reverse(test.took));
    all.truncate(most);
    all.iter().map(|(tier, test)| format!("{:>7.1} s  {tier:<8}{}", test.took.as_secs_f32(), test.name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(name: &str, verdict: Verdict, seconds: u64) -> Ran {
        let log = matches!(verdict, Verdict::Failed(_)).then(|| PathBuf::from(format!("/logs/{name}")));
        let again = format!("netns --filter {name}");
        Ran { name: name.into(), verdict, took: Duration::from_secs(seconds), log, again }
    }

    fn two_tiers() -> [(String, Duration, Report); 2] {
        let lint = Report { errors: vec!["`cargo clippy`: exit status: 101".into()], ..Report::default() };
        let tests = vec![
            ran("a::passes", Verdict::Passed, 2),
            ran("a::fails", Verdict::Failed("exit status: 101".into()), 9),
            ran("b::skips", Verdict::Skipped(vec!["tcx: needs 6.6".into()]), 1),
        ];
        let netns = Report { tests, errors: Vec::new() };
        [("clippy".into(), Duration::from_secs(3), lint), ("netns".into(), Duration::from_secs(12), netns)]
    }

    #[test]
    fn table_names_failed_tests_and_how_to_rerun_them() {
        let expected = "\
clippy      3.0 s  FAILED
netns      12.0 s  FAILED  1 passed, 1 skipped, 1 failed
all        15.0 s
skipped in netns: b::skips: tcx: needs 6.6
failed in clippy: `cargo clippy`: exit status: 101
    run it alone: cargo xtask test clippy
failed in netns: a::fails: exit status: 101
    run it alone: cargo xtask test netns --filter a::fails
    log: /logs/a::fails";
        assert_eq!(table(&two_tiers()), expected);
    }

    #[test]
    fn slowest_tests_come_first_over_all_tiers() {
        assert_eq!(slowest(&two_tiers(), 2), ["    9.0 s  netns   a::fails", "    2.0 s  netns   a::passes"]);
    }
}
