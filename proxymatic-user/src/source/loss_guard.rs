//! What of an answer is not believed at once: whatever is merely missing stays until a second, later answer lacks it too.
//! Pure: the clock is an argument.
//!
//! What has so much as half of its backends, or others in their place, has lost nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::model::{Backend, Service, ServiceKey, Snapshot, Warning};

/// How long a source doubts before it asks again.
pub(super) const CONFIRM: Duration = Duration::from_secs(1);

/// What is in doubt, and since when.
#[derive(Debug, Default)]
pub(super) struct LossGuard {
    /// Services that have lost too much.
    services: BTreeMap<ServiceKey, Instant>,
    /// Everything: the very first answer had nothing.
    nothing: Option<Instant>,
}

/// When an answer was asked for, and what it can end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// When it was asked for.
    pub(super) at: Instant,
    /// When it is taken.
    pub(super) now: Instant,
    /// How long a doubt lasts.
    pub(super) confirm: Duration,
    /// Whether it is about everything: only such an answer ends a doubt by saying the same.
    pub(super) whole: bool,
}

impl Asked {
    fn ends(&self, since: Instant) -> bool {
        self.whole && self.at >= since + self.confirm
    }
}

impl LossGuard {
    /// Whether that there is nothing at all, before which nothing was said, is still in doubt.
    pub(super) fn nothing(&mut self, asked: &Asked) -> bool {
        !asked.ends(*self.nothing.get_or_insert(asked.now))
    }

    /// Puts back into `fresh` what it lacks of `before` and is in doubt, and warns of it.
    ///
    /// That a task of `leaving` is missing is no wonder, and does not count.
    pub(super) fn filter(
        &mut self,
        before: &Snapshot,
        fresh: &mut Snapshot,
        leaving: &BTreeSet<String>,
        asked: &Asked,
    ) {
        let mut doubts = BTreeMap::new();
        for (key, service) in &before.services {
            if fresh.services.get(key).is_some_and(|it| Arc::ptr_eq(it, service)) {
                continue; // Most of the time that is nearly all of them.
            }
            let stays = |backend: &&Backend| !leaving.contains(&backend.task);
            let listed = fresh.services.get(key).map_or(0, |it| it.backends.iter().filter(stays).count());
            let expected = service.backends.iter().filter(stays).count();
            let since = self.services.get(key).copied().or(self.nothing).unwrap_or(asked.now);
            if listed * 2 < expected && !asked.ends(since) {
                doubts.insert(*key, since);
                keep(fresh, *key, service, leaving);
            }
        }
        fresh.warnings.extend(warning(&doubts, fresh));
        (self.services, self.nothing) = (doubts, None);
    }

    /// When a second answer is to be asked for, if there is a doubt.
    pub(super) fn again(&self, confirm: Duration) -> Option<Instant> {
        self.services.values().chain(&self.nothing).min().map(|since| *since + confirm)
    }
}

/// Puts the backends of before beside those that are listed.
fn keep(fresh: &mut Snapshot, key: ServiceKey, before: &Service, leaving: &BTreeSet<String>) {
    let empty = || Arc::new(Service { backends: Vec::new(), ..before.clone() });
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

/// One sentence for all doubts, so that an answer which has nothing does not fill the log.
fn warning(doubts: &BTreeMap<ServiceKey, Instant>, fresh: &Snapshot) -> Option<Warning> {
    let first = doubts.keys().next()?;
    let others = match doubts.len() - 1 {
        0 => String::new(),
        others => format!(" and {others} others"),
    };
    let app = fresh.services.get(first)?.name.clone();
    let reason = format!(
        "service {first}{others} lost more than half of the backends in one answer; they stay until a second answer says so"
    );
    Some(Warning { app, reason })
}

#[cfg(test)]
mod tests;
