//! Who is left alone, and who may not connect.

use proxymatic_common::{
    Address, Config, Features, HookFlags, Reason, Service, ServiceStats, SourceCgroup, SourceRangeKey,
};

use crate::{Caller, Flow, Listener, Tables, route::Place};

/// How many levels of cgroups below the root are looked at, besides the process's own.
const LEVELS: u32 = 8;

/// Why a flow to a service is left as it is; `None` where it is translated.
#[inline(always)]
pub(crate) fn leave<T: Tables, C: Caller>(
    tables: &T,
    caller: &C,
    config: &Config,
    (id, service): (u32, &Service),
    flow: &Flow,
    place: Place,
) -> Option<Reason> {
    let own = config.agent_tgid != 0 && caller.tgid() == config.agent_tgid;
    let marked = config.bypass_mark != 0 && caller.mark() == config.bypass_mark;
    if own || marked || (config.hook_flags.has(HookFlags::EXCLUDED) && caller.listed(None)) {
        return Some(Reason::Bypassed);
    }
    if config.hook_flags.has(HookFlags::LISTENERS)
        && place == Place::Here
        // To ask the kernel costs as much as the rest of a choice, and is seldom needed.
        && tables.service_load(id).is_some_and(ServiceStats::may_have_listener)
        && foreign(caller.listener(&flow.address, flow.port, flow.protocol), service)
    {
        return Some(Reason::LocalListener);
    }
    None
}

/// Whether what listens on a service port is somebody else than a replica of the service. Replicas are reached from
/// other hosts, so one never listens on loopback alone; and where one has the port, nobody else can.
#[inline(always)]
fn foreign(listener: Listener, service: &Service) -> bool {
    match listener {
        Listener::None => false,
        Listener::Loopback => true,
        Listener::Other => !service.features.has(Features::OWN_LISTENER),
    }
}

/// # Errors
/// Why the flow is refused, whatever the backends.
#[inline(always)]
pub(crate) fn admit<T: Tables, C: Caller>(
    tables: &T,
    caller: &C,
    id: u32,
    service: &Service,
    flow: &Flow,
) -> Result<(), Reason> {
    if service.features.has(Features::ALLOW) && !allowed(tables, caller, id, flow) {
        return Err(Reason::NotAllowed);
    }
    if service.maxconn != 0
        && let Some(load) = tables.service_load(id)
        && load.active() >= u64::from(service.maxconn)
    {
        return Err(Reason::ServiceFull);
    }
    Ok(())
}

#[inline(always)]
fn allowed<T: Tables, C: Caller>(tables: &T, caller: &C, id: u32, flow: &Flow) -> bool {
    if tables.allows(&SourceRangeKey::host(id, comes_from(caller, flow))) {
        return true;
    }
    caller.listed(Some(id))
}

/// Whether the cgroup of a process, or one above it, is on the allow list of a service, or excluded where none is given.
#[inline(always)]
pub fn listed<T: Tables, C: Caller>(tables: &T, caller: &C, service: Option<u32>) -> bool {
    let on_list = |cgroup| match service {
        Some(service) => tables.allows_cgroup(&SourceCgroup { cgroup, service, zero: 0 }),
        None => tables.excludes(cgroup),
    };
    if on_list(caller.cgroup()) {
        return true;
    }
    for level in 1..=LEVELS {
        let above = caller.ancestor(level);
        if above == 0 {
            return false;
        }
        if on_list(above) {
            return true;
        }
    }
    false
}

/// The address that a proxy on this host would have seen: a socket that is not bound gets the address it dials, since
/// that is one of the same host.
#[inline(always)]
fn comes_from<C: Caller>(caller: &C, flow: &Flow) -> Address {
    let bound = caller.bound();
    if bound.is_unspecified() { flow.address } else { bound }
}

#[cfg(test)]
mod tests;
