//! What the agent tells those who watch: what the hooks told it, and what it did.

use std::time::Duration;

use proxymatic_common::{BackendState, Event};
use tokio::sync::broadcast;

use super::Agent;
use crate::{dataplane::Dataplane, plan::MapOp, surface::WatchEvent};

/// Those who watch, if any.
#[derive(Debug, Default)]
pub(super) struct Subscribers(Option<broadcast::Sender<WatchEvent>>);

impl Subscribers {
    /// Whether somebody watches: else nothing has to be put into words.
    fn are_there(&self) -> bool {
        self.0.as_ref().is_some_and(|watchers| watchers.receiver_count() > 0)
    }

    fn tell(&self, happening: WatchEvent) {
        if let Some(watchers) = &self.0 {
            // Fails where the last one has just left.
            let _ = watchers.send(happening);
        }
    }
}

/// A backend whose state is written.
pub(super) struct StateChange {
    id: u32,
    from: Option<BackendState>,
    to: BackendState,
}

impl<D: Dataplane> Agent<D> {
    /// With those who watch what happens.
    #[must_use]
    pub fn telling(self, watchers: broadcast::Sender<WatchEvent>) -> Self {
        Self { watchers: Subscribers(Some(watchers)), ..self }
    }

    pub(super) fn tell_events(&self, events: &[Event]) {
        if self.watchers.are_there() {
            let told = events.iter().flat_map(|event| WatchEvent::told(event, &self.tables));
            told.for_each(|happening| self.watchers.tell(happening));
        }
    }

    pub(super) fn tell_readmitted(&self, backend: u32, out: Duration) {
        if self.watchers.are_there() {
            let happening = WatchEvent { after_s: Some(out.as_secs_f64()), ..WatchEvent::now("readmitted") };
            self.watchers.tell(happening.of_backend(&self.tables, backend));
        }
    }

    /// The backends whose state a plan is about to write: what it was, and what it is to be.
    pub(super) fn turning(&self, ops: &[MapOp]) -> Vec<StateChange> {
        if !self.watchers.are_there() {
            return Vec::new();
        }
        let written = ops.iter().filter_map(|op| match op {
            MapOp::PutBackend(id, backend) | MapOp::DemoteBackend(id, backend) => Some((*id, backend)),
            _ => None,
        });
        let known = |id: u32| self.tables.backends().get(&id).map(|entry| entry.backend.state);
        written.map(|(id, backend)| StateChange { id, from: known(id), to: backend.state }).collect()
    }

    /// A plan has been carried out.
    pub(super) fn tell_applied(&self, writes: usize, turned: &[StateChange]) {
        if !self.watchers.are_there() || writes == 0 {
            return;
        }
        self.watchers.tell(WatchEvent { writes: Some(writes), ..WatchEvent::now("applied") });
        for StateChange { id, from, to } in turned {
            let Some(happening) = WatchEvent::turned(&self.tables, *id, *from, *to) else { continue };
            let by = if self.drained.contains(id) { "operator" } else { "source" };
            let reason = (*to == BackendState::DRAINING).then(|| by.to_owned());
            self.watchers.tell(WatchEvent { reason, ..happening });
        }
    }
}
