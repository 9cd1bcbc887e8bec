//! Marathon as a source: its event stream says when to look, a full listing says what there is.
//!
//! [`run`] is the loop: [`mod@read`] and [`sse`] are pure, and so is what decides when to look, at what, and what of an
//! answer to believe. An answer counts only if it is whole; after any other one the
//! source keeps silent, so that the last snapshot stays good, and says what is wrong.

pub mod api;
mod auth;
mod client;
pub mod convert;
mod dcos;
mod definition;
mod definition_cache;
mod endpoint;
mod endpoint_order;
mod event;
mod failure;
mod health_carryover;
mod merge;
mod pending_refresh;
mod pods;
pub mod ports;
mod published;
mod reader;
mod schedule;
pub mod sse;
mod stream;
mod task_started;

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    ops::RangeInclusive,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

pub use self::{
    auth::{Access, AccessFiles},
    endpoint::{Endpoint, parse},
    schedule::Timing,
};
use self::{
    client::Client,
    convert::Options,
    event::EventSummary,
    failure::Failure,
    pending_refresh::{PendingRefresh, RefreshScope},
    published::PublishedState,
    reader::Reader,
    schedule::{Backoff, Jitter, RefreshSchedule},
    task_started::TaskStarted,
};
use super::{Report, SourceId};
use crate::model::Snapshot;

/// The refresh intervals that make sense: more often would be a load on Marathon, more rarely no refresh.
const REFRESH: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);

/// The most starts that are kept while a read is under way.
const MAX_STARTS: usize = 1_000;

/// What the source has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where Marathon answers, in the order in which they are asked.
    pub endpoints: Vec<Endpoint>,
    /// How to get in.
    pub access: Access,
    /// How many hosts share a `maxconn` label.
    pub group_size: NonZeroU32,
    /// Whether services are served whose port is that of their tasks on their own hosts.
    pub expose_host: bool,
    /// What is served already, as an earlier agent published it: the first answer is measured by it.
    pub adopted: Snapshot,
    /// All the times that matter.
    pub timing: Timing,
    /// What makes the times of this agent differ from those of others.
    pub seed: u64,
}

impl Config {
    /// A configuration with the usual times. `urls` are the values of `--marathon`, see [`parse`].
    ///
    /// `refresh` is from a second to a day. `Err` has one sentence for each thing that is no good.
    pub fn new<S: AsRef<str>>(urls: &[S], refresh: Duration, group_size: NonZeroU32) -> Result<Self, Vec<String>> {
        // The state of the hasher is random for each process: that is all that is wanted of it.
        let seed = RandomState::new().hash_one(0);
        let timing = Timing { refresh, ..Timing::default() };
        let mut parsed = parse(urls);
        if !REFRESH.contains(&refresh) {
            let reason =
                format!("the refresh interval is {refresh:?}; it must be from 1 to {} s", REFRESH.end().as_secs());
            parsed = Err(parsed.err().into_iter().flatten().chain([reason]).collect());
        }
        let (access, adopted) = (Access::default(), Snapshot::default());
        Ok(Self { endpoints: parsed?, access, group_size, expose_host: false, adopted, timing, seed })
    }

    /// The same, with what is in these files.
    ///
    /// `Err` has one sentence for each that is no good.
    pub fn with_access(mut self, files: &AccessFiles) -> Result<Self, Vec<String>> {
        self.access = Access::read(files)?;
        Ok(self)
    }
}

/// Reads Marathon for ever and reports each whole answer, and each trouble. Returns when nobody takes reports any more.
pub async fn run(config: Config, reports: mpsc::Sender<Report>) {
    let Config { endpoints, access, group_size, expose_host, adopted, timing, seed } = config;
    for warning in &access.warnings {
        tracing::warn!("{warning}");
    }
    let (mut dice, mut failures) = (Jitter::new(seed), Backoff::default());
    let client = loop {
        match Client::new(endpoints.clone(), &access) {
            Ok(client) => break client,
            Err(what) => {
                let failure = Failure { url: "Marathon".into(), what, not_found: false };
                let (attempt, again_in, tell) = failures.next(&failure.what, &timing, &mut dice);
                if tell && reports.send(trouble(&failure, attempt, again_in)).await.is_err() {
                    return;
                }
                tokio::time::sleep(again_in).await;
            }
        }
    };
    let reading_works = AtomicBool::new(false);
    let (note, notes) = mpsc::channel(stream::NOTES);
    let reader = Reader::new(&client, Options { group_size, expose_host }, &adopted, &reading_works);
    let held = PublishedState::after(adopted);
    tokio::select! {
        () = stream::follow(&client, &timing, !seed, note, &reports, &reading_works) => {}
        () = read_on(reader, held, timing, dice, notes, &reports) => {}
        () = reports.closed() => {}
    }
}

/// Reads whenever it is due; ends when nobody takes reports any more.
async fn read_on(
    mut reader: Reader<'_>,
    held: PublishedState,
    timing: Timing,
    mut dice: Jitter,
    mut notes: mpsc::Receiver<EventSummary>,
    reports: &mpsc::Sender<Report>,
) {
    let mut news = ReadLoop {
        pace: RefreshSchedule::new(Instant::now(), timing),
        dirty: PendingRefresh::default(),
        held,
        starts: Vec::new(),
    };
    let mut failures = Backoff::default();
    loop {
        tokio::select! {
            Some(note) = notes.recv() => {
                if !news.hear(note, &mut notes, reports).await || !news.start(&reader, reports).await {
                    return;
                }
                continue;
            }
            () = tokio::time::sleep_until(news.pace.due().into()) => {}
        }
        let everything = news.pace.begin(Instant::now());
        let scope = news.dirty.take(everything);
        let outcome = {
            let mut read = std::pin::pin!(reader.read(scope));
            loop {
                tokio::select! {
                    outcome = &mut read => break outcome,
                    Some(note) = notes.recv() => {
                        if !news.hear(note, &mut notes, reports).await {
                            return;
                        }
                    }
                }
            }
        };
        reader.works.store(outcome.is_ok(), Ordering::Relaxed);
        let outcome = outcome.and_then(|answer| {
            let everything = answer.1 == RefreshScope::All;
            news.take(answer, timing.confirm).map(|()| everything)
        });
        let report = match outcome {
            Ok(everything) => {
                failures.clear();
                news.pace.succeeded(Instant::now(), everything, &mut dice);
                if let Some(moment) = news.held.again(timing.confirm) {
                    news.pace.no_later_than(moment);
                }
                news.report_if(true)
            }
            Err(failure) => {
                news.dirty.note(None);
                let (attempt, again_in, tell) = failures.next(&failure.what, &timing, &mut dice);
                let again_in = news
                    .held
                    .again(timing.confirm)
                    .map_or(again_in, |moment| again_in.max(moment.saturating_duration_since(Instant::now())));
                news.pace.failed(Instant::now(), again_in);
                tell.then(|| trouble(&failure, attempt, again_in))
            }
        };
        if let Some(report) = report
            && reports.send(report).await.is_err()
        {
            return;
        }
        if !news.start(&reader, reports).await {
            return;
        }
    }
}

/// What is known, and what is to be done about it.
struct ReadLoop {
    pace: RefreshSchedule,
    dirty: PendingRefresh,
    held: PublishedState,
    /// Tasks that have begun to run, in the order of their events: kept while a read is under way.
    starts: Vec<TaskStarted>,
}

impl ReadLoop {
    /// Takes a note, and all that wait behind it. What has ended is reported at once, before anything is read.
    /// False where nobody takes reports any more.
    async fn hear(
        &mut self,
        note: EventSummary,
        more: &mut mpsc::Receiver<EventSummary>,
        reports: &mpsc::Sender<Report>,
    ) -> bool {
        let (now, mut changed) = (Instant::now(), false);
        let mut next = Some(note);
        while let Some(EventSummary { hint, app, end, start }) = next {
            self.pace.hint(now, hint);
            if let Some(end) = end {
                changed |= self.held.end(end, app.clone(), now);
            }
            self.dirty.note(app);
            // What is too much is in the answer that is asked for in any case.
            self.starts.extend(start.filter(|_| self.starts.len() < MAX_STARTS));
            next = more.try_recv().ok();
        }
        match self.report_if(changed) {
            Some(report) => reports.send(report).await.is_ok(),
            None => true,
        }
    }

    /// Reports the tasks that have begun to run, as far as nothing has to be asked to know where they are served.
    /// False where nobody takes reports any more.
    async fn start(&mut self, reader: &Reader<'_>, reports: &mpsc::Sender<Report>) -> bool {
        let mut changed = false;
        for start in std::mem::take(&mut self.starts) {
            changed |= reader.started(&start).is_some_and(|served| self.held.start(&served));
        }
        match self.report_if(changed) {
            Some(report) => reports.send(report).await.is_ok(),
            None => true,
        }
    }

    fn take(&mut self, answer: (Instant, RefreshScope, Snapshot), confirm: Duration) -> Result<(), Failure> {
        let doubt = |what| Failure { url: "Marathon".into(), what, not_found: false };
        self.held.answer(answer, Instant::now(), confirm).map_err(doubt)
    }

    fn report_if(&self, changed: bool) -> Option<Report> {
        let (at, snapshot) = if changed { self.held.said()? } else { return None };
        Some(Report::Snapshot { source: SourceId::Marathon, snapshot, at })
    }
}

fn trouble(failure: &Failure, attempt: u32, again_in: Duration) -> Report {
    let (url, reason) = (failure.url.clone(), failure.to_string());
    Report::Failed { source: SourceId::Marathon, url, reason, attempt, again_in }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_with_a_configuration_is_said_at_once() {
        let new = |url: &str, seconds| Config::new(&[url], Duration::from_secs(seconds), NonZeroU32::MIN);
        assert!(new("http://h", 60).is_ok());
        assert_eq!(new("ftp://h", 0).unwrap_err().len(), 2);
        assert!(new("http://h", 86_401).unwrap_err()[0].contains("from 1 to 86400 s"));
    }
}
