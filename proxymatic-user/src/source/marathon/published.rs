//! The published snapshot, and which part of a response is published. Pure: the clock is an argument.
//!
//! A task that has ended by an event leaves at once, before the next read. A task that has started by an event is added
//! at once if its services are known. A service that lost most of its backends in a response keeps them until a later
//! response confirms the loss: Marathon has been seen to list nothing for a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{event::TaskEnded, pending_refresh::RefreshScope};
use crate::{
    model::{Backend, Snapshot, State},
    source::loss_guard::{LossGuard, Response},
};

/// The most ended tasks that are kept until a response knows of them.
const MAX_ENDED: usize = 10_000;

/// The published snapshot, and the losses that are not confirmed yet.
#[derive(Debug, Default)]
pub(super) struct PublishedState {
    latest: Option<(Instant, Snapshot)>,
    /// The services that an earlier agent published. The first response is compared with them.
    adopted: Snapshot,
    ended: BTreeMap<String, Ended>,
    /// Tasks that are expected to leave. That they are missing from a response is not a loss.
    leaving: BTreeSet<String>,
    loss_guard: LossGuard,
}

/// A task that has ended by an event. It is kept until the response to a later request.
#[derive(Debug)]
struct Ended {
    still_running: bool,
    app: Option<String>,
    seen: Instant,
}

impl PublishedState {
    /// Returns the state before the first response, after an earlier agent that published these services.
    pub(super) fn after(adopted: Snapshot) -> Self {
        Self { adopted, ..Self::default() }
    }

    /// Notes an event that a task has ended. Returns whether the published snapshot changes.
    pub(super) fn task_ended(&mut self, ended: TaskEnded, app: Option<String>, now: Instant) -> bool {
        if self.ended.len() >= MAX_ENDED {
            return false; // The next response shows it.
        }
        let TaskEnded { task, still_running } = ended;
        // A late event that the task is being stopped does not bring it back.
        let still_running = still_running && self.ended.get(&task).is_none_or(|ended| ended.still_running);
        let ended = BTreeMap::from([(task.clone(), Ended { still_running, app, seen: now })]);
        let changed = remove_ended(&ended, self.latest.as_mut().map_or(&mut self.adopted, |(_, snapshot)| snapshot));
        if changed {
            self.leaving.insert(task);
        }
        self.ended.extend(ended);
        // Adopted services are not published: the first response does that.
        changed && self.latest.is_some()
    }

    /// Notes an event that a task has started, which serves these services by itself. Returns whether the published
    /// snapshot changes.
    ///
    /// A service that is not published yet, or that has the name of another app, waits for the next response.
    pub(super) fn task_started(&mut self, served: &Snapshot) -> bool {
        let Some((_, latest)) = &mut self.latest else { return false };
        let mut changed = false;
        let identity = |it: &Backend| (it.task.clone(), it.address, it.port);
        for (key, service) in &served.services {
            let Some(known) = latest.services.get_mut(key).filter(|it| it.name == service.name) else { continue };
            // A task that is about to end by an event stays so until a response.
            for new in
                service.backends.iter().filter(|it| it.state == State::Active && !self.ended.contains_key(&it.task))
            {
                let place = known.backends.binary_search_by_key(&identity(new), identity);
                match place {
                    Ok(at) if known.backends[at].state == State::Warming => {
                        Arc::make_mut(known).backends[at].state = State::Active;
                    }
                    Ok(_) => continue,
                    Err(at) => Arc::make_mut(known).backends.insert(at, new.clone()),
                }
                changed = true;
            }
        }
        changed
    }

    /// Returns the published snapshot without the tasks that have ended since, and when its request was sent. Cheap: the
    /// services are shared.
    pub(super) fn latest(&self) -> Option<(Instant, Snapshot)> {
        self.latest.clone()
    }

    /// Publishes a response: when its request was sent, the scope that it covers, and its snapshot. `confirm` is the time
    /// until a response confirms a loss.
    ///
    /// # Errors
    /// Nothing is published; the text is the rest of a sentence.
    pub(super) fn on_response(
        &mut self,
        (at, scope, mut fresh): (Instant, RefreshScope, Snapshot),
        now: Instant,
        confirm: Duration,
    ) -> Result<(), String> {
        self.ended.retain(|_, ended| ended.seen > at || !scope.has(ended.app.as_deref()));
        remove_ended(&self.ended, &mut fresh);
        let response = Response { at, now, confirm, whole: scope == RefreshScope::All };
        if self.latest.is_none() && fresh.services.is_empty() && self.loss_guard.holds_empty(&response) {
            return Err("has no app with a service port; this counts if a second response confirms it".into());
        }
        let before = self.latest.as_ref().map_or(&self.adopted, |(_, latest)| latest);
        self.loss_guard.filter(before, &mut fresh, &self.leaving, &response);
        if !self.leaving.is_empty() {
            let listed = fresh.services.values().flat_map(|it| &it.backends).map(|it| &it.task);
            self.leaving = listed.filter(|task| self.leaving.contains(*task)).cloned().collect();
        }
        self.latest = Some((at, fresh));
        self.adopted = Snapshot::default();
        Ok(())
    }

    /// Returns when to send the request that confirms or refutes a loss, if there is one.
    pub(super) fn confirm_at(&self, confirm: Duration) -> Option<Instant> {
        self.loss_guard.confirm_at(confirm)
    }
}

/// Removes the tasks that have ended. Returns whether the snapshot changed.
///
/// The last task of a service only drains: events alone leave no service without backends, because the response with the
/// next ones is on its way.
fn remove_ended(ended: &BTreeMap<String, Ended>, snapshot: &mut Snapshot) -> bool {
    let mut changed = false;
    if ended.is_empty() {
        return changed;
    }
    for service in snapshot.services.values_mut() {
        if !service.backends.iter().any(|it| ended.contains_key(&it.task)) {
            continue;
        }
        let over = |it: &Backend| matches!(ended.get(&it.task), Some(Ended { still_running: false, .. }));
        let has_others = service.backends.iter().any(|it| it.state != State::Warming && !over(it));
        let after = |it: &Backend| match ended.get(&it.task) {
            None => Some(it.state),
            Some(Ended { still_running: false, .. }) if has_others => None,
            Some(_) => Some(State::Draining),
        };
        // Only a service that changes is copied. The others stay shared.
        if service.backends.iter().any(|it| after(it) != Some(it.state)) {
            changed = true;
            Arc::make_mut(service).backends.retain_mut(|it| after(it).map(|state| it.state = state).is_some());
        }
    }
    changed
}

#[cfg(test)]
mod tests;
