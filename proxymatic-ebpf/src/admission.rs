//! Which flows to a service are left alone, and which clients may not connect.

use proxymatic_common::{
    Address, Config, DirectPeer, Features, HookFlags, ListenerFlags, ListenerKey, PROTOCOL_UDP, Port, Reason, Service,
    ServiceStats, SourceCgroup, SourceRangeKey,
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

/// The listeners of the host that a socket in another network namespace reaches, at an address of the host.
const REACHED_BY_CONTAINERS: ListenerFlags =
    ListenerFlags::ANY_INTERFACE.with(ListenerFlags::ON_INTERFACE).with(ListenerFlags::NEW);

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
        && locality != Locality::Virtual
        // A lookup in the kernel costs as much as the rest of the decision, and is seldom needed.
        && tables.service_stats(id).is_some_and(ServiceStats::may_have_listener)
        && has_foreign_listener(tables, caller, config, service, flow, locality)
    {
        return Some(Reason::LocalListener);
    }
    None
}

/// Returns whether the kernel would deliver a flow to a program that is no replica of the service.
#[inline(always)]
fn has_foreign_listener<T: DataPlane, C: Caller>(
    tables: &T,
    caller: &C,
    config: &Config,
    service: &Service,
    flow: &Flow,
    locality: Locality,
) -> bool {
    if locality == Locality::Host {
        return !service.features.has(Features::OWN_LISTENER)
            && (has_published_listener(tables, flow, REACHED_BY_CONTAINERS) || is_direct_peer(tables, caller, flow));
    }
    if is_foreign_listener(caller.listener(&flow.address, flow.port, flow.protocol), service) {
        return true;
    }
    let own = service.features.has(Features::OWN_LISTENER);
    // A replica is never bound to the loopback interface, because other hosts connect to it.
    let flags = match (flow.address.is_loopback(), own) {
        (true, true) => ListenerFlags::ON_LOOPBACK,
        (true, false) => ListenerFlags::ON_LOOPBACK.with(ListenerFlags::NEW),
        (false, true) => ListenerFlags(0),
        (false, false) => ListenerFlags::ON_INTERFACE.with(ListenerFlags::NEW),
    };
    if !caller.remote() && has_published_listener(tables, flow, flags) {
        return config.host_netns == 0 || caller.netns() == config.host_netns;
    }
    // Without a cookie of the host's namespace, the socket may be in a container.
    config.host_netns == 0
        && !caller.remote()
        && !own
        && !flow.address.is_loopback()
        && has_published_listener(tables, flow, REACHED_BY_CONTAINERS)
}

/// Returns whether `LISTENERS` has a listener of the host on the address of the flow, with one of
/// these flags.
#[inline(always)]
fn has_published_listener<T: Tables>(tables: &T, flow: &Flow, flags: ListenerFlags) -> bool {
    let any = if flow.address.is_v4() { Address::from_v4_word(0) } else { Address::ZERO };
    let has = |address| {
        tables
            .listener(&ListenerKey::new(address, flow.port, flow.protocol))
            .is_some_and(|it| it.flags.intersects(flags))
    };
    has(flow.address) || has(any)
}

/// Returns whether a datagram is to a socket of the host from which datagrams came a short while ago.
#[inline(always)]
fn is_direct_peer<T: DataPlane, C: Caller>(tables: &T, caller: &C, flow: &Flow) -> bool {
    /// As long as netfilter keeps a UDP flow that is not answered (nf_conntrack_udp_timeout), in nanoseconds.
    const LASTS: u64 = 30_000_000_000;
    flow.protocol == PROTOCOL_UDP
        && tables
            .direct_peer(&direct_peer(caller, flow.address, flow.port))
            .is_some_and(|at| tables.coarse_now().wrapping_sub(at) < LASTS)
}

/// Returns the key of a peer of this socket.
#[inline(always)]
pub(crate) fn direct_peer<C: Caller>(caller: &C, address: Address, port: Port) -> DirectPeer {
    let own_port = Port::new(caller.bound_port() as u16);
    DirectPeer { netns: caller.netns(), address, port, own_port, _pad: 0 }
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
