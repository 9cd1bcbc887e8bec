//! The schedule of reads: soon after an event, with a pause between two, regularly without events, and with growing
//! waits after failures. Pure: the clock and the random numbers are arguments.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

pub(super) use crate::source::backoff::{Backoff, Jitter};
use crate::source::{backoff::Limits, loss_guard::CONFIRM};

/// A hint of the event stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hint {
    /// The stream is attached: no later event is missed, so everything must be read once.
    Attached,
    /// There is no stream: changes are seen only by polling.
    Lost,
    /// Something changed.
    Changed,
    /// A task is about to end, or has ended.
    Urgent,
}

/// The durations of the source.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// The longest time between two reads. Each time is drawn from three quarters of it up.
    pub refresh: Duration,
    /// The time without events before a read. Each time is drawn from this to twice this.
    pub quiet: Duration,
    /// The longest time from the first event to the read.
    pub at_most: Duration,
    /// The time between two reads while there is no stream, and from a failure that came at once to the next attempt. Each
    /// time is drawn from three quarters of it up.
    pub blind: Duration,
    /// How long the loss guard waits for a second response.
    pub confirm: Duration,
    /// How long to wait for the announcement that the stream is attached.
    pub attached: Duration,
    /// The longest silence of a stream: Marathon sends a heartbeat every 10 s.
    pub silence: Duration,
    /// The longest time from the announcement of a deployment to the event that its group has changed.
    pub unannounced: Duration,
    /// The wait after the first failure. It grows by half with each further failure.
    pub retry_first: Duration,
    /// The longest wait after a failure.
    pub retry_most: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(60),
            quiet: Duration::from_millis(100),
            at_most: Duration::from_secs(1),
            blind: Duration::from_secs(1),
            confirm: CONFIRM,
            attached: Duration::from_secs(2),
            silence: Duration::from_secs(25),
            unannounced: Duration::from_secs(3),
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

/// The schedule of reads.
#[derive(Debug)]
pub(super) struct RefreshSchedule {
    timing: Timing,
    /// The time without events before the next read. It is drawn, because all agents see the same events.
    quiet: Duration,
    /// When to read without any event: the next poll, or the next attempt after a failure.
    poll: Instant,
    failing: bool,
    /// Whether there is no stream, and the time between two reads then.
    blind: bool,
    blind_pause: Duration,
    /// The first and the last event since the last read began.
    changed: Option<(Instant, Instant)>,
    /// The first urgent event since the last read began.
    urgent: Option<Instant>,
    /// When the stream attached, if that was after the last read began.
    attached: Option<Instant>,
    /// The earliest read for events. In a storm of events, pauses are as long as reads.
    rest_until: Instant,
    begun: Instant,
    /// Whether any read has begun.
    ever: bool,
    /// Apps that are read again without any event, and when.
    awaited: BTreeMap<String, Instant>,
    /// Instances whose end is announced: their apps are read again if it does not come.
    ending: BTreeMap<String, (String, Instant)>,
}

impl RefreshSchedule {
    /// Returns the schedule before the first read. The stream gets some time to attach first, so that one read is enough.
    pub(super) fn new(now: Instant, timing: Timing) -> Self {
        Self {
            timing,
            quiet: timing.quiet,
            poll: now + timing.attached,
            failing: false,
            blind: false,
            blind_pause: timing.blind,
            changed: None,
            urgent: None,
            attached: None,
            rest_until: now,
            begun: now,
            ever: false,
            awaited: BTreeMap::new(),
            ending: BTreeMap::new(),
        }
    }

    /// Notes a hint.
    pub(super) fn hint(&mut self, now: Instant, hint: Hint) {
        match hint {
            Hint::Attached => (self.attached, self.blind) = (Some(now), false),
            Hint::Lost if !self.ever => (self.poll, self.blind) = (self.poll.min(now), true),
            Hint::Lost => {
                self.blind = true;
                if !self.failing {
                    self.poll = self.poll.min(now + self.blind_pause);
                }
            }
            Hint::Changed | Hint::Urgent => {
                self.changed = Some((self.changed.map_or(now, |(first, _)| first), now));
                if hint == Hint::Urgent {
                    self.urgent = self.urgent.or(Some(now));
                }
            }
        }
    }

    /// Returns when the next read is due.
    pub(super) fn due(&self) -> Instant {
        let (quiet, at_most) = (self.quiet, self.timing.at_most);
        // While reads fail, events do not make them more frequent. A stream that attaches shows that Marathon is back.
        let soon = self.changed.map(|(first, last)| (last + quiet).min(first + at_most));
        let soon = self.urgent.or(soon).into_iter().chain(self.awaited.values().copied());
        let soon = soon.chain(self.ending.values().map(|(_, moment)| *moment)).min();
        let hinted = soon.map(|due| due.max(self.rest_until)).filter(|_| !self.failing);
        [hinted, self.attached].into_iter().flatten().fold(self.poll, Instant::min)
    }

    /// Notes that a read begins, which sees everything that was announced before. Returns whether to read everything.
    pub(super) fn begin(&mut self, now: Instant) -> bool {
        let everything = self.failing || self.attached.is_some() || now >= self.poll;
        (self.changed, self.urgent, self.attached) = (None, None, None);
        (self.begun, self.ever) = (now, true);
        everything
    }

    /// Notes that a read succeeded. If it was of everything, the next poll moves.
    pub(super) fn succeeded(&mut self, now: Instant, everything: bool, jitter: &mut Jitter) {
        self.failing = false;
        let took = now.saturating_duration_since(self.begun);
        // A listing that takes long is a load, so it is read less often.
        self.blind_pause = jitter.jitter(self.timing.blind.max(took * 4).min(self.timing.refresh));
        if everything {
            self.poll = now + if self.blind { self.blind_pause } else { jitter.jitter(self.timing.refresh) };
        }
        let quiet = self.timing.quiet;
        self.quiet = quiet + (jitter.jitter(quiet * 4).saturating_sub(quiet * 3));
        self.rest_until = now + took.clamp(self.timing.quiet.min(self.timing.at_most), self.timing.at_most);
    }

    /// Notes after which time each app that awaits a result must be read again, after a read that succeeded. An app that
    /// is awaited already keeps its moment.
    pub(super) fn await_apps(&mut self, now: Instant, apps: BTreeMap<String, Duration>, jitter: &mut Jitter) {
        let mut before = std::mem::take(&mut self.awaited);
        let moment = |(app, after)| {
            let moment = before.remove(&app).unwrap_or_else(|| now + jitter.jitter(after));
            (app, moment)
        };
        self.awaited = apps.into_iter().map(moment).collect();
    }

    /// Returns the apps that are due, and forgets them.
    pub(super) fn take_due_apps(&mut self, now: Instant) -> Vec<String> {
        let awaited = self.awaited.extract_if(.., |_, moment| *moment <= now).map(|(app, _)| app);
        awaited.chain(self.ending.extract_if(.., |_, (_, moment)| *moment <= now).map(|(_, (app, _))| app)).collect()
    }

    /// Reads the app of an instance at that moment, unless the announced end of the instance is seen before.
    pub(super) fn expect_end(&mut self, instance: String, app: String, moment: Instant) {
        self.ending.insert(instance, (app, moment));
    }

    /// Notes that an instance has changed after its end was announced.
    pub(super) fn end_seen(&mut self, instance: &str) {
        self.ending.remove(instance);
    }

    /// Reads everything at that moment at the latest.
    pub(super) fn no_later_than(&mut self, moment: Instant) {
        self.poll = self.poll.min(moment);
    }

    /// Notes that a read failed.
    pub(super) fn failed(&mut self, now: Instant, again_in: Duration) {
        self.failing = true;
        self.poll = now + again_in;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Returns a schedule after one read, and a moment one second later.
    fn read_once() -> (RefreshSchedule, Instant, Jitter) {
        let (now, mut jitter) = (Instant::now(), Jitter::new(1));
        let mut schedule = RefreshSchedule::new(now, Timing::default());
        schedule.begin(now);
        schedule.succeeded(now, true, &mut jitter);
        (schedule, now + 1000 * MS, jitter)
    }

    #[test]
    fn first_read_waits_for_the_stream_for_two_seconds() {
        let now = Instant::now();
        let schedule = || RefreshSchedule::new(now, Timing::default());
        assert_eq!(schedule().due(), now + 2000 * MS);
        for hint in [Hint::Attached, Hint::Lost] {
            let mut schedule = schedule();
            schedule.hint(now + 30 * MS, hint);
            assert_eq!(schedule.due(), now + 30 * MS, "{hint:?}");
        }
    }

    #[test]
    fn events_are_read_after_a_pause_and_urgent_ones_at_once() {
        let (mut schedule, now, _) = read_once();
        let quiet = schedule.quiet;
        assert!((100 * MS..=200 * MS).contains(&quiet), "{quiet:?}");
        schedule.hint(now, Hint::Changed);
        assert_eq!(schedule.due(), now + quiet);
        schedule.hint(now + 60 * MS, Hint::Changed);
        assert_eq!(schedule.due(), now + 60 * MS + quiet);
        for at in (120..1200).step_by(60) {
            schedule.hint(now + at * MS, Hint::Changed);
        }
        assert_eq!(schedule.due(), now + 1000 * MS);
        schedule.hint(now + 700 * MS, Hint::Urgent);
        assert_eq!(schedule.due(), now + 700 * MS);
    }

    #[test]
    fn pause_after_a_read_is_as_long_as_the_read() {
        let (mut schedule, now, mut jitter) = read_once();
        schedule.begin(now);
        schedule.hint(now + 10 * MS, Hint::Urgent);
        schedule.succeeded(now + 300 * MS, true, &mut jitter);
        assert_eq!(schedule.due(), now + 600 * MS);
        schedule.begin(now + 600 * MS);
        schedule.hint(now + 610 * MS, Hint::Urgent);
        schedule.succeeded(now + 5000 * MS, true, &mut jitter);
        assert_eq!(schedule.due(), now + 6000 * MS);
    }

    #[test]
    fn default_waits_are_those_of_the_backoff() {
        let (limits, default) = (Limits::from(&Timing::default()), Limits::default());
        assert_eq!((limits.first, limits.most), (default.first, default.most));
    }

    #[test]
    fn poll_moves_after_full_reads_and_for_confirmations_only() {
        let (mut schedule, now, mut jitter) = read_once();
        let poll = schedule.due();
        schedule.hint(now, Hint::Changed);
        assert!(!schedule.begin(now + 200 * MS));
        schedule.succeeded(now + 210 * MS, false, &mut jitter);
        assert_eq!(schedule.due(), poll);
        schedule.no_later_than(now + 1210 * MS);
        assert_eq!(schedule.due(), now + 1210 * MS);
        assert!(schedule.begin(now + 1210 * MS));
        schedule.succeeded(now + 1220 * MS, true, &mut jitter);
        schedule.hint(now + 2000 * MS, Hint::Attached);
        assert!(schedule.begin(now + 2000 * MS));
        schedule.failed(now + 2000 * MS, 100 * MS);
        assert!(schedule.begin(now + 2050 * MS));
    }

    #[test]
    fn awaited_app_is_due_at_its_interval_until_it_is_not_awaited() {
        let (mut schedule, now, mut jitter) = read_once();
        let poll = schedule.due();
        let awaited = || BTreeMap::from([("/a".to_owned(), 4000 * MS)]);
        schedule.await_apps(now, awaited(), &mut jitter);
        let due = schedule.due();
        assert!((now + 3000 * MS..=now + 4000 * MS).contains(&due), "{:?}", due - now);
        schedule.await_apps(now + 1000 * MS, awaited(), &mut jitter);
        assert_eq!(schedule.due(), due, "another read does not delay it");
        assert_eq!(schedule.take_due_apps(due - MS), [""; 0]);
        assert!(!schedule.begin(due), "only the app is read");
        assert_eq!(schedule.take_due_apps(due), ["/a"]);
        schedule.await_apps(due, BTreeMap::new(), &mut jitter);
        assert_eq!(schedule.due(), poll);
    }

    #[test]
    fn reads_come_each_second_while_there_is_no_stream() {
        let (mut schedule, now, mut jitter) = read_once();
        schedule.hint(now, Hint::Lost);
        let first = schedule.due();
        assert!((now + 750 * MS..=now + 1000 * MS).contains(&first), "{:?}", first - now);
        assert!(schedule.begin(first));
        schedule.succeeded(first + 10 * MS, true, &mut jitter);
        let second = schedule.due() - first;
        assert!((760 * MS..=1010 * MS).contains(&second), "{second:?}");
        assert!(schedule.begin(first + second));
        schedule.succeeded(first + second + 2000 * MS, true, &mut jitter);
        let slow = schedule.due() - (first + second);
        assert!(slow >= 8000 * MS, "a listing that takes 2 s: {slow:?}");
        schedule.hint(first + 5000 * MS, Hint::Attached);
        assert!(schedule.begin(first + 5000 * MS));
        schedule.succeeded(first + 5000 * MS, true, &mut jitter);
        assert!(schedule.due() >= first + 50_000 * MS);
    }

    #[test]
    fn failing_reads_are_repeated_early_only_after_an_attachment() {
        let (mut schedule, now, mut jitter) = read_once();
        schedule.begin(now);
        schedule.failed(now, 9000 * MS);
        schedule.hint(now + 10 * MS, Hint::Urgent);
        assert_eq!(schedule.due(), now + 9000 * MS);
        schedule.hint(now + 20 * MS, Hint::Attached);
        assert_eq!(schedule.due(), now + 20 * MS);
        schedule.begin(now + 20 * MS);
        schedule.succeeded(now + 30 * MS, true, &mut jitter);
        schedule.hint(now + 5000 * MS, Hint::Changed);
        assert_eq!(schedule.due(), now + 5000 * MS + schedule.quiet);
    }
}
