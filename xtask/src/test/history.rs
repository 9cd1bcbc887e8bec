//! The durations of tiers and tests in the last run, kept in `target/test-times.json`: for the order of tests and the
//! remaining time of a run.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::{report::Report, workspace};

/// Seconds by tier, and by test of each tier.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct History {
    tiers: BTreeMap<String, f32>,
    tests: BTreeMap<String, BTreeMap<String, f32>>,
}

fn path() -> std::path::PathBuf {
    workspace::target_dir().join("test-times.json")
}

impl History {
    /// Reads the file; empty if there is none, or if it cannot be read.
    pub(crate) fn read() -> Self {
        fs::read(path()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// The duration of a tier.
    pub(crate) fn tier(&self, tier: &str) -> Option<Duration> {
        self.tiers.get(tier).copied().map(Duration::from_secs_f32)
    }

    /// The duration of a test.
    pub(crate) fn test(&self, tier: &str, test: &str) -> Option<Duration> {
        self.tests.get(tier)?.get(test).copied().map(Duration::from_secs_f32)
    }

    /// Records the duration of a tier. A run of some of its tests (`is_whole` is false) does not count for the tier.
    pub(crate) fn note(&mut self, tier: &str, took: Duration, report: &Report, is_whole: bool) {
        if is_whole && report.is_ok() {
            self.tiers.insert(tier.to_owned(), took.as_secs_f32());
        }
        let tests = self.tests.entry(tier.to_owned()).or_default();
        tests.extend(report.tests.iter().map(|test| (test.name.clone(), test.took.as_secs_f32())));
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn write(&self) -> Result<()> {
        let path = path();
        fs::write(&path, serde_json::to_vec_pretty(self)?).with_context(|| format!("cannot write {}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Ran, Verdict};

    #[test]
    fn partial_run_updates_tests_but_not_the_tier() {
        let test = Ran {
            name: "a".into(),
            verdict: Verdict::Passed,
            took: Duration::from_secs(3),
            log: None,
            again: "x".into(),
        };
        let report = Report { tests: vec![test], errors: Vec::new() };
        let mut history = History::default();
        history.note("netns", Duration::from_secs(9), &report, false);
        assert_eq!((history.tier("netns"), history.test("netns", "a")), (None, Some(Duration::from_secs(3))));
        history.note("netns", Duration::from_secs(9), &report, true);
        assert_eq!(history.tier("netns"), Some(Duration::from_secs(9)));
        assert_eq!(history.test("netns", "b"), None);
    }
}
