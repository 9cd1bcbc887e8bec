//! What the next read must cover: single apps if there are few of them, else everything. Pure.

use std::collections::BTreeSet;

/// From this number of apps on, a listing is less work than one request for each.
const MAX_APPS: usize = 10;

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
