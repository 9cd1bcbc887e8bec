//! Which flows to a service are left alone, and which clients may not connect.

use proxymatic_common::{
    Address, Config, Features, HookFlags, Reason, Service, ServiceStats, SourceCgroup, SourceRangeKey,
};

use crate::{
    data_plane::{Caller, DataPlane, Tables},
    types::{Flow, Listener, Locality, NetnsMatch},
};

/// How many levels of cgroups below the root are checked, in addition to the cgroup of the process.
const LEVELS: u32 = 8;
/// 127.0.0.1.
const LOOPBACK_V4: Address = Address::from_v4_word(0).effective();
/// ::1.
const LOOPBACK_V6: Address = Address::ZERO.effective();

/// Returns the reason to leave a flow to a service alone; `None` if there is none.
#[inline(always)]
pub(crate) fn bypass_reason<T: DataPlane, C: Caller>(
    tables: &T,
    caller: &C,
    config: &Config,
    (id, service): (u32, &Service),
    flow: &Flow,
    locality: Locality,
) -> Option<Reason> {
    let own = config.agent_tgid != 0 && caller.tgid() == config.agent_tgid;
    let marked = config.bypass_mark != 0 && caller.mark() == config.bypass_mark;
    if own || marked || (config.hook_flags.has(HookFlags::EXCLUDED) && caller.cgroup_listed(None)) {
        return Some(Reason::Bypassed);
    }
    if config.hook_flags.has(HookFlags::LISTENERS)
        && locality == Locality::SameNetns
        // A lookup in the kernel costs as much as the rest of the decision, and is seldom needed.
        && tables.service_stats(id).is_some_and(ServiceStats::may_have_listener)
        && is_foreign_listener(caller.listener(&flow.address, flow.port, flow.protocol), service)
    {
        return Some(Reason::LocalListener);
    }
    None
}

/// Returns whether the listener on a service port is not a replica of the service. Other hosts connect to replicas, so
/// a replica never listens on loopback alone; and if a replica has the port, no other program can listen on it.
#[inline(always)]
fn is_foreign_listener(listener: Listener, service: &Service) -> bool {
    match listener {
        Listener::None => false,
        Listener::Loopback => true,
        Listener::Other => !service.features.has(Features::OWN_LISTENER),
    }
}

/// Checks the allow list and the maxconn of a service.
///
/// # Errors
/// The reason why the flow must be refused.
#[inline(always)]
pub(crate) fn admit<T: DataPlane, C: Caller>(tables: &T, caller: &C, id: u32, service: &Service) -> Result<(), Reason> {
    if service.features.has(Features::ALLOW) {
        check_allow_list(tables, caller, id)?;
    }
    if service.maxconn != 0
        && let Some(stats) = tables.service_stats(id)
        && stats.active() >= u64::from(service.maxconn)
    {
        return Err(Reason::ServiceFull);
    }
    Ok(())
}

/// Checks the allow list of a service. A program on this host is where its network namespace is: neither the address
/// that it connects to nor the one that its socket is bound to counts, since the program chooses both.
#[inline(always)]
fn check_allow_list<T: DataPlane, C: Caller>(tables: &T, caller: &C, id: u32) -> Result<(), Reason> {
    if caller.remote() {
        let key = SourceRangeKey::host(id, caller.bound());
        return if tables.source_allowed(&key) { Ok(()) } else { Err(Reason::NotAllowed) };
    }
    let found = tables.netns_match(id, caller.netns());
    if found == NetnsMatch::Listed || caller.cgroup_listed(Some(id)) {
        return Ok(());
    }
    Err(if found == NetnsMatch::Unknown { Reason::UnknownNetns } else { Reason::NotAllowed })
}

/// Returns whether the networks of an allow list contain an address of a network namespace. The host's own namespace
/// has the loopback addresses too: they cannot be those of another one.
#[inline(always)]
pub fn netns_match<T: Tables>(tables: &T, service: u32, netns: u64) -> NetnsMatch {
    let is_listed =
        |address: Address| !address.is_unspecified() && tables.source_allowed(&SourceRangeKey::host(service, address));
    let is_host = tables.config().is_some_and(|config| config.host_netns != 0 && config.host_netns == netns);
    if is_host && (is_listed(LOOPBACK_V4) || is_listed(LOOPBACK_V6)) {
        return NetnsMatch::Listed;
    }
    match tables.netns_addresses(netns) {
        Some(addresses) if is_listed(addresses.v4) || is_listed(addresses.v6) => NetnsMatch::Listed,
        None if !is_host => NetnsMatch::Unknown,
        _ => NetnsMatch::Unlisted,
    }
}

/// Returns whether the allow list of a service has the cgroup of a process or one of its ancestors. Without a service,
/// checks the excluded cgroups.
#[inline(always)]
pub fn cgroup_listed<T: DataPlane, C: Caller>(tables: &T, caller: &C, service: Option<u32>) -> bool {
    let is_listed = |cgroup| match service {
        Some(service) => tables.cgroup_allowed(&SourceCgroup { cgroup, service, _pad: 0 }),
        None => tables.cgroup_excluded(cgroup),
    };
    if is_listed(caller.cgroup()) {
        return true;
    }
    for level in 1..=LEVELS {
        let ancestor = caller.ancestor(level);
        if ancestor == 0 {
            return false;
        }
        if is_listed(ancestor) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests;
