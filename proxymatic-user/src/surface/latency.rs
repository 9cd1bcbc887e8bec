//! How long something took, each time: counted in steps, as Prometheus wants its histograms.

use std::time::Duration;

/// The steps, in seconds: what takes no longer than one is counted there.
pub(super) const STEPS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// How often something took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latencies {
    /// By [`STEPS`]; what took longer than the last is only in `count`.
    pub steps: [u64; STEPS.len()],
    /// All of them together, in seconds.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
}

impl Latencies {
    /// Counts one.
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
    fn what_takes_exactly_a_step_is_counted_there_and_what_takes_longer_than_all_is_counted_too() {
        let mut latencies = Latencies::default();
        for ms in [1, 2, 10_000, 60_000] {
            latencies.note(Duration::from_millis(ms));
        }
        assert_eq!((latencies.steps[0], latencies.steps[1], latencies.steps[12]), (1, 1, 1));
        assert_eq!((latencies.count, latencies.steps.iter().sum::<u64>()), (4, 3));
        assert!((latencies.sum - 70.003).abs() < 1e-9);
    }
}
