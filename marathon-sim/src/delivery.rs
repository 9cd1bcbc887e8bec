//! Delivery of events: lost, duplicated, delayed, reordered, in chunks, with padding, or among unknown events.

use serde::Deserialize;

use super::event::Event;

/// The type of an event that no Marathon sends.
pub(super) const STRANGE: &str = "strange_event";

/// The number of frames that may wait for a listener (`--event_stream_max_outstanding_messages`).
const MAX_OUTSTANDING: usize = 1024;

/// Delivery of events from now on; by default each arrives once, complete and in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Delivery {
    /// Events are lost; heartbeats are not.
    pub lost: bool,
    /// Events are held until another delivery releases them.
    pub held: bool,
    /// Events of one batch are sent in reverse order.
    pub reversed: bool,
    /// Each event is sent twice.
    pub twice: bool,
    /// Frames are written in chunks of this many bytes.
    pub pieces: Option<usize>,
    /// Each event's data is longer by this many bytes.
    pub padding: usize,
    /// An event of an unknown type precedes each event. It has the same data with a killed task, and ignores the
    /// listener's filter.
    pub strange: bool,
    /// A listener with this many waiting frames is too slow; 1024 by default.
    pub outstanding: Option<usize>,
}

impl Delivery {
    /// Returns how many frames may wait for a listener.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.unwrap_or(MAX_OUTSTANDING)
    }

    /// Returns the events to send now, from the held and the new ones.
    pub(super) fn pass(&self, held: &mut Vec<Event>, new: &[Event]) -> Vec<Event> {
        held.extend(new.iter().filter(|_| !self.lost).cloned());
        if self.held {
            return Vec::new();
        }
        let mut out = std::mem::take(held);
        if self.reversed {
            out.reverse();
        }
        if self.twice {
            out = out.into_iter().flat_map(|event| [event.clone(), event]).collect();
        }
        if self.strange {
            let strange = |event: &Event| {
                let mut data = event.data.clone();
                data["eventType"] = STRANGE.into();
                data["taskStatus"] = "TASK_KILLED".into();
                Event { kind: STRANGE, data }
            };
            out = out.into_iter().flat_map(|event| [strange(&event), event]).collect();
        }
        if self.padding > 0 {
            for event in &mut out {
                // Before the fields that matter, in the order of writing.
                event.data["aPadding"] = "x".repeat(self.padding).into();
            }
        }
        out
    }
}
