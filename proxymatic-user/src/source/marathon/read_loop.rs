//! The loop of the Marathon source that reads whenever a read is due, and publishes the results.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::{
    announced_ends::ANNOUNCED,
    event::{Concerns, EventSummary},
    pending_refresh::{Deployments, PendingRefresh, RefreshScope},
    published::PublishedState,
    reader::{Reader, Response},
    report,
    schedule::{Backoff, Hint, Jitter, RefreshSchedule, Timing},
    stream::ReadState,
    task_started::TaskStarted,
};
use crate::source::{Clock, failure::Failure, id::SourceId, report::Report};

/// The most started tasks that are kept during a read.
const MAX_STARTED: usize = 1_000;

/// The state of the loop.
pub(super) struct ReadLoop<'a> {
    reader: Reader<'a>,
    reads: &'a ReadState,
    timing: Timing,
    clock: Clock,
    news: News,
}

/// What events have changed since the last read, and what is published.
struct News {
    clock: Clock,
    schedule: RefreshSchedule,
    pending: PendingRefresh,
    deployments: Deployments,
    published: PublishedState,
    /// Tasks that have started, in the order of their events. They are kept during a read.
    started: Vec<TaskStarted>,
}

impl<'a> ReadLoop<'a> {
    pub(super) fn new(
        reader: Reader<'a>,
        published: PublishedState,
        timing: Timing,
        clock: Clock,
        reads: &'a ReadState,
    ) -> Self {
        let news = News {
            clock: clock.clone(),
            schedule: RefreshSchedule::new(clock.now(), timing),
            pending: PendingRefresh::default(),
            deployments: Deployments::new(timing.unannounced),
            published,
            started: Vec::new(),
        };
        Self { reader, reads, timing, clock, news }
    }

    /// Runs the loop. Returns after the receiver of the reports is dropped.
    pub(super) async fn run(
        mut self,
        mut jitter: Jitter,
        mut events: mpsc::Receiver<EventSummary>,
        reports: &mpsc::Sender<Report>,
    ) {
        let (confirm, mut backoff) = (self.timing.confirm, Backoff::default());
        loop {
            tokio::select! {
                Some(event) = events.recv() => {
                    if !self.news.on_event(event, &mut events, reports).await
                        || !self.news.publish_started(&self.reader, reports).await
                    {
                        return;
                    }
                    continue;
                }
                () = self.clock.sleep_until(self.news.schedule.due()) => {}
            }
            let now = self.clock.now();
            let everything = self.news.schedule.begin(now);
            self.news.schedule.take_due_apps(now).into_iter().for_each(|app| self.news.pending.note(Some(app)));
            let scope = self.news.pending.take(everything);
            let outcome = {
                let mut read = std::pin::pin!(self.reader.read(scope, self.news.published.served()));
                loop {
                    tokio::select! {
                        outcome = &mut read => break outcome,
                        Some(event) = events.recv() => {
                            if !self.news.on_event(event, &mut events, reports).await {
                                return;
                            }
                        }
                    }
                }
            };
            self.reads.set(outcome.is_ok());
            let outcome = outcome.and_then(|mut response| {
                let everything = response.scope == RefreshScope::All;
                let awaited = std::mem::take(&mut response.awaited);
                self.news.publish(response, confirm).map(|()| (everything, awaited))
            });
            let report = match outcome {
                Ok((everything, awaited)) => {
                    backoff.clear();
                    self.news.schedule.succeeded(self.clock.now(), everything, &mut jitter);
                    self.news.schedule.await_apps(self.clock.now(), awaited, &mut jitter);
                    if let Some(moment) = self.news.published.confirm_at(confirm) {
                        self.news.schedule.no_later_than(moment);
                    }
                    self.news.report_if(true)
                }
                Err(failure) => {
                    self.news.pending.note(None);
                    let mut retry = backoff.next(&failure.what, &self.timing, &mut jitter);
                    // A failure that comes at once costs nobody anything, and Marathon may be back any moment.
                    let soon = jitter.jitter(self.timing.blind).max(self.clock.now().saturating_duration_since(now));
                    retry.again_in = retry.again_in.min(soon);
                    if let Some(moment) = self.news.published.confirm_at(confirm) {
                        retry.again_in = retry.again_in.max(moment.saturating_duration_since(self.clock.now()));
                    }
                    self.news.schedule.failed(self.clock.now(), retry.again_in);
                    retry.report.then(|| report::failed(&failure, &retry))
                }
            };
            if let Some(report) = report
                && reports.send(report).await.is_err()
            {
                return;
            }
            if !self.news.publish_started(&self.reader, reports).await {
                return;
            }
        }
    }
}

impl News {
    /// Handles an event and all events that wait behind it. Tasks that have ended are reported at once, before any read.
    /// Returns false after the receiver of the reports is dropped.
    async fn on_event(
        &mut self,
        event: EventSummary,
        more: &mut mpsc::Receiver<EventSummary>,
        reports: &mpsc::Sender<Report>,
    ) -> bool {
        let (now, mut changed) = (self.clock.now(), false);
        let mut next = Some(event);
        while let Some(EventSummary { hint, concerns, ended, started, unreachable, instance, replaced_ended }) = next {
            self.schedule.hint(now, hint);
            let app = concerns.app().map(str::to_owned);
            if let Some(ended) = ended {
                changed |= self.published.task_ended(ended, app.clone(), now);
            }
            match hint {
                Hint::Lost => self.published.stream_lost(),
                Hint::Attached => self.deployments.attached(now),
                Hint::Changed | Hint::Urgent => {}
            }
            if let Some(instance) = instance {
                let (id, is_running) = (instance.instance.clone(), instance.is_running);
                let (announced, changes) = self.published.instance_changed(instance, now);
                changed |= changes;
                if let Some(app) = app.clone().filter(|_| announced) {
                    self.schedule.expect_end(id, app, now + ANNOUNCED);
                } else if !is_running {
                    self.schedule.end_seen(&id);
                }
            }
            if let Some(instance) = replaced_ended {
                self.published.replaced_ended(&instance);
            }
            if let Some(task) = unreachable {
                self.published.task_unreachable(task, now);
            }
            self.note(concerns, now);
            // Tasks beyond the limit are in the response to the read that follows in any case.
            self.started.extend(started.filter(|_| self.started.len() < MAX_STARTED));
            next = more.try_recv().ok();
        }
        self.send_if(changed, reports).await
    }

    /// Notes what the next read must cover.
    fn note(&mut self, concerns: Concerns, now: Instant) {
        let names = match concerns {
            Concerns::Everything => None,
            Concerns::Apps(names) => Some(names),
            Concerns::Deployment(id, names, goes_on) => {
                self.deployments.note(id, names.clone(), goes_on, now);
                Some(names)
            }
            Concerns::Deployments => self.deployments.all(now).map(|names| names.into_iter().collect()),
        };
        match names {
            Some(names) => names.into_iter().for_each(|name| self.pending.note(Some(name))),
            None => self.pending.note(None),
        }
    }

    /// Publishes the tasks that have started, if their services are known without a request. Returns false after the
    /// receiver of the reports is dropped.
    async fn publish_started(&mut self, reader: &Reader<'_>, reports: &mpsc::Sender<Report>) -> bool {
        let mut changed = false;
        for started in std::mem::take(&mut self.started) {
            changed |=
                reader.started(&started).is_some_and(|served| self.published.task_started(&served, self.clock.now()));
        }
        self.send_if(changed, reports).await
    }

    /// Publishes the response to a read.
    fn publish(&mut self, response: Response, confirm: Duration) -> Result<(), Failure> {
        let published = self.published.on_response(response, self.clock.now(), confirm);
        published.map_err(|what| Failure::without_url("Marathon", what))
    }

    async fn send_if(&self, changed: bool, reports: &mpsc::Sender<Report>) -> bool {
        match self.report_if(changed) {
            Some(report) => reports.send(report).await.is_ok(),
            None => true,
        }
    }

    fn report_if(&self, changed: bool) -> Option<Report> {
        let (at, snapshot) = if changed { self.published.latest()? } else { return None };
        Some(Report::Snapshot { source: SourceId::Marathon, snapshot, at })
    }
}
