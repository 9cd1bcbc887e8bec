//! Decides which app owns a service, and which other apps may join it. Pure.
//!
//! The owner of a service port is the app to which Marathon assigned the port. A claim by a label owns only what Marathon
//! assigned to no app. Among equals the owner that this host serves already stays. Without one, the app with the oldest
//! first version is the owner, then the first app by id. The flag `--owner` comes before all of this.

use std::collections::BTreeSet;

use super::{claim_rules::ClaimRules, lookups::Lookups};
use crate::model::{PREFIX, ServiceKey, ShareList};

/// An app or pod that claims a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claimant<'a> {
    pub(super) app: &'a str,
    /// Whether Marathon assigned the port to the app, and its tasks do not have that port on their own hosts.
    pub(super) is_assigned: bool,
}

/// The owner of a service, and what decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chosen<'a> {
    pub(super) owner: Claimant<'a>,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// The flag `--owner`.
    Flag,
    /// No other app has as good a claim.
    BestClaim,
    /// The service has been its own before, or its first version is the oldest.
    First,
    /// Marathon did not say which first version is the oldest.
    FirstById,
}

impl Chosen<'_> {
    /// Returns whether the app stays the owner: a choice without Marathon's answer is made again.
    pub(super) fn is_certain(&self) -> bool {
        self.reason != Reason::FirstById
    }
}

/// The operator's rules, what this host serves, and what Marathon answered.
#[derive(Clone, Copy)]
pub(super) struct Ownership<'a> {
    pub(super) rules: &'a ClaimRules,
    pub(super) lookups: &'a Lookups,
}

impl Ownership<'_> {
    /// Returns the owner among the claimants, which are in order of their ids; `None` if `--owner` gives the service to an
    /// app outside of their groups. Adds the apps whose first versions are needed to `undecided`.
    pub(super) fn choose<'c>(
        &self,
        key: ServiceKey,
        claimants: &[Claimant<'c>],
        undecided: &mut BTreeSet<String>,
    ) -> Option<Chosen<'c>> {
        let mut equals = claimants.to_vec();
        if let Some(named) = self.flag(key) {
            if let Some(owner) = equals.iter().find(|it| it.app == named) {
                return Some(Chosen { owner: *owner, reason: Reason::Flag });
            }
            equals.retain(|it| self.rules.share_anyone || group(it.app) == group(named));
        }
        if equals.iter().any(|it| it.is_assigned) {
            equals.retain(|it| it.is_assigned);
        }
        let first = *equals.first()?;
        if equals.len() == 1 {
            return Some(Chosen { owner: first, reason: Reason::BestClaim });
        }
        let served = self.lookups.served.services.get(&key).and_then(|service| service.owner.as_deref());
        if let Some(owner) = equals.iter().find(|it| Some(it.app) == served) {
            return Some(Chosen { owner: *owner, reason: Reason::First });
        }
        let asked = &self.lookups.first_versions;
        undecided.extend(equals.iter().map(|it| it.app).filter(|app| !asked.contains_key(*app)).map(str::to_owned));
        let age = |it: &Claimant<'c>| Some((*asked.get(it.app)?.as_ref().ok()?, it.app));
        let ages: Option<Vec<_>> = equals.iter().map(|it| Some((age(it)?, *it))).collect();
        let oldest = ages.and_then(|ages| ages.into_iter().min_by_key(|(age, _)| *age));
        Some(match oldest {
            Some((_, owner)) => Chosen { owner, reason: Reason::First },
            None => Chosen { owner: first, reason: Reason::FirstById },
        })
    }

    /// Returns whether an app may join the service of an owner whose label `share` is this list.
    pub(super) fn may_join(&self, owner: &str, share: &ShareList, app: &str) -> bool {
        owner == app || self.rules.share_anyone || group(owner) == group(app) || share.names(app)
    }

    /// Returns the warning for an app that is left out of a service; `None` is an owner outside of all claimants' groups.
    pub(super) fn left_out(&self, key: ServiceKey, chosen: Option<&Chosen<'_>>, app: Claimant<'_>) -> String {
        let what = service_text(key);
        let Some(Chosen { owner, reason }) = chosen else {
            let named = self.flag(key).unwrap_or_default();
            return format!(
                "{what} is kept for {named} by --owner, and {} is in another group, so its tasks get no connections \
                 there; give it another port, or correct --owner",
                app.app
            );
        };
        let kept = self
            .flag(key)
            .filter(|named| *named != owner.app)
            .map(|named| format!("which is in the group of {named}, for which --owner keeps it"));
        let why = match reason {
            _ if kept.is_some() => kept.as_deref().unwrap_or_default(),
            Reason::Flag => "by --owner",
            Reason::First | Reason::BestClaim if owner.is_assigned && !app.is_assigned => {
                "to which Marathon assigned it"
            }
            Reason::First | Reason::BestClaim => "which had it first",
            Reason::FirstById => "which comes first by id, while Marathon does not list the versions of both",
        };
        let (owner, app) = (owner.app, app.app);
        let flag = match key.address {
            None => format!("; --owner {}={app} gives it the port", key.port),
            Some(_) => String::new(),
        };
        format!(
            "{what} belongs to {owner}, {why}; {app} is in another group, so its tasks get no connections there; let \
             {owner} name it in a label {PREFIX}<index>.share, or start the agents with --share anyone{flag}"
        )
    }

    /// Returns the app that `--owner` names for a service port.
    fn flag(&self, key: ServiceKey) -> Option<&str> {
        key.address.is_none().then(|| self.rules.owners.get(&key.port).map(String::as_str)).flatten()
    }
}

/// Returns the words for a service in a warning.
pub(super) fn service_text(key: ServiceKey) -> String {
    match key.address {
        None => format!("service port {key}"),
        Some(_) => format!("the virtual address {key}"),
    }
}

/// Returns the group of an app or pod: the path above it, which is empty for the root.
fn group(id: &str) -> &str {
    id.rsplit_once('/').map_or("", |(group, _)| group)
}

#[cfg(test)]
mod tests;
