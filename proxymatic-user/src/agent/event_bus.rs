//! The events that the agent sends to `event watch`: those of the hooks, and its own.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use proxymatic_common::{BackendState, Event};
use tokio::sync::broadcast;

use super::watch_event::WatchEvent;
use crate::plan::{MapOp, MapState};

/// The subscribers, if there are any.
#[derive(Debug, Default)]
pub(super) struct Subscribers(Option<broadcast::Sender<WatchEvent>>);

/// A backend whose state is to be written.
pub(super) struct StateChange {
    id: u32,
    from: Option<BackendState>,
    to: BackendState,
}

impl Subscribers {
    pub(super) const fn new(sender: broadcast::Sender<WatchEvent>) -> Self {
        Self(Some(sender))
    }

    /// Returns whether nobody subscribes, so that no event has to be made.
    fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|sender| sender.receiver_count() == 0)
    }

    fn send(&self, event: WatchEvent) {
        if let Some(sender) = &self.0 {
            // Fails if the last subscriber has just left.
            let _ = sender.send(event);
        }
    }

    pub(super) fn hook_events(&self, events: &[Event], map_state: &MapState) {
        if !self.is_empty() {
            events.iter().flat_map(|event| WatchEvent::of_hook(event, map_state)).for_each(|event| self.send(event));
        }
    }

    /// Sends that a backend was readmitted after this time.
    pub(super) fn readmitted(&self, map_state: &MapState, backend: u32, out: Duration) {
        if !self.is_empty() {
            let event = WatchEvent { after_s: Some(out.as_secs_f64()), ..WatchEvent::now("readmitted") };
            self.send(event.of_backend(map_state, backend));
        }
    }

    /// Returns the backends whose state a plan writes, for [`Self::applied`]. Called before the plan is applied.
    pub(super) fn state_changes(&self, ops: &[MapOp], map_state: &MapState) -> Vec<StateChange> {
        if self.is_empty() {
            return Vec::new();
        }
        let written = ops.iter().filter_map(|op| match op {
            MapOp::PutBackend(id, backend) | MapOp::DemoteBackend(id, backend) => Some((*id, backend)),
            _ => None,
        });
        let known = |id: u32| map_state.backends().get(&id).map(|entry| entry.backend.state);
        written.map(|(id, backend)| StateChange { id, from: known(id), to: backend.state }).collect()
    }

    /// Sends that a plan was applied. `by_operator` returns whether the operator drains a backend.
    pub(super) fn applied(
        &self,
        map_state: &MapState,
        writes: usize,
        changes: &[StateChange],
        by_operator: impl Fn(u32) -> bool,
    ) {
        if self.is_empty() || writes == 0 {
            return;
        }
        self.send(WatchEvent { writes: Some(writes), ..WatchEvent::now("applied") });
        for StateChange { id, from, to } in changes {
            let Some(event) = WatchEvent::of_state_change(map_state, *id, *from, *to) else { continue };
            let by = if by_operator(*id) { "operator" } else { "source" };
            let reason = (*to == BackendState::DRAINING).then(|| by.to_owned());
            self.send(WatchEvent { reason, ..event });
        }
    }
}

/// Returns the service and the address of a backend, for the log.
pub(super) fn describe_backend(map_state: &MapState, id: u32) -> String {
    let Some(entry) = map_state.backends().get(&id) else { return format!("backend {id}") };
    let name = map_state.services().get(&entry.backend.service).map_or("", |service| service.name.as_str());
    format!("{name}: {}", SocketAddr::new(IpAddr::from(entry.backend.address), entry.backend.port.get()))
}

#[cfg(test)]
mod tests {
    use proxymatic_common::Backend;

    use super::*;

    #[test]
    fn without_a_subscriber_no_event_is_made() {
        let (sender, receiver) = broadcast::channel(4);
        drop(receiver);
        let ops = [MapOp::PutBackend(7, Backend { state: BackendState::ACTIVE, ..Backend::free(1) })];
        for subscribers in [Subscribers::default(), Subscribers::new(sender)] {
            assert!(subscribers.state_changes(&ops, &MapState::default()).is_empty());
        }
    }

    #[test]
    fn applied_plan_sends_its_writes_and_state_changes() {
        let (sender, mut receiver) = broadcast::channel(4);
        let (subscribers, map_state) = (Subscribers::new(sender), MapState::default());
        let ops = [MapOp::DemoteBackend(7, Backend { state: BackendState::DRAINING, ..Backend::free(1) })];
        let changes = subscribers.state_changes(&ops, &map_state);
        subscribers.applied(&map_state, 0, &[], |_| true);
        subscribers.applied(&map_state, 1, &changes, |id| id == 7);
        let events: Vec<_> = std::iter::from_fn(|| receiver.try_recv().ok()).collect();
        let events: Vec<_> = events.iter().map(|it| (it.event.as_str(), it.writes, it.reason.as_deref())).collect();
        assert_eq!(events, [("applied", Some(1), None), ("draining", None, Some("operator"))]);
    }
}
