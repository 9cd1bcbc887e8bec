//! What has to be read: single apps while there are few of them, else everything. Pure.

use std::collections::BTreeSet;

/// With so many apps a listing is less work than one request for each.
const FEW: usize = 10;

/// What one answer, or several, are to cover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RefreshScope {
    /// Everything.
    All,
    /// These apps.
    Apps(BTreeSet<String>),
}

impl RefreshScope {
    /// Whether it has this app in it.
    pub(super) fn has(&self, app: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Apps(apps) => app.is_some_and(|app| apps.contains(app)),
        }
    }
}

/// What has changed since the last read began.
#[derive(Debug, Default)]
pub(super) struct PendingRefresh {
    all: bool,
    apps: BTreeSet<String>,
}

impl PendingRefresh {
    /// An app has changed; `None`: anything may have.
    pub(super) fn note(&mut self, app: Option<String>) {
        self.apps.extend(app.clone().filter(|_| self.apps.len() < FEW));
        self.all |= app.is_none();
    }

    /// What to read now, everything if that is due anyway; nothing is dirty any more.
    pub(super) fn take(&mut self, everything: bool) -> RefreshScope {
        let Self { all, apps } = std::mem::take(self);
        if everything || all || apps.is_empty() || apps.len() >= FEW {
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
    fn few_apps_are_read_alone_and_many_or_unknown_ones_with_everything() {
        let mut dirty = PendingRefresh::default();
        assert_eq!(dirty.take(false), RefreshScope::All);
        for _ in 0..50 {
            dirty.note(Some("/a".into()));
        }
        assert_eq!(dirty.take(false), RefreshScope::Apps(["/a".to_owned()].into()));
        for number in 0..FEW - 1 {
            dirty.note(Some(format!("/{number}")));
        }
        assert!(matches!(dirty.take(false), RefreshScope::Apps(apps) if apps.len() == FEW - 1));
        for number in 0..FEW {
            dirty.note(Some(format!("/{number}")));
        }
        assert_eq!(dirty.take(false), RefreshScope::All);
        dirty.note(Some("/a".into()));
        dirty.note(None);
        assert_eq!(dirty.take(false), RefreshScope::All);
        dirty.note(Some("/a".into()));
        assert_eq!(dirty.take(true), RefreshScope::All);
    }
}
