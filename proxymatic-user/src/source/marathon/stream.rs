//! Follows the event stream: attaches, watches that bytes keep coming, turns events into hints, attaches again.

use std::sync::atomic::{AtomicBool, Ordering};

use serde::Deserialize;
use tokio::{sync::mpsc, time::Instant};

use super::{
    Timing,
    client::Client,
    failure::{Failure, seconds},
    pace::{Dice, Failures, Hint},
    sse::{Event, Frames},
    trouble,
};
use crate::source::Report;

/// Hints wait here while a report is being taken. When it is full a read is due anyway.
pub(super) const HINTS: usize = 256;

/// Follows the stream for ever; ends when nobody takes reports any more.
///
/// That there is no stream is told only while reading works: else there is one trouble, and it is told already.
pub(super) async fn follow(
    client: &Client,
    timing: &Timing,
    seed: u64,
    hints: mpsc::Sender<Hint>,
    reports: &mpsc::Sender<Report>,
    reading_works: &AtomicBool,
) {
    let (mut dice, mut failures) = (Dice::new(seed), Failures::default());
    loop {
        let (began, mut attached) = (Instant::now(), false);
        let mut failure = attach(client, timing, &hints, &mut attached).await;
        let _ = hints.try_send(Hint::Lost);
        if attached && began.elapsed() >= timing.retry_most {
            failures.clear();
        }
        let (attempt, again_in, tell) = failures.add(&failure.what, timing, &mut dice);
        // Leaders come and go: that a stream which worked has ended is worth a word only if it happens again and again.
        let usual = attached && attempt == 1;
        if tell && !usual && reading_works.load(Ordering::Relaxed) {
            failure.what.push_str("; until there are events, changes are seen only by polling");
            if reports.send(trouble(&failure, attempt, again_in)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(again_in).await;
    }
}

/// Attaches to the stream and passes its hints on until it ends, which is always a failure.
async fn attach(client: &Client, timing: &Timing, hints: &mpsc::Sender<Hint>, attached: &mut bool) -> Failure {
    let (url, mut response) = match client.events().await {
        Ok(it) => it,
        Err(failure) => return failure,
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
                    let hint = if event.name != "event_stream_attached" {
                        hint(&event)
                    } else if attach_by.take().is_some() {
                        *attached = true;
                        Hint::Attached
                    } else {
                        continue;
                    };
                    let _ = hints.try_send(hint);
                }
            }
            Ok(Ok(None)) => return Failure::new(&url, "ended the stream of events"),
            Ok(Err(error)) => return Failure::request(&url, &error),
            Err(_) if Instant::now() >= silent_at => {
                let silence = seconds(timing.silence);
                return Failure::new(&url, format!("sent no byte for {silence}, not even a heartbeat"));
            }
            // A Marathon that does not say that it is attached is taken at its silence.
            Err(_) => {
                attach_by = None;
                *attached = true;
                let _ = hints.try_send(Hint::Attached);
            }
        }
    }
}

/// Whether an event announces that a task goes, or something else.
fn hint(event: &Event) -> Hint {
    /// What there is in an event.
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Data {
        #[serde(default)]
        task_status: String,
        #[serde(default)]
        condition: String,
    }
    match event.name.as_str() {
        "unhealthy_instance_kill_event" | "unhealthy_task_kill_event" => return Hint::Urgent,
        "status_update_event" | "instance_changed_event" => {}
        _ => return Hint::Changed,
    }
    let Ok(Data { task_status, condition }) = serde_json::from_str(&event.data) else { return Hint::Changed };
    let said = task_status.strip_prefix("TASK_").unwrap_or(&condition).to_ascii_uppercase();
    match said.as_str() {
        "KILLING" | "KILLED" | "FINISHED" | "FAILED" | "ERROR" | "LOST" | "GONE" | "GONE_BY_OPERATOR" | "DROPPED"
        | "UNKNOWN" => Hint::Urgent,
        _ => Hint::Changed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_is_urgent() {
        for (name, data, expected) in [
            ("status_update_event", r#"{"taskStatus":"TASK_KILLING"}"#, Hint::Urgent),
            ("status_update_event", r#"{"taskStatus":"TASK_FAILED"}"#, Hint::Urgent),
            ("status_update_event", r#"{"taskStatus":"TASK_RUNNING"}"#, Hint::Changed),
            ("status_update_event", r#"{"taskStatus":null}"#, Hint::Changed),
            ("status_update_event", "not JSON", Hint::Changed),
            ("instance_changed_event", r#"{"condition":"Killed","host":null}"#, Hint::Urgent),
            ("instance_changed_event", r#"{"condition":"Running"}"#, Hint::Changed),
            ("unhealthy_instance_kill_event", "", Hint::Urgent),
            ("deployment_success", r#"{"taskStatus":"TASK_FAILED"}"#, Hint::Changed),
        ] {
            assert_eq!(hint(&Event { name: name.into(), data: data.into() }), expected, "{name} {data}");
        }
    }
}
