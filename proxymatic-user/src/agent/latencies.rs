//! A histogram of latencies in the buckets that Prometheus gets.

use std::time::Duration;

/// The upper bounds of the buckets, in seconds.
pub(crate) const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// A histogram of latencies.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latencies {
    /// The count of each bucket in [`BUCKETS`]. A latency above the last bound is only in `count`.
    pub steps: [u64; BUCKETS.len()],
    /// The sum of all latencies, in seconds.
    pub sum: f64,
    /// How many latencies were recorded.
    pub count: u64,
}

impl Latencies {
    /// Records one latency.
    pub fn record(&mut self, latency: Duration) {
        let latency = latency.as_secs_f64();
        if let Some(bucket) = BUCKETS.iter().position(|bound| latency <= *bound) {
            self.steps[bucket] += 1;
        }
        self.sum += latency;
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_is_in_the_first_bucket_that_holds_it() {
        let mut latencies = Latencies::default();
        for ms in [1, 2, 10_000, 60_000] {
            latencies.record(Duration::from_millis(ms));
        }
        assert_eq!((latencies.steps[0], latencies.steps[1], latencies.steps[12]), (1, 1, 1));
        assert_eq!((latencies.count, latencies.steps.iter().sum::<u64>()), (4, 3), "60 s is in no bucket");
        assert!((latencies.sum - 70.003).abs() < 1e-9);
    }
}
