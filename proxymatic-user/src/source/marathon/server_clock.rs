//! The clock of Marathon, by the header `Date` of its responses. This host's clock may differ from it by any time. Pure.

use std::time::{Duration, Instant};

/// The largest difference between the clock and a header `Date` that does not set the clock, in milliseconds: the header
/// has whole seconds, and responses take a while.
const SAME: i64 = 1_500;

/// The clock of Marathon, against the monotonic clock of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerClock {
    /// A moment, and the milliseconds since 1970 that Marathon's clock had then.
    anchor: (Instant, i64),
    /// When the last response came.
    read: Instant,
}

impl ServerClock {
    /// Returns the clock after a response with this date, in milliseconds since 1970. The clock stays, so that a task keeps
    /// its start from one response to the next, unless the date denies it.
    pub fn read(known: Option<Self>, date: i64, at: Instant) -> Self {
        let same = known.filter(|known| known.millis_at(at).saturating_sub(date).saturating_abs() <= SAME);
        Self { anchor: same.map_or((at, date), |known| known.anchor), read: at }
    }

    /// Returns the moment that a task started; `None` if the task was older than `limit` at the last response. A start in
    /// the future, by another clock, is the moment of that response.
    pub fn start_within(&self, limit: Duration, started: i64) -> Option<Instant> {
        let age = self.millis_at(self.read).saturating_sub(started);
        let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
        if age < limit { self.read.checked_sub(age) } else { None }
    }

    fn millis_at(&self, moment: Instant) -> i64 {
        let (at, date) = self.anchor;
        let since = moment.saturating_duration_since(at).as_millis();
        date.saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);
    const DATE: i64 = 1_796_009_343_000;

    fn later(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn start_is_the_same_moment_in_each_response() {
        // The host's monotonic clock may have begun only now.
        let begin = Instant::now() + LIMIT;
        let mut clock = ServerClock::read(None, DATE, begin);
        assert_eq!(clock.start_within(LIMIT, DATE - 2_000), Some(begin - Duration::from_secs(2)));
        for (at, date) in [(400, DATE), (1_100, DATE + 2_000), (2_100, DATE + 1_000), (9_000, DATE + 9_000)] {
            clock = ServerClock::read(Some(clock), date, later(begin, at));
            assert_eq!(clock.start_within(LIMIT, DATE - 2_000), Some(begin - Duration::from_secs(2)), "{at}");
        }
    }

    #[test]
    fn other_date_sets_the_clock() {
        let begin = Instant::now() + LIMIT;
        let clock = ServerClock::read(Some(ServerClock::read(None, DATE, begin)), DATE + 3_600_000, later(begin, 10));
        assert_eq!(clock.start_within(LIMIT, DATE + 3_600_000), Some(later(begin, 10)));
    }

    #[test]
    fn old_start_is_none_and_future_start_is_the_response() {
        let begin = Instant::now() + LIMIT;
        let clock = ServerClock::read(None, DATE, begin);
        assert_eq!(clock.start_within(LIMIT, DATE - 60_000), None);
        assert!(clock.start_within(LIMIT, DATE - 59_999).is_some());
        assert_eq!(clock.start_within(LIMIT, DATE + 3_600_000), Some(begin));
        assert_eq!(clock.start_within(LIMIT, i64::MIN), None);
        assert_eq!(clock.start_within(LIMIT, i64::MAX), Some(begin));
    }
}
