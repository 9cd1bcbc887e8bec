//! What the next read must cover: single apps if there are few of them, else everything. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// From this number of apps on, a listing is less work than one request for each.
const MAX_APPS: usize = 10;

/// The most deployments that are remembered. Marathon allows 100 at a time.
const MAX_DEPLOYMENTS: usize = 1_000;

/// What a read covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RefreshScope {
    /// Everything.
    All,
    /// These apps.
    Apps(BTreeSet<String>),
}

impl RefreshScope {
    /// Returns whether the scope includes an app.
    pub(super) fn has(&self, app: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Apps(apps) => app.is_some_and(|app| apps.contains(app)),
        }
    }
}

/// The deployments that have not ended, with what each changes.
///
/// An event that a group has changed does not say how. A deployment is announced before the change of its group can be
/// read, so what the deployments change is all that such an event can mean.
#[derive(Debug)]
pub(super) struct Deployments {
    /// The longest time from the announcement of a deployment to the event that its group has changed.
    unannounced: Duration,
    names: BTreeMap<String, Vec<String>>,
    /// Until when a deployment may have been announced before the stream was attached.
    incomplete_until: Option<Instant>,
}

impl Deployments {
    /// Returns the state before the first event.
    pub(super) const fn new(unannounced: Duration) -> Self {
        Self { unannounced, names: BTreeMap::new(), incomplete_until: None }
    }

    /// Notes that the stream was attached: deployments may have been announced before.
    pub(super) fn attached(&mut self, now: Instant) {
        self.names.clear();
        self.incomplete_until = Some(now + self.unannounced);
    }

    /// Notes a deployment that begins or goes on, or that is over.
    pub(super) fn note(&mut self, id: String, names: Vec<String>, goes_on: bool, now: Instant) {
        if !goes_on {
            self.names.remove(&id);
        } else if self.names.len() < MAX_DEPLOYMENTS {
            self.names.insert(id, names);
        } else {
            self.attached(now);
        }
    }

    /// Returns everything that the deployments change; `None` if that is not known.
    pub(super) fn all(&self, now: Instant) -> Option<BTreeSet<String>> {
        let complete = self.incomplete_until.is_some_and(|until| now >= until) && !self.names.is_empty();
        complete.then(|| self.names.values().flatten().cloned().collect())
    }
}

/// The changes since the last read began.
#[derive(Debug, Default)]
pub(super) struct PendingRefresh {
    all: bool,
    apps: BTreeSet<String>,
}

impl PendingRefresh {
    /// Notes that an app has changed; `None` if any app may have.
    pub(super) fn note(&mut self, app: Option<String>) {
        self.apps.extend(app.clone().filter(|_| self.apps.len() < MAX_APPS));
        self.all |= app.is_none();
    }

    /// Returns the scope of the read that begins now, everything if that is due anyway, and clears the changes.
    pub(super) fn take(&mut self, everything: bool) -> RefreshScope {
        let Self { all, apps } = std::mem::take(self);
        if everything || all || apps.is_empty() || apps.len() >= MAX_APPS {
            RefreshScope::All
        } else {
            RefreshScope::Apps(apps)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNANNOUNCED: Duration = Duration::from_secs(3);

    #[test]
    fn change_of_a_group_is_that_of_the_deployments_in_progress() {
        let (mut deployments, now) = (Deployments::new(UNANNOUNCED), Instant::now());
        assert_eq!(deployments.all(now), None, "no stream has been attached");
        deployments.attached(now);
        deployments.note("d1".into(), vec!["/a".into()], true, now);
        assert_eq!(deployments.all(now), None, "another one may have been announced before");
        let now = now + UNANNOUNCED;
        deployments.note("d2".into(), vec!["/a".into(), "/p".into()], true, now);
        assert_eq!(deployments.all(now), Some(["/a".to_owned(), "/p".to_owned()].into()));
        deployments.note("d2".into(), vec!["/a".into(), "/p".into()], false, now);
        assert_eq!(deployments.all(now), Some(["/a".to_owned()].into()));
        deployments.note("d1".into(), vec!["/a".into()], false, now);
        assert_eq!(deployments.all(now), None);
    }

    #[test]
    fn few_apps_are_read_alone_and_many_with_everything() {
        let mut pending = PendingRefresh::default();
        assert_eq!(pending.take(false), RefreshScope::All);
        for _ in 0..50 {
            pending.note(Some("/a".into()));
        }
        assert_eq!(pending.take(false), RefreshScope::Apps(["/a".to_owned()].into()));
        for number in 0..MAX_APPS - 1 {
            pending.note(Some(format!("/{number}")));
        }
        assert!(matches!(pending.take(false), RefreshScope::Apps(apps) if apps.len() == MAX_APPS - 1));
        for number in 0..MAX_APPS {
            pending.note(Some(format!("/{number}")));
        }
        assert_eq!(pending.take(false), RefreshScope::All);
        pending.note(Some("/a".into()));
        pending.note(None);
        assert_eq!(pending.take(false), RefreshScope::All);
        pending.note(Some("/a".into()));
        assert_eq!(pending.take(true), RefreshScope::All);
    }
}
