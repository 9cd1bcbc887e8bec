//! The rate of first probes, and their jitter: agents of many hosts learn of a new task at the same moment.

use std::time::{Duration, Instant};

/// The shortest time between two probes: at most 200 probes a second.
pub(super) const SPACING: Duration = Duration::from_millis(5);
/// The longest time from the listing of a new backend to its first probe.
const FIRST: Duration = Duration::from_millis(5);

/// When the next probe may start.
#[derive(Debug)]
pub(super) struct Rate {
    next: Option<Instant>,
    random: fastrand::Rng,
}

impl Rate {
    pub(super) fn new(seed: u64) -> Self {
        Self { next: None, random: fastrand::Rng::with_seed(seed) }
    }

    /// Returns the time until the first probe of a backend.
    pub(super) fn first(&mut self) -> Duration {
        self.part(FIRST)
    }

    /// Returns a pause, or up to a quarter more.
    pub(super) fn jitter(&mut self, pause: Duration) -> Duration {
        pause + self.part(pause / 4)
    }

    /// Returns when a probe that is due at a time may start.
    pub(super) fn next_after(&self, due: Instant) -> Instant {
        self.next.map_or(due, |next| next.max(due))
    }

    /// Notes that a probe starts.
    pub(super) fn probed(&mut self, now: Instant) {
        self.next = Some(now + SPACING + self.part(SPACING / 5));
    }

    /// Returns a random part of a duration.
    fn part(&mut self, of: Duration) -> Duration {
        of * self.random.u32(..1 << 16) / (1 << 16)
    }
}
