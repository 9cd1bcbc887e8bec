//! One run of the tests on a kernel: what it printed, and the verdict on each test.

use std::{fs, path::Path, time::Duration};

use super::{boot::Accelerator, kernels::Kernel, outcome::Outcome};
use crate::report::{Ran, Verdict};

/// The result of one kernel.
pub(super) struct Run {
    pub(super) kernel: Kernel,
    pub(super) accelerator: Accelerator,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

impl Run {
    /// Prints the verdict on each test, and the output of failed tests.
    pub(super) fn tell(&self, out: &Path) {
        for (test, why) in self.outcome.failed() {
            let log = fs::read(out.join("log").join(&test.name)).unwrap_or_default();
            println!("---- {} on {}: {why}\n{}", test.name, self.outcome.release, String::from_utf8_lossy(&log));
        }
        for (test, what) in self.outcome.skipped() {
            println!("{}: SKIPPED {}: {}", self.outcome.release, test.name, what.join("; "));
        }
        let (failed, skipped) = (self.outcome.failed().count(), self.outcome.skipped().count());
        println!(
            "{}: booted in {:.1} s, {} tests in {:.0} s: {} passed, {skipped} skipped, {failed} failed",
            self.outcome.release,
            self.outcome.boot,
            self.outcome.tests.len(),
            self.took.as_secs_f64(),
            self.outcome.tests.len() - failed - skipped,
        );
    }

    /// The verdict on each test.
    pub(super) fn report(&self) -> impl Iterator<Item = Ran> {
        self.outcome.tests.iter().map(|test| {
            let verdict = match &test.verdict {
                // This kernel has every feature, so the test's probe is wrong.
                Verdict::Skipped(_) if self.kernel.newest => Verdict::Failed("skipped on the newest kernel".into()),
                other => other.clone(),
            };
            Ran {
                name: format!("{} {}", self.outcome.release, test.name),
                verdict,
                took: Duration::from_secs_f64(test.seconds),
                log: None,
                again: format!("{} --filter {}", self.kernel.series().unwrap_or(&self.kernel.release), test.name),
            }
        })
    }
}
