//! The loss guard: a service that lost most of its backends, or its owner, in a response keeps them until a later response
//! confirms the loss. Pure: the clock is an argument.
//!
//! A service that has at least half as many backends as before has no loss, also if they are other ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::model::{Backend, Service, ServiceKey, Snapshot, State, Warning};

/// The time from a loss to the request that confirms or refutes it.
pub(super) const CONFIRM: Duration = Duration::from_secs(1);

/// The losses that are not confirmed yet, and when they were seen.
#[derive(Debug, Default)]
pub(super) struct LossGuard {
    /// Services that lost too many backends.
    services: BTreeMap<ServiceKey, Instant>,
    /// When the first response was empty.
    empty: Option<Instant>,
}

/// The times of a response, and what it can confirm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Response {
    /// When the request was sent.
    pub(super) at: Instant,
    /// When the response is handled.
    pub(super) now: Instant,
    /// The time until a response confirms a loss.
    pub(super) confirm: Duration,
    /// Whether the response covers everything: only such a response confirms a loss.
    pub(super) whole: bool,
    /// Whether the earlier services are published: of adopted services the settings are not known.
    pub(super) published: bool,
}

impl Response {
    /// Returns whether the response confirms a loss that it has too.
    fn confirms(&self, since: Instant) -> bool {
        self.whole && self.at >= since + self.confirm
    }
}

impl LossGuard {
    /// Returns whether an empty first response is still not confirmed.
    pub(super) fn holds_empty(&mut self, response: &Response) -> bool {
        !response.confirms(*self.empty.get_or_insert(response.now))
    }

    /// Puts the backends of `before` back into `fresh` if their loss is not confirmed, and adds a warning.
    ///
    /// A task of `leaving` that is missing does not count as lost.
    pub(super) fn filter(
        &mut self,
        before: &Snapshot,
        fresh: &mut Snapshot,
        leaving: &BTreeSet<String>,
        response: &Response,
    ) {
        let mut losses = BTreeMap::new();
        for (key, service) in &before.services {
            if fresh.services.get(key).is_some_and(|it| Arc::ptr_eq(it, service)) {
                continue; // That is nearly every service, most of the time.
            }
            // A task that warms up serves nobody, so it neither is lost nor makes up for a loss.
            let stays = |backend: &&Backend| backend.state != State::Warming && !leaving.contains(&backend.task);
            let listed = fresh.services.get(key).map_or(0, |it| it.backends.iter().filter(stays).count());
            let expected = service.backends.iter().filter(stays).count();
            let since = self.services.get(key).copied().or(self.empty).unwrap_or(response.now);
            let moved = response.published && owner_changes(service, fresh.services.get(key).map(|it| &**it));
            if (moved || listed * 2 < expected) && !response.confirms(since) {
                losses.insert(*key, since);
                put_back(fresh, *key, service, leaving, moved);
            }
        }
        fresh.warnings.extend(warning(&losses, fresh));
        (self.services, self.empty) = (losses, None);
    }

    /// Returns when to send the request that confirms or refutes a loss, if there is one.
    pub(super) fn confirm_at(&self, confirm: Duration) -> Option<Instant> {
        self.services.values().chain(&self.empty).min().map(|since| *since + confirm)
    }
}

/// Returns whether a service that is listed has another owner than before.
fn owner_changes(before: &Service, listed: Option<&Service>) -> bool {
    before.owner.is_some() && listed.is_some_and(|listed| listed.owner != before.owner)
}

/// Adds the earlier backends of a service to those that are listed. If its owner has `moved`, nothing of what is listed is
/// used.
fn put_back(fresh: &mut Snapshot, key: ServiceKey, before: &Service, leaving: &BTreeSet<String>, moved: bool) {
    let empty = || Arc::new(Service { backends: Vec::new(), ..before.clone() });
    if moved {
        fresh.services.remove(&key);
    }
    let service = Arc::make_mut(fresh.services.entry(key).or_insert_with(empty));
    fn identity(it: &Backend) -> (&str, IpAddr, u16) {
        (&it.task, it.address, it.port)
    }
    let missing = |it: &&Backend| service.backends.iter().all(|listed| identity(listed) != identity(it));
    let kept: Vec<_> =
        before.backends.iter().filter(missing).filter(|it| !leaving.contains(&it.task)).cloned().collect();
    service.backends.extend(kept);
    service.backends.sort_by(|a, b| identity(a).cmp(&identity(b)));
}

/// Returns one warning for all losses, so that an empty response does not fill the log.
fn warning(losses: &BTreeMap<ServiceKey, Instant>, fresh: &Snapshot) -> Option<Warning> {
    let first = losses.keys().next()?;
    let others = match losses.len() - 1 {
        0 => String::new(),
        others => format!(" and {others} others"),
    };
    let app = fresh.services.get(first)?.name.clone();
    let reason = format!(
        "service {first}{others} lost more than half of its backends, or its owner, in one response; they stay until a second response confirms it"
    );
    Some(Warning { app, reason })
}

#[cfg(test)]
mod tests;
