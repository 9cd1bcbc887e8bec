//! The published snapshot, and which part of a response is published. Pure: the clock is an argument.
//!
//! A task that has ended by an event leaves at once, before the next read. A task whose end is announced drains. A task
//! that has started by an event is added at once if its services are known. A listed task whose place is not known any
//! more stays where it was, draining. So does a task that was last heard of as unreachable, until its service has
//! something better. A service that lost most of its backends in a response keeps them until a later response confirms
//! the loss: Marathon has been seen to list nothing for a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    announced_ends::{AnnouncedEnds, InstanceChanged, belongs},
    event::TaskEnded,
    pending_refresh::RefreshScope,
    reader::Response,
    task_notes::TaskNotes,
};
use crate::{
    model::{Backend, Service, ServiceKey, Snapshot, State},
    source::loss_guard::{self, LossGuard},
};

/// The most ended tasks that are kept until a response knows of them.
const MAX_ENDED: usize = 10_000;

/// How long a task that was last heard of as unreachable stays, if no listing has it any more.
const UNREACHABLE: Duration = Duration::from_secs(300);

/// The published snapshot, and the losses that are not confirmed yet.
#[derive(Debug, Default)]
pub(super) struct PublishedState {
    latest: Option<(Instant, Snapshot)>,
    /// The services that an earlier agent published. The first response is compared with them.
    adopted: Snapshot,
    /// The services whose owners stay, until there is a published snapshot.
    served: Snapshot,
    ended: BTreeMap<String, Ended>,
    /// Tasks that are expected to leave. That they are missing from a response is not a loss.
    leaving: BTreeSet<String>,
    /// Tasks that were last heard of as unreachable, and since when.
    unreachable: BTreeMap<String, Instant>,
    announced: AnnouncedEnds,
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
    /// Returns the state before the first response, after an earlier agent that published these services. The owners of
    /// what is `served` stay.
    pub(super) fn after(adopted: Snapshot, served: Snapshot) -> Self {
        Self { adopted, served, ..Self::default() }
    }

    /// Returns the services whose owners stay. Cheap: the services are shared.
    pub(super) fn served(&self) -> Snapshot {
        self.latest.as_ref().map_or_else(|| self.served.clone(), |(_, latest)| latest.clone())
    }

    /// Notes an event that a task has ended. Returns whether the published snapshot changes.
    pub(super) fn task_ended(&mut self, ended: TaskEnded, app: Option<String>, now: Instant) -> bool {
        if self.ended.len() >= MAX_ENDED {
            return false; // The next response shows it.
        }
        let TaskEnded { task, still_running } = ended;
        if !still_running {
            self.unreachable.remove(&task);
        }
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

    /// Notes a change of an instance. Returns whether it announces an end, and whether the published snapshot changes.
    pub(super) fn instance_changed(&mut self, changed: InstanceChanged, now: Instant) -> (bool, bool) {
        let announced = self.announced.changed(changed, self.latest.as_ref().map(|(_, latest)| latest), now);
        let changes = announced && self.latest.as_mut().is_some_and(|(_, latest)| self.announced.drain(latest));
        (announced, changes)
    }

    /// Notes that the stream was lost: events may have been missed.
    pub(super) fn stream_lost(&mut self) {
        self.announced.stream_lost();
    }

    /// Notes an event that a task is unreachable. Marathon may replace it at once, and then no listing has it any more.
    pub(super) fn task_unreachable(&mut self, task: String, now: Instant) {
        if self.unreachable.len() < MAX_ENDED {
            self.unreachable.entry(task).or_insert(now);
        }
    }

    /// Notes that the tasks of an instance have ended, although Marathon has listed none of them for some time.
    pub(super) fn replaced_ended(&mut self, instance: &str) {
        let ended = self.unreachable.extract_if(.., |task, _| belongs(task, instance));
        self.leaving.extend(ended.map(|(task, _)| task));
    }

    /// Notes an event that a task has started, which serves these services by itself. Returns whether the published
    /// snapshot changes.
    ///
    /// A service that is not published yet, or that another app owns, waits for the next response.
    pub(super) fn task_started(&mut self, served: &Snapshot, now: Instant) -> bool {
        let Some((_, latest)) = &mut self.latest else { return false };
        let mut changed = false;
        let identity = |it: &Backend| (it.task.clone(), it.address, it.port);
        for (key, service) in &served.services {
            let is_own = |it: &&mut Arc<Service>| (&it.name, &it.owner) == (&service.name, &service.owner);
            let Some(known) = latest.services.get_mut(key).filter(is_own) else { continue };
            // A task that is about to end by an event stays so until a response.
            for new in
                service.backends.iter().filter(|it| it.state == State::Active && !self.ended.contains_key(&it.task))
            {
                if self.announced.is_ending(&new.task) {
                    continue;
                }
                let place = known.backends.binary_search_by_key(&identity(new), identity);
                match place {
                    Ok(at) if known.backends[at].state == State::Warming => {
                        Arc::make_mut(known).backends[at].state = State::Active;
                    }
                    Ok(_) => continue,
                    Err(at) => Arc::make_mut(known).backends.insert(at, new.clone()),
                }
                if let Some(start) = service.unchecked.get(&new.task) {
                    Arc::make_mut(known).unchecked.insert(new.task.clone(), *start);
                }
                self.announced.started(&new.task, now);
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

    /// Publishes a response. `confirm` is the time until a response confirms a loss.
    ///
    /// # Errors
    /// Nothing is published; the text is the rest of a sentence.
    pub(super) fn on_response(
        &mut self,
        Response { at, scope, snapshot: mut fresh, notes, .. }: Response,
        now: Instant,
        confirm: Duration,
    ) -> Result<(), String> {
        self.ended.retain(|_, ended| ended.seen > at || !scope.has(ended.app.as_deref()));
        remove_ended(&self.ended, &mut fresh);
        let (whole, published) = (scope == RefreshScope::All, self.latest.is_some());
        let response = loss_guard::Response { at, now, confirm, whole, published };
        if self.latest.is_none() && fresh.services.is_empty() && self.loss_guard.holds_empty(&response) {
            return Err("has no app with a service port; this counts if a second response confirms it".into());
        }
        self.note_unreachable(&fresh, &notes, now);
        let before = self.latest.as_ref().map_or(&self.adopted, |(_, latest)| latest);
        let keep = |key: ServiceKey, it: &Backend| match self.ended.get(&it.task) {
            Some(Ended { still_running: false, .. }) => Keep::No,
            _ if notes.is_left_out(key, &it.task) => Keep::No,
            _ if notes.unplaced.contains_key(&it.task) => Keep::Always,
            _ if self.unreachable.contains_key(&it.task) => Keep::AsLastResort,
            _ => Keep::No,
        };
        if !notes.unplaced.is_empty() || !self.unreachable.is_empty() {
            keep_places(before, &mut fresh, keep);
        }
        self.loss_guard.filter(before, &mut fresh, &self.leaving, &response);
        if !self.leaving.is_empty() {
            let listed = fresh.services.values().flat_map(|it| &it.backends).map(|it| &it.task);
            self.leaving = listed.filter(|task| self.leaving.contains(*task)).cloned().collect();
        }
        if self.latest.is_some() {
            self.announced.published(before, &fresh, now);
        }
        self.announced.drain(&mut fresh);
        self.latest = Some((at, fresh));
        (self.adopted, self.served) = Default::default();
        Ok(())
    }

    /// Notes which tasks are unreachable by a response, and forgets those that are not any more.
    fn note_unreachable(&mut self, fresh: &Snapshot, notes: &TaskNotes, now: Instant) {
        for task in notes.unreachable.keys() {
            self.task_unreachable(task.clone(), now);
        }
        self.unreachable.retain(|_, since| now.saturating_duration_since(*since) < UNREACHABLE);
        if self.unreachable.is_empty() {
            return;
        }
        let backends = fresh.services.values().flat_map(|it| &it.backends);
        for it in backends.filter(|it| it.state == State::Active && !notes.unreachable.contains_key(&it.task)) {
            self.unreachable.remove(&it.task);
        }
    }

    /// Returns when to send the request that confirms or refutes a loss, if there is one.
    pub(super) fn confirm_at(&self, confirm: Duration) -> Option<Instant> {
        self.loss_guard.confirm_at(confirm)
    }
}

/// Whether a backend stays where it was, although a response does not have it there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    No,
    /// The backend stays while its service exists and has no active backend that is certain to be used.
    AsLastResort,
    Always,
}

/// Adds backends of `before` that `fresh` does not have, draining.
fn keep_places(before: &Snapshot, fresh: &mut Snapshot, keep: impl Fn(ServiceKey, &Backend) -> Keep) {
    fn identity(it: &Backend) -> (&str, IpAddr, u16) {
        (&it.task, it.address, it.port)
    }
    for (key, service) in &before.services {
        if fresh.services.get(key).is_some_and(|it| Arc::ptr_eq(it, service)) {
            continue;
        }
        let known = fresh.services.get(key);
        // The agent may not use a new task yet: see `unchecked`.
        let is_used =
            |service: &Service, it: &Backend| it.state == State::Active && !service.unchecked.contains_key(&it.task);
        let is_active = known.is_some_and(|service| service.backends.iter().any(|it| is_used(service, it)));
        let missing =
            |it: &&Backend| known.is_none_or(|known| known.backends.iter().all(|at| identity(at) != identity(it)));
        let stays = |it: &&Backend| match keep(*key, it) {
            Keep::No => false,
            Keep::AsLastResort => known.is_some() && !is_active,
            Keep::Always => true,
        };
        let kept: Vec<_> = service.backends.iter().filter(stays).filter(missing).cloned().collect();
        if kept.is_empty() {
            continue;
        }
        let empty = || Arc::new(Service { backends: Vec::new(), ..Service::clone(service) });
        let service = Arc::make_mut(fresh.services.entry(*key).or_insert_with(empty));
        service.backends.extend(kept.into_iter().map(|it| Backend { state: State::Draining, ..it }));
        service.backends.sort_by(|a, b| identity(a).cmp(&identity(b)));
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
