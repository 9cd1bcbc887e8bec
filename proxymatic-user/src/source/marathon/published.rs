//! What was said last, and what of an answer is believed. Pure: the clock is an argument.
//!
//! A task that an event says has ended leaves at once, before anything is read again, and one that an event says runs is
//! taken in as soon, where it is known what it serves. And what is merely missing from
//! an answer stays until a second, later one lacks it too: Marathon has been seen to list nothing for a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{event::End, pending_refresh::RefreshScope};
use crate::{
    model::{Backend, Snapshot, State},
    source::loss_guard::{Asked, LossGuard},
};

/// The most ends that are remembered until an answer knows of them.
const MAX_ENDS: usize = 10_000;

/// What was said last, and what is in doubt.
#[derive(Debug, Default)]
pub(super) struct PublishedState {
    said: Option<(Instant, Snapshot)>,
    /// What an agent before this one published: the first answer is measured by it, as later ones by what was said.
    adopted: Snapshot,
    ends: BTreeMap<String, Ended>,
    /// Tasks that are expected to go: that they are missing is no wonder.
    leaving: BTreeSet<String>,
    doubts: LossGuard,
}

/// That a task has ended, until an answer that was asked for later.
#[derive(Debug)]
struct Ended {
    lingers: bool,
    app: Option<String>,
    seen: Instant,
}

impl PublishedState {
    /// Nothing was said yet, but this was published by an agent before this one.
    pub(super) fn after(adopted: Snapshot) -> Self {
        Self { adopted, ..Self::default() }
    }

    /// An event said that a task has ended. Whether that changes what was said.
    pub(super) fn end(&mut self, end: End, app: Option<String>, now: Instant) -> bool {
        if self.ends.len() >= MAX_ENDS {
            return false; // What follows shows it.
        }
        let End { task, still_running } = end;
        // A late word that it is being stopped does not bring back what has gone.
        let lingers = still_running && self.ends.get(&task).is_none_or(|ended| ended.lingers);
        let ends = BTreeMap::from([(task.clone(), Ended { lingers, app, seen: now })]);
        let changed = apply(&ends, self.said.as_mut().map_or(&mut self.adopted, |(_, snapshot)| snapshot));
        if changed {
            self.leaving.insert(task);
        }
        self.ends.extend(ends);
        // What was adopted is not said: that is for the first answer to do.
        changed && self.said.is_some()
    }

    /// An event said that a task runs, which serves this by itself. Whether that changes what was said.
    ///
    /// A service that was not said before, or that another app names, is for the next answer to say.
    pub(super) fn start(&mut self, served: &Snapshot) -> bool {
        let Some((_, said)) = &mut self.said else { return false };
        let mut changed = false;
        let identity = |it: &Backend| (it.task.clone(), it.address, it.port);
        for (key, service) in &served.services {
            let Some(known) = said.services.get_mut(key).filter(|it| it.name == service.name) else { continue };
            // One that an event says is to end stays so until an answer says otherwise.
            for new in
                service.backends.iter().filter(|it| it.state == State::Active && !self.ends.contains_key(&it.task))
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

    /// What was said last, with all that has ended since, and when it was asked for. Cheap: the services are shared.
    pub(super) fn said(&self) -> Option<(Instant, Snapshot)> {
        self.said.clone()
    }

    /// Takes an answer that was asked for `at` a moment and covers some apps; `confirm` is how long doubts last.
    /// What may be said of it, or why nothing may.
    pub(super) fn answer(
        &mut self,
        (at, scope, mut fresh): (Instant, RefreshScope, Snapshot),
        now: Instant,
        confirm: Duration,
    ) -> Result<(), String> {
        self.ends.retain(|_, end| end.seen > at || !scope.has(end.app.as_deref()));
        apply(&self.ends, &mut fresh);
        let asked = Asked { at, now, confirm, whole: scope == RefreshScope::All };
        if self.said.is_none() && fresh.services.is_empty() && self.doubts.nothing(&asked) {
            return Err("has no app with a service port; that is believed if it says so again".into());
        }
        let before = self.said.as_ref().map_or(&self.adopted, |(_, said)| said);
        self.doubts.filter(before, &mut fresh, &self.leaving, &asked);
        if !self.leaving.is_empty() {
            let listed = fresh.services.values().flat_map(|it| &it.backends).map(|it| &it.task);
            self.leaving = listed.filter(|task| self.leaving.contains(*task)).cloned().collect();
        }
        self.said = Some((at, fresh));
        self.adopted = Snapshot::default();
        Ok(())
    }

    /// When a second answer is to be asked for, if there is a doubt.
    pub(super) fn again(&self, confirm: Duration) -> Option<Instant> {
        self.doubts.again(confirm)
    }
}

/// Takes out what has ended, and nothing else. Whether there was any of it.
///
/// What ended last of a service only drains: an event alone leaves no service without backends, and the answer that
/// names the next ones is being asked for.
fn apply(ends: &BTreeMap<String, Ended>, snapshot: &mut Snapshot) -> bool {
    let mut changed = false;
    if ends.is_empty() {
        return changed;
    }
    for service in snapshot.services.values_mut() {
        if !service.backends.iter().any(|it| ends.contains_key(&it.task)) {
            continue;
        }
        let over = |it: &Backend| matches!(ends.get(&it.task), Some(Ended { lingers: false, .. }));
        let others = service.backends.iter().any(|it| it.state != State::Warming && !over(it));
        let after = |it: &Backend| match ends.get(&it.task) {
            None => Some(it.state),
            Some(Ended { lingers: false, .. }) if others => None,
            Some(_) => Some(State::Draining),
        };
        // Only a service that changes is copied: the others stay shared.
        if service.backends.iter().any(|it| after(it) != Some(it.state)) {
            changed = true;
            Arc::make_mut(service).backends.retain_mut(|it| after(it).map(|state| it.state = state).is_some());
        }
    }
    changed
}

#[cfg(test)]
mod tests;
