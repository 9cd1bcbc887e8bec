//! How sources try again: ever more patiently, each host at times of its own, and without saying the same thing over
//! and over. Pure: the dice are an argument.

use std::time::Duration;

/// How long to wait before trying again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// After the first failure. It grows by half with each one.
    pub(super) first: Duration,
    /// At most.
    pub(super) most: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), most: Duration::from_secs(15) }
    }
}

/// A sequence of numbers that differs from host to host, so that agents do not ask Marathon all at once.
#[derive(Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From three quarters of a duration to all of it.
    pub(super) fn jitter(&mut self, duration: Duration) -> Duration {
        // SplitMix64 (public domain, Sebastiano Vigna).
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let sixteenth = u32::try_from(bits >> 48).unwrap_or_default();
        duration * 3 / 4 + duration / 4 * sixteenth / (1 << 16)
    }
}

/// How many reasons are remembered as told. More than that are one reason in many words.
const MAX_TOLD: usize = 8;

/// How often something has failed in a row, and what that means.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    count: u32,
    /// The reasons that were told, the first of them.
    told: Vec<String>,
}

impl Backoff {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Counts one more. The count, how long to wait, and whether to tell: the 1st, 2nd, 4th, 8th and so on, and
    /// each of the first few reasons.
    pub(super) fn next(&mut self, reason: &str, limits: impl Into<Limits>, dice: &mut Jitter) -> (u32, Duration, bool) {
        self.count = self.count.saturating_add(1);
        let new = self.told.len() < MAX_TOLD && !self.told.iter().any(|told| told == reason);
        if new {
            self.told.push(reason.to_owned());
        }
        let tell = new || self.count.is_power_of_two();
        let limits = limits.into();
        // After 40 steps of one half every first wait has passed every last one that makes sense.
        let grown = limits.first.as_secs_f64() * 1.5_f64.powi(self.count.min(40).cast_signed() - 1);
        let wait = Duration::try_from_secs_f64(grown).unwrap_or(limits.most).min(limits.most);
        (self.count, dice.jitter(wait), tell)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_retried_ever_more_patiently_and_told_ever_more_rarely() {
        let (mut failures, mut dice, limits) = (Backoff::default(), Jitter::new(3), Limits::default());
        let mut told = Vec::new();
        for count in 1..=100 {
            let (n, wait, tell) = failures.next("down", limits, &mut dice);
            let full = (1.5_f64.powi(count - 1)).min(15.0);
            assert_eq!(n.cast_signed(), count);
            assert!(wait.as_secs_f64() >= full * 0.7499 && wait.as_secs_f64() <= full * 1.0001, "{count}: {wait:?}");
            told.extend(tell.then_some(n));
        }
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64]);
        assert!(failures.next("down in another way", limits, &mut dice).2);
        assert!(!failures.next("down in another way", limits, &mut dice).2);
        assert!(!failures.next("down", limits, &mut dice).2);
        let told = (0..20).filter(|n| failures.next(&format!("down {n}"), limits, &mut dice).2).count();
        assert_eq!(told, MAX_TOLD - 2);
    }
}
