//! Follows the event stream: attaches, watches that bytes keep coming, turns events into notes, attaches again.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::{sync::mpsc, time::Instant};

use super::{
    Timing,
    client::Client,
    event::{EventSummary, note},
    failure::{Failure, seconds},
    schedule::{Backoff, Hint, Jitter},
    sse::Frames,
    trouble,
};
use crate::source::Report;

/// How many notes wait while a report is being taken. When that is full the stream waits too.
pub(super) const NOTES: usize = 1024;

/// Follows the stream for ever; ends when nobody takes reports any more.
///
/// That there is no stream is told only while reading works: else there is one trouble, and it is told already.
pub(super) async fn follow(
    client: &Client,
    timing: &Timing,
    seed: u64,
    notes: mpsc::Sender<EventSummary>,
    reports: &mpsc::Sender<Report>,
    reading_works: &AtomicBool,
) {
    let (mut dice, mut failures) = (Jitter::new(seed), Backoff::default());
    loop {
        let (began, mut attached) = (Instant::now(), false);
        let (mut failure, end) = attach(client, timing, &notes, &mut attached).await;
        // Nobody takes notes any more only where all of this ends.
        let _ = notes.send(EventSummary::of_all(Hint::Lost)).await;
        if attached && began.elapsed() >= timing.retry_most {
            failures.clear();
        }
        let (attempt, again_in, tell) = failures.next(&failure.what, timing, &mut dice);
        // Leaders come and go: that a stream which worked has ended is worth a word only if it happens again and again.
        // Silence is never usual, and each stream may last until it is noticed: it would be the first for ever.
        let usual = attached && attempt == 1 && end != End::Silence;
        if tell && !usual && reading_works.load(Ordering::Relaxed) {
            failure.what.push_str("; until there are events, changes are seen only by polling");
            if reports.send(trouble(&failure, attempt, again_in)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(again_in).await;
    }
}

/// How a stream ended.
#[derive(PartialEq, Eq)]
enum End {
    /// It was refused, or whoever gave it ended it.
    Closed,
    /// It was left because nothing came.
    Silence,
}

/// Attaches to the stream and passes its hints on until it ends, which is always a failure.
async fn attach(
    client: &Client,
    timing: &Timing,
    notes: &mpsc::Sender<EventSummary>,
    attached: &mut bool,
) -> (Failure, End) {
    let (url, mut response) = match client.events().await {
        Ok(it) => it,
        Err(failure) => return (failure, End::Closed),
    };
    let (mut frames, mut attach_by) = (Frames::default(), Some(Instant::now() + timing.attached));
    let mut silent_since = Instant::now();
    loop {
        let silent_at = silent_since + timing.silence;
        let wake = attach_by.map_or(silent_at, |by| by.min(silent_at));
        match tokio::time::timeout_at(wake, response.chunk()).await {
            Ok(Ok(Some(bytes))) => {
                silent_since = Instant::now();
                for event in frames.push(&bytes) {
                    // Everyone is told of everyone who attaches, but only the first is this stream's own.
                    let note = if event.name != "event_stream_attached" {
                        note(&event)
                    } else if attach_by.take().is_some() {
                        *attached = true;
                        EventSummary::of_all(Hint::Attached)
                    } else {
                        continue;
                    };
                    let _ = notes.send(note).await;
                }
            }
            Ok(Ok(None)) => return (Failure::new(&url, "ended the stream of events"), End::Closed),
            Ok(Err(error)) => return (Failure::request(&url, &error), End::Closed),
            Err(_) if Instant::now() >= silent_at => {
                let silence = seconds(timing.silence);
                let failure = Failure::new(&url, format!("sent no byte for {silence}, not even a heartbeat"));
                return (failure, End::Silence);
            }
            // A Marathon that does not say that it is attached is taken at its silence.
            Err(_) => {
                attach_by = None;
                *attached = true;
                let _ = notes.send(EventSummary::of_all(Hint::Attached)).await;
            }
        }
    }
}
