//! Durations, counted in buckets as Prometheus expects its histograms.

use std::time::Duration;

/// The upper bounds of the buckets, in seconds.
pub(super) const STEPS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A histogram of durations.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latencies {
    /// The number of durations in each bucket of [`STEPS`]; a longer duration is only in `count`.
    pub steps: [u64; STEPS.len()],
    /// The sum of all durations, in seconds.
    pub sum: f64,
    /// The number of durations.
    pub count: u64,
}

impl Latencies {
    /// Adds one duration.
    pub fn note(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        if let Some(step) = STEPS.iter().position(|step| took <= *step) {
            self.steps[step] += 1;
        }
        self.sum += took;
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duration_counts_in_its_bucket_or_only_in_the_total() {
        let mut latencies = Latencies::default();
        for ms in [1, 2, 10_000, 60_000] {
            latencies.note(Duration::from_millis(ms));
        }
        assert_eq!((latencies.steps[0], latencies.steps[1], latencies.steps[12]), (1, 1, 1));
        assert_eq!((latencies.count, latencies.steps.iter().sum::<u64>()), (4, 3));
        assert!((latencies.sum - 70.003).abs() < 1e-9);
    }
}
