//! Allow lists: the plan writes a list completely, before the setting that says that there is one.

use std::collections::BTreeSet;

use proxymatic_common::{SourceCgroup, SourceRangeKey};

use super::{
    Desired, MapOp,
    builder::{MapFull, PlanBuilder},
};
use crate::model::{AllowRule, Service, Warning};

/// Returns the entries of a service's list: networks and cgroups. A cgroup that does not exist is left out.
fn entries(desired: &Desired, id: u32, service: &Service) -> (BTreeSet<SourceRangeKey>, BTreeSet<u64>) {
    let list = || service.settings.allow.iter().flatten();
    let networks = list().filter_map(|allowed| match allowed {
        AllowRule::Network(network) => Some(SourceRangeKey::new(id, network.addr().into(), network.prefix_len())),
        AllowRule::Cgroup(_) => None,
    });
    let cgroups = service.settings.cgroups().filter_map(|path| desired.cgroups.get(path).copied());
    (networks.collect(), cgroups.collect())
}

/// Returns whether the maps already hold the service's list, or the service has no list.
pub(super) fn is_applied(builder: &PlanBuilder<'_>, desired: &Desired, id: u32, service: &Service) -> bool {
    use proxymatic_common::Features;
    let Some(entry) = builder.tables.services().get(&id) else { return false };
    if service.settings.allow.is_none() {
        return true;
    }
    let (networks, cgroups) = entries(desired, id, service);
    entry.settings.features.has(Features::ALLOW) && (&entry.allow, &entry.allow_cgroups) == (&networks, &cgroups)
}

/// Adds the writes that turn the list in the maps into the desired one.
pub(super) fn put_list(
    builder: &mut PlanBuilder<'_>,
    warnings: &mut Vec<Warning>,
    desired: &Desired,
    id: u32,
    service: &Service,
) -> Result<(), MapFull> {
    let (networks, cgroups) = entries(desired, id, service);
    let none = super::ServiceEntry::default();
    let known = builder.tables.services().get(&id).unwrap_or(&none);
    let new: Vec<_> = networks.difference(&known.allow).copied().collect();
    builder.take_allows(new.len())?;
    builder.ops.extend(new.into_iter().map(MapOp::PutAllow));
    builder.ops.extend(known.allow.difference(&networks).copied().map(MapOp::DelAllow));
    let of = |cgroup: &u64| SourceCgroup { cgroup: *cgroup, service: id, _pad: 0 };
    let new: Vec<_> = cgroups.difference(&known.allow_cgroups).map(of).collect();
    builder.take_allowed_cgroups(new.len())?;
    builder.ops.extend(new.into_iter().map(MapOp::PutAllowCgroup));
    builder.ops.extend(known.allow_cgroups.difference(&cgroups).map(of).map(MapOp::DelAllowCgroup));
    for path in service.settings.cgroups().filter(|path| !desired.cgroups.contains_key(*path)) {
        let reason =
            format!("cgroup:{path} of its allow list does not exist, so the entry has no effect; check the path");
        warnings.push(Warning { app: service.name.clone(), reason });
    }
    Ok(())
}
