//! Exponential backoff with per-host jitter, and the decision which failures to report. Pure: the random numbers are an
//! argument.

use std::time::Duration;

/// The bounds of the wait before a retry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The wait after the first failure. It grows by half with each further failure.
    pub(super) first: Duration,
    /// The longest wait.
    pub(super) most: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_secs(15) }
    }
}

/// A sequence of random numbers that differs from host to host, so that agents do not send their requests all at once.
#[derive(Debug)]
pub(super) struct Jitter(fastrand::Rng);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// Returns a random duration from three quarters of `duration` to all of it.
    pub(super) fn jitter(&mut self, duration: Duration) -> Duration {
        duration * 3 / 4 + duration / 4 * self.0.u32(..1 << 16) / (1 << 16)
    }
}

/// The number of reasons that are remembered as reported. More than that are one failure in many words.
const MAX_REPORTED: usize = 8;

/// The next attempt after a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Retry {
    /// The number of failures in a row, from 1.
    pub(super) attempt: u32,
    /// The time until the next attempt.
    pub(super) again_in: Duration,
    /// Whether to report the failure: the 1st, 2nd, 4th, 8th and so on, and each of the first few reasons.
    pub(super) report: bool,
}

/// The failures in a row.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    count: u32,
    /// The first reasons that were reported.
    reported: Vec<String>,
}

impl Backoff {
    /// Forgets all failures.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Counts a failure and returns the next attempt.
    pub(super) fn next(&mut self, reason: &str, limits: impl Into<Limits>, jitter: &mut Jitter) -> Retry {
        self.count = self.count.saturating_add(1);
        let new = self.reported.len() < MAX_REPORTED && !self.reported.iter().any(|reported| reported == reason);
        if new {
            self.reported.push(reason.to_owned());
        }
        let report = new || self.count.is_power_of_two();
        let limits = limits.into();
        // 40 steps of one half exceed any sensible longest wait.
        let grown = limits.first.as_secs_f64() * 1.5_f64.powi(self.count.min(40).cast_signed() - 1);
        let wait = Duration::try_from_secs_f64(grown).unwrap_or(limits.most).min(limits.most);
        Retry { attempt: self.count, again_in: jitter.jitter(wait), report }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_reports_become_rare() {
        let (mut backoff, mut jitter, limits) = (Backoff::default(), Jitter::new(3), Limits::default());
        let mut reported = Vec::new();
        for count in 1..=100 {
            let Retry { attempt, again_in, report } = backoff.next("down", limits, &mut jitter);
            let full = (1.5_f64.powi(count - 1)).min(15.0);
            assert_eq!(attempt.cast_signed(), count);
            let wait = again_in.as_secs_f64();
            assert!(wait >= full * 0.7499 && wait <= full * 1.0001, "{count}: {wait:?}");
            reported.extend(report.then_some(attempt));
        }
        assert_eq!(reported, [1, 2, 4, 8, 16, 32, 64]);
        assert!(backoff.next("down in another way", limits, &mut jitter).report);
        assert!(!backoff.next("down in another way", limits, &mut jitter).report);
        assert!(!backoff.next("down", limits, &mut jitter).report);
        let reported = (0..20).filter(|n| backoff.next(&format!("down {n}"), limits, &mut jitter).report).count();
        assert_eq!(reported, MAX_REPORTED - 2);
    }

    #[test]
    fn jitter_is_between_three_quarters_and_all_of_the_duration() {
        let mut jitter = Jitter::new(7);
        let drawn: Vec<_> = (0..1000).map(|_| jitter.jitter(Duration::from_secs(60))).collect();
        let (least, most) = (*drawn.iter().min().unwrap(), *drawn.iter().max().unwrap());
        assert!(least >= Duration::from_secs(45) && least < Duration::from_secs(46), "{least:?}");
        assert!(most <= Duration::from_secs(60) && most > Duration::from_secs(59), "{most:?}");
    }
}
