//! The loop of the Marathon source that reads whenever a read is due, and publishes the results.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use super::{
    event::EventSummary,
    pending_refresh::{PendingRefresh, RefreshScope},
    published::PublishedState,
    reader::{Reader, Response},
    report,
    schedule::{Backoff, Jitter, RefreshSchedule, Timing},
    task_started::TaskStarted,
};
use crate::{
    model::Snapshot,
    source::{failure::Failure, id::SourceId, report::Report},
};

/// The most started tasks that are kept during a read.
const MAX_STARTED: usize = 1_000;

/// The state of the loop.
pub(super) struct ReadLoop<'a> {
    reader: Reader<'a>,
    /// Whether the last read succeeded.
    reading_works: &'a AtomicBool,
    timing: Timing,
    news: News,
}

/// What events have changed since the last read, and what is published.
struct News {
    schedule: RefreshSchedule,
    pending: PendingRefresh,
    published: PublishedState,
    /// Tasks that have started, in the order of their events. They are kept during a read.
    started: Vec<TaskStarted>,
}

impl<'a> ReadLoop<'a> {
    pub(super) fn new(
        reader: Reader<'a>,
        published: PublishedState,
        timing: Timing,
        reading_works: &'a AtomicBool,
    ) -> Self {
        let news = News {
            schedule: RefreshSchedule::new(Instant::now(), timing),
            pending: PendingRefresh::default(),
            published,
            started: Vec::new(),
        };
        Self { reader, reading_works, timing, news }
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
                () = tokio::time::sleep_until(self.news.schedule.due().into()) => {}
            }
            let now = Instant::now();
            let everything = self.news.schedule.begin(now);
            self.news.schedule.take_due_apps(now).into_iter().for_each(|app| self.news.pending.note(Some(app)));
            let scope = self.news.pending.take(everything);
            let outcome = {
                let mut read = std::pin::pin!(self.reader.read(scope));
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
            self.reading_works.store(outcome.is_ok(), Ordering::Relaxed);
            let outcome = outcome.and_then(|Response { at, scope, snapshot, awaited }| {
                let everything = scope == RefreshScope::All;
                self.news.publish((at, scope, snapshot), confirm).map(|()| (everything, awaited))
            });
            let report = match outcome {
                Ok((everything, awaited)) => {
                    backoff.clear();
                    self.news.schedule.succeeded(Instant::now(), everything, &mut jitter);
                    self.news.schedule.await_apps(Instant::now(), awaited, &mut jitter);
                    if let Some(moment) = self.news.published.confirm_at(confirm) {
                        self.news.schedule.no_later_than(moment);
                    }
                    self.news.report_if(true)
                }
                Err(failure) => {
                    self.news.pending.note(None);
                    let mut retry = backoff.next(&failure.what, &self.timing, &mut jitter);
                    if let Some(moment) = self.news.published.confirm_at(confirm) {
                        retry.again_in = retry.again_in.max(moment.saturating_duration_since(Instant::now()));
                    }
                    self.news.schedule.failed(Instant::now(), retry.again_in);
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
        let (now, mut changed) = (Instant::now(), false);
        let mut next = Some(event);
        while let Some(EventSummary { hint, app, ended, started }) = next {
            self.schedule.hint(now, hint);
            if let Some(ended) = ended {
                changed |= self.published.task_ended(ended, app.clone(), now);
            }
            self.pending.note(app);
            // Tasks beyond the limit are in the response to the read that follows in any case.
            self.started.extend(started.filter(|_| self.started.len() < MAX_STARTED));
            next = more.try_recv().ok();
        }
        self.send_if(changed, reports).await
    }

    /// Publishes the tasks that have started, if their services are known without a request. Returns false after the
    /// receiver of the reports is dropped.
    async fn publish_started(&mut self, reader: &Reader<'_>, reports: &mpsc::Sender<Report>) -> bool {
        let mut changed = false;
        for started in std::mem::take(&mut self.started) {
            changed |= reader.started(&started).is_some_and(|served| self.published.task_started(&served));
        }
        self.send_if(changed, reports).await
    }

    /// Publishes the response to a read.
    fn publish(&mut self, response: (Instant, RefreshScope, Snapshot), confirm: Duration) -> Result<(), Failure> {
        let published = self.published.on_response(response, Instant::now(), confirm);
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
