//! When to read: soon after an event, never without pause, now and then without any event, and ever more patiently
//! while it fails. Pure: the clock and the dice are arguments.

use std::time::{Duration, Instant};

pub(super) use crate::source::backoff::{Backoff, Jitter};
use crate::source::{backoff::Limits, loss_guard::CONFIRM};

/// What the event stream says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// From now on nothing is missed, so everything has to be read once.
    Attached,
    /// There is no stream: what changes is seen by polling only.
    Lost,
    /// Something changed.
    Changed,
    /// A task is about to go, or gone.
    Urgent,
}

/// All the times that matter.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The longest time between two reads; each is drawn from three quarters of it up.
    pub refresh: Duration,
    /// How long no event must come before what they announce is read; each time it is drawn from this to twice this.
    pub quiet: Duration,
    /// How long after the first event it is read all the same.
    pub at_most: Duration,
    /// How long what is missing from an answer is doubted before a second one is asked for.
    pub confirm: Duration,
    /// How long to wait for the stream to say that it is attached.
    pub attached: Duration,
    /// How long a stream may be silent: a heartbeat comes every 10 s.
    pub silence: Duration,
    /// How long to wait after the first failure. It grows by half with each one.
    pub retry_first: Duration,
    /// How long to wait at most.
    pub retry_most: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(60),
            quiet: Duration::from_millis(100),
            at_most: Duration::from_secs(1),
            confirm: CONFIRM,
            attached: Duration::from_secs(2),
            silence: Duration::from_secs(25),
            retry_first: Duration::from_secs(1),
            retry_most: Duration::from_secs(15),
        }
    }
}

impl From<&Timing> for Limits {
    fn from(timing: &Timing) -> Self {
        Self { first: timing.retry_first, most: timing.retry_most }
    }
}

/// When the next read is due.
#[derive(Debug)]
pub(super) struct RefreshSchedule {
    timing: Timing,
    /// How long no event must come, this time: all agents see the same events.
    quiet: Duration,
    /// When to read though nothing happens: the next poll, or the next attempt after a failure.
    poll: Instant,
    failing: bool,
    /// The first and the last event since the last read began.
    changed: Option<(Instant, Instant)>,
    /// Since when it has been urgent, or needed after an attachment.
    urgent: Option<Instant>,
    attached: Option<Instant>,
    /// Nothing is read for events before this moment, so that a storm of them leaves pauses as long as the reads.
    rest_until: Instant,
    begun: Instant,
    ever: bool,
}

impl RefreshSchedule {
    /// Nothing has been read. The stream gets a little time to attach first, so that one read does.
    pub(super) fn new(now: Instant, timing: Timing) -> Self {
        Self {
            timing,
            quiet: timing.quiet,
            poll: now + timing.attached,
            failing: false,
            changed: None,
            urgent: None,
            attached: None,
            rest_until: now,
            begun: now,
            ever: false,
        }
    }

    pub(super) fn hint(&mut self, now: Instant, hint: Hint) {
        match hint {
            Hint::Attached => self.attached = Some(now),
            Hint::Lost if !self.ever => self.poll = self.poll.min(now),
            Hint::Lost => {}
            Hint::Changed | Hint::Urgent => {
                self.changed = Some((self.changed.map_or(now, |(first, _)| first), now));
                if hint == Hint::Urgent {
                    self.urgent = self.urgent.or(Some(now));
                }
            }
        }
    }

    /// When the next read is due.
    pub(super) fn due(&self) -> Instant {
        let (quiet, at_most) = (self.quiet, self.timing.at_most);
        // While reads fail, events do not make them more frequent; a stream that attaches says that Marathon is back.
        let soon = self.changed.map(|(first, last)| (last + quiet).min(first + at_most));
        let hinted = self.urgent.or(soon).map(|due| due.max(self.rest_until)).filter(|_| !self.failing);
        [hinted, self.attached].into_iter().flatten().fold(self.poll, Instant::min)
    }

    /// A read begins: it will see everything that was announced before. Whether everything is to be read.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let everything = self.failing || self.attached.is_some() || now >= self.poll;
        (self.changed, self.urgent, self.attached) = (None, None, None);
        (self.begun, self.ever) = (now, true);
        everything
    }

    /// A read is done. `everything`: all was read, so that the next poll is put off.
    pub(super) fn succeeded(&mut self, now: Instant, everything: bool, dice: &mut Jitter) {
        self.failing = false;
        if everything {
            self.poll = now + dice.jitter(self.timing.refresh);
        }
        let quiet = self.timing.quiet;
        self.quiet = quiet + (dice.jitter(quiet * 4).saturating_sub(quiet * 3));
        let took = now.saturating_duration_since(self.begun);
        self.rest_until = now + took.clamp(self.timing.quiet.min(self.timing.at_most), self.timing.at_most);
    }

    /// Something is in doubt: everything is to be read at that moment, if not before.
    pub(super) fn no_later_than(&mut self, moment: Instant) {
        self.poll = self.poll.min(moment);
    }

    pub(super) fn failed(&mut self, now: Instant, again_in: Duration) {
        self.failing = true;
        self.poll = now + again_in;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A pace that has read once, instantly, at the moment that is given with it.
    fn read_once() -> (RefreshSchedule, Instant, Jitter) {
        let (now, mut dice) = (Instant::now(), Jitter::new(1));
        let mut pace = RefreshSchedule::new(now, Timing::default());
        pace.begin(now);
        pace.succeeded(now, true, &mut dice);
        (pace, now + 1000 * MS, dice)
    }

    #[test]
    fn the_first_read_waits_for_the_stream_but_not_for_long() {
        let now = Instant::now();
        let pace = || RefreshSchedule::new(now, Timing::default());
        assert_eq!(pace().due(), now + 2000 * MS);
        for hint in [Hint::Attached, Hint::Lost] {
            let mut pace = pace();
            pace.hint(now + 30 * MS, hint);
            assert_eq!(pace.due(), now + 30 * MS, "{hint:?}");
        }
    }

    #[test]
    fn events_are_read_after_a_pause_or_a_second_and_urgent_ones_at_once() {
        let (mut pace, now, _) = read_once();
        let quiet = pace.quiet;
        assert!((100 * MS..=200 * MS).contains(&quiet), "{quiet:?}");
        pace.hint(now, Hint::Changed);
        assert_eq!(pace.due(), now + quiet);
        pace.hint(now + 60 * MS, Hint::Changed);
        assert_eq!(pace.due(), now + 60 * MS + quiet);
        for at in (120..1200).step_by(60) {
            pace.hint(now + at * MS, Hint::Changed);
        }
        assert_eq!(pace.due(), now + 1000 * MS);
        pace.hint(now + 700 * MS, Hint::Urgent);
        assert_eq!(pace.due(), now + 700 * MS);
    }

    #[test]
    fn an_event_during_a_read_is_read_after_it_and_reads_leave_pauses_as_long_as_themselves() {
        let (mut pace, now, mut dice) = read_once();
        pace.begin(now);
        pace.hint(now + 10 * MS, Hint::Urgent);
        pace.succeeded(now + 300 * MS, true, &mut dice);
        assert_eq!(pace.due(), now + 600 * MS);
        pace.begin(now + 600 * MS);
        pace.hint(now + 610 * MS, Hint::Urgent);
        pace.succeeded(now + 5000 * MS, true, &mut dice);
        assert_eq!(pace.due(), now + 6000 * MS);
    }

    #[test]
    fn without_events_it_polls_between_three_quarters_of_the_interval_and_all_of_it() {
        let mut dice = Jitter::new(7);
        let drawn: Vec<_> = (0..1000).map(|_| dice.jitter(Duration::from_secs(60))).collect();
        let (least, most) = (*drawn.iter().min().unwrap(), *drawn.iter().max().unwrap());
        assert!(least >= Duration::from_secs(45) && least < Duration::from_secs(46), "{least:?}");
        assert!(most <= Duration::from_secs(60) && most > Duration::from_secs(59), "{most:?}");
    }

    #[test]
    fn failures_are_retried_ever_more_patiently_and_told_ever_more_rarely() {
        let (mut failures, mut dice, timing) = (Backoff::default(), Jitter::new(3), Timing::default());
        let mut told = Vec::new();
        for count in 1..=100 {
            let (n, wait, tell) = failures.next("down", &timing, &mut dice);
            let full = (1.5_f64.powi(count - 1)).min(15.0);
            assert_eq!(n.cast_signed(), count);
            assert!(wait.as_secs_f64() >= full * 0.7499 && wait.as_secs_f64() <= full * 1.0001, "{count}: {wait:?}");
            told.extend(tell.then_some(n));
        }
        assert_eq!(told, [1, 2, 4, 8, 16, 32, 64]);
        assert!(failures.next("down in another way", &timing, &mut dice).2);
        assert!(!failures.next("down in another way", &timing, &mut dice).2);
        assert!(!failures.next("down", &timing, &mut dice).2);
        let told = (0..20).filter(|n| failures.next(&format!("down {n}"), &timing, &mut dice).2).count();
        assert_eq!(told, 6, "eight reasons in all");
    }

    #[test]
    fn reads_of_single_apps_do_not_put_off_the_poll_and_doubts_bring_it_forward() {
        let (mut pace, now, mut dice) = read_once();
        let poll = pace.due();
        pace.hint(now, Hint::Changed);
        assert!(!pace.begin(now + 200 * MS));
        pace.succeeded(now + 210 * MS, false, &mut dice);
        assert_eq!(pace.due(), poll);
        pace.no_later_than(now + 1210 * MS);
        assert_eq!(pace.due(), now + 1210 * MS);
        assert!(pace.begin(now + 1210 * MS));
        pace.succeeded(now + 1220 * MS, true, &mut dice);
        pace.hint(now + 2000 * MS, Hint::Attached);
        assert!(pace.begin(now + 2000 * MS));
        pace.failed(now + 2000 * MS, 100 * MS);
        assert!(pace.begin(now + 2050 * MS));
    }

    #[test]
    fn while_reads_fail_events_do_not_make_them_more_frequent_but_an_attachment_does() {
        let (mut pace, now, mut dice) = read_once();
        pace.begin(now);
        pace.failed(now, 9000 * MS);
        pace.hint(now + 10 * MS, Hint::Urgent);
        assert_eq!(pace.due(), now + 9000 * MS);
        pace.hint(now + 20 * MS, Hint::Attached);
        assert_eq!(pace.due(), now + 20 * MS);
        pace.begin(now + 20 * MS);
        pace.succeeded(now + 30 * MS, true, &mut dice);
        pace.hint(now + 5000 * MS, Hint::Changed);
        assert_eq!(pace.due(), now + 5000 * MS + pace.quiet);
    }
}
