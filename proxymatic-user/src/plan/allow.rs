//! Allow lists: written before anything says that there is one, and never in part.

use std::collections::BTreeSet;

use proxymatic_common::{SourceCgroup, SourceRangeKey};

use super::{
    Desired, MapOp,
    builder::{MapFull, PlanBuilder},
};
use crate::model::{AllowRule, Service, Warning};

/// The entries of a service's list, networks and cgroups. A cgroup that is not there is left out: it names nobody.
fn entries(desired: &Desired, id: u32, service: &Service) -> (BTreeSet<SourceRangeKey>, BTreeSet<u64>) {
    let list = || service.settings.allow.iter().flatten();
    let networks = list().filter_map(|allowed| match allowed {
        AllowRule::Network(address, prefix) => Some(SourceRangeKey::new(id, (*address).into(), *prefix)),
        AllowRule::Cgroup(_) => None,
    });
    let cgroups = service.settings.cgroups().filter_map(|path| desired.cgroups.get(path).copied());
    (networks.collect(), cgroups.collect())
}

/// Whether a service is held to its list, or to none, by what the maps say already.
pub(super) fn holds(draft: &PlanBuilder<'_>, desired: &Desired, id: u32, service: &Service) -> bool {
    use proxymatic_common::Features;
    let Some(entry) = draft.tables.services().get(&id) else { return false };
    if service.settings.allow.is_none() {
        return true;
    }
    let (networks, cgroups) = entries(desired, id, service);
    entry.settings.features.has(Features::ALLOW) && (&entry.allow, &entry.allow_cgroups) == (&networks, &cgroups)
}

/// The writes that make a list what is wanted.
pub(super) fn put(
    draft: &mut PlanBuilder<'_>,
    warnings: &mut Vec<Warning>,
    desired: &Desired,
    id: u32,
    service: &Service,
) -> Result<(), MapFull> {
    let (networks, cgroups) = entries(desired, id, service);
    let none = super::ServiceEntry::default();
    let known = draft.tables.services().get(&id).unwrap_or(&none);
    let new: Vec<_> = networks.difference(&known.allow).copied().collect();
    draft.take_allows(new.len())?;
    draft.ops.extend(new.into_iter().map(MapOp::PutAllow));
    draft.ops.extend(known.allow.difference(&networks).copied().map(MapOp::DelAllow));
    let of = |cgroup: &u64| SourceCgroup { cgroup: *cgroup, service: id, zero: 0 };
    let new: Vec<_> = cgroups.difference(&known.allow_cgroups).map(of).collect();
    draft.take_allowed_cgroups(new.len())?;
    draft.ops.extend(new.into_iter().map(MapOp::PutAllowCgroup));
    draft.ops.extend(known.allow_cgroups.difference(&cgroups).map(of).map(MapOp::DelAllowCgroup));
    for path in service.settings.cgroups().filter(|path| !desired.cgroups.contains_key(*path)) {
        let reason = format!("cgroup:{path} of its allow list is not there, so it names nobody; is the path right?");
        warnings.push(Warning { app: service.name.clone(), reason });
    }
    Ok(())
}
