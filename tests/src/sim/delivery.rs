//! What becomes of events on their way: lost, doubled, held back, in the wrong order, in pieces, very long, or in strange
//! company.

use serde::Deserialize;

use super::event::Event;

/// The type of an event that no Marathon ever sent.
pub(super) const STRANGE: &str = "strange_event";

/// So many frames may wait for a listener (`--event_stream_max_outstanding_messages`).
const MAX_OUTSTANDING: usize = 1024;

/// What becomes of events from now on; the default is that each arrives once, whole and in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Delivery {
    /// They are lost; heartbeats are not.
    pub lost: bool,
    /// They are kept until another delivery does not say so.
    pub held: bool,
    /// Those that go out together go in reverse order.
    pub reversed: bool,
    /// Each goes out twice.
    pub twice: bool,
    /// Frames are written so many bytes at a time.
    pub pieces: Option<usize>,
    /// Each event's data is longer by so many bytes.
    pub padding: usize,
    /// Before each goes another of a type that nobody knows. It has the same data, but says that the task was killed; and
    /// it goes to everybody, whatever they asked for.
    pub strange: bool,
    /// A listener for which so many frames wait is too slow; 1024 where it is not said.
    pub outstanding: Option<usize>,
}

impl Delivery {
    /// How many frames may wait for a listener.
    pub(super) fn outstanding(&self) -> usize {
        self.outstanding.unwrap_or(MAX_OUTSTANDING)
    }

    /// What goes out now of what was held back and what is new.
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
                // Before the fields that matter, in the order in which they are written.
                event.data["aPadding"] = "x".repeat(self.padding).into();
            }
        }
        out
    }
}
