//! Follows the event stream: attaches, checks that bytes keep coming, passes events on, and attaches again.

use std::{
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
};

use tokio::sync::{Notify, mpsc};

use super::{
    client::Client,
    event::{EventSummary, summarize},
    report,
    schedule::{Backoff, Hint, Jitter, Timing},
    sse::Frames,
};
use crate::source::{
    failure::{Failure, seconds},
    report::Report,
};

/// How many events wait while a report is sent. Beyond that the stream waits too.
pub(super) const MAX_WAITING: usize = 1024;

/// Whether reads work. The loop that reads tells it to the stream.
#[derive(Debug, Default)]
pub(super) struct ReadState {
    works: AtomicBool,
    recovered: Notify,
}

impl ReadState {
    /// Notes whether a read succeeded. The first success after a failure wakes the stream.
    pub(super) fn set(&self, works: bool) {
        if !self.works.swap(works, Ordering::Relaxed) && works {
            self.recovered.notify_waiters();
        }
    }
}

/// Follows the stream for ever. Returns after the receiver of the reports is dropped.
///
/// A read that succeeds after a failure makes the next attempt at once. The failure of the stream is reported only while
/// reading works: otherwise the reader has reported the failure already.
pub(super) async fn follow(
    client: &Client,
    timing: &Timing,
    seed: u64,
    events: mpsc::Sender<EventSummary>,
    reports: &mpsc::Sender<Report>,
    reads: &ReadState,
) {
    let (mut jitter, mut backoff, clock) = (Jitter::new(seed), Backoff::default(), client.clock());
    loop {
        let (began, mut attached) = (clock.now(), false);
        // A read that succeeds during the attempt counts too.
        let mut recovered = pin!(reads.recovered.notified());
        recovered.as_mut().enable();
        let (mut failure, end) = attach(client, timing, &events, &mut attached).await;
        if attached {
            recovered.set(reads.recovered.notified());
            recovered.as_mut().enable();
        }
        // The receiver is dropped only when the whole source ends.
        let _ = events.send(EventSummary::of_all(Hint::Lost)).await;
        if attached && clock.now().saturating_duration_since(began) >= timing.retry_most {
            backoff.clear();
        }
        let retry = backoff.next(&failure.what, timing, &mut jitter);
        // Leaders change, so the end of a stream that worked is reported only if it happens again and again. Silence is
        // never usual, and a silent stream lasts so long that each one would count as the first.
        let usual = attached && retry.attempt == 1 && end != End::Silence;
        if retry.report && !usual && reads.works.load(Ordering::Relaxed) {
            failure.what.push_str("; until there are events, changes are seen only by polling");
            if reports.send(report::failed(&failure, &retry)).await.is_err() {
                return;
            }
        }
        tokio::select! {
            () = clock.sleep(retry.again_in) => {}
            // Marathon is back. The wait has grown while it was away, and until the stream is attached events are missed.
            () = recovered => {}
        }
    }
}

/// How a stream ended.
#[derive(PartialEq, Eq)]
enum End {
    /// The server refused or closed it.
    Closed,
    /// The agent closed it because no byte came.
    Silence,
}

/// Attaches to the stream and passes its events on until it ends, which is always a failure.
async fn attach(
    client: &Client,
    timing: &Timing,
    events: &mpsc::Sender<EventSummary>,
    attached: &mut bool,
) -> (Failure, End) {
    let (url, mut response) = match client.events().await {
        Ok(it) => it,
        Err(failure) => return (failure, End::Closed),
    };
    let clock = client.clock();
    let (mut frames, mut attach_by) = (Frames::default(), Some(clock.now() + timing.attached));
    let mut silent_since = clock.now();
    loop {
        let silent_at = silent_since + timing.silence;
        let wake = attach_by.map_or(silent_at, |by| by.min(silent_at));
        match clock.timeout_at(wake, response.chunk()).await {
            Some(Ok(Some(bytes))) => {
                silent_since = clock.now();
                for event in frames.push(&bytes) {
                    // Marathon announces each client that attaches to all clients. Only the first announcement is of this
                    // stream.
                    let summary = if event.name != "event_stream_attached" {
                        summarize(&event)
                    } else if attach_by.take().is_some() {
                        *attached = true;
                        EventSummary::of_all(Hint::Attached)
                    } else {
                        continue;
                    };
                    let _ = events.send(summary).await;
                }
            }
            Some(Ok(None)) => return (Failure::new(&url, "ended the stream of events"), End::Closed),
            Some(Err(failure)) => return (failure, End::Closed),
            None if clock.now() >= silent_at => {
                let silence = seconds(timing.silence);
                let failure = Failure::new(&url, format!("sent no byte for {silence}, not even a heartbeat"));
                return (failure, End::Silence);
            }
            // A Marathon that does not announce the stream counts as attached after this time.
            None => {
                attach_by = None;
                *attached = true;
                let _ = events.send(EventSummary::of_all(Hint::Attached)).await;
            }
        }
    }
}
