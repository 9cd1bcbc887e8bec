//! The verdict on a flow.

use proxymatic_common::{
    Address, Affinity, AffinityKey, Class, Config, Families, Features, Frontend, Loopback, Policy, Port, PortBit,
    Reason, Service,
};

use crate::{
    admission::{admit, bypass_reason},
    data_plane::{Caller, DataPlane, Tables},
    hash::hash64,
    packed::SelectParams,
    score::still_eligible,
    types::{Choice, Flow, Locality, Verdict},
};

/// Returns the verdict on a flow. A flow that finds no service passes, without side effects.
#[inline(always)]
pub fn route<T: DataPlane, C: Caller>(tables: &T, caller: &C, flow: &Flow) -> Verdict {
    let Some(config) = tables.config() else { return Verdict::Pass };
    let Some((id, locality)) = find_service(tables, caller, config, flow) else { return Verdict::Pass };
    let Some(service) = tables.service(id) else { return Verdict::Pass };
    if caller.remote() && !service.features.has(Features::EXPOSE) {
        return Verdict::Leave(Reason::NotExposed);
    }
    if let Some(reason) = bypass_reason(tables, caller, config, (id, service), flow, locality) {
        return Verdict::Leave(reason);
    }
    match choose_backend(tables, caller, config, id, service, flow) {
        Ok(choice) => Verdict::Translate(choice),
        Err(reason) => Verdict::Refuse(id, reason),
    }
}

/// Returns the reason to send a datagram to its destination although its socket has a backend for it.
#[inline(always)]
pub fn bypass_cached<T: DataPlane, C: Caller>(tables: &T, caller: &C, flow: &Flow) -> Option<Reason> {
    let config = tables.config()?;
    let (id, locality) = find_service(tables, caller, config, flow)?;
    let service = tables.service(id)?;
    bypass_reason(tables, caller, config, (id, service), flow, locality)
}

/// Returns whether a service has the port of a flow. One bit decides for nearly every connection that is to no service.
#[inline(always)]
pub fn may_be_service<T: Tables>(tables: &T, flow: &Flow) -> bool {
    is_service_port(tables, flow.port, flow.protocol)
}

#[inline(always)]
pub(crate) fn is_service_port<T: Tables>(tables: &T, port: Port, protocol: u8) -> bool {
    PortBit::of(port, protocol).is_some_and(|bit| tables.ports(bit.word) & bit.mask != 0)
}

#[inline(always)]
fn find_service<T: DataPlane, C: Caller>(
    tables: &T,
    caller: &C,
    config: &Config,
    flow: &Flow,
) -> Option<(u32, Locality)> {
    if !may_be_service(tables, flow) {
        return None;
    }
    let (class, locality) = address_class(tables, caller, config, &flow.address)?;
    let service = tables.frontend(&Frontend::new(class, flow.port, flow.protocol))?;
    Some((service, locality))
}

/// Returns the class of an address for this socket. A loopback address is recognized by its bits and not by a table:
/// there are 2^24 of them, and their class depends on the network namespace.
#[inline(always)]
fn address_class<T: DataPlane, C: Caller>(
    tables: &T,
    caller: &C,
    config: &Config,
    address: &Address,
) -> Option<(Class, Locality)> {
    if address.is_loopback() {
        let ours = match config.loopback {
            Loopback::ALL => true,
            Loopback::HOST => caller.netns() == config.host_netns,
            _ => false,
        };
        return if ours { Some((Class::HOST, Locality::SameNetns)) } else { None };
    }
    let class = tables.class(address)?;
    // If the host's namespace is unknown, any listener counts as one on the host.
    if class.0 != Class::HOST.0 {
        return Some((class, Locality::Virtual));
    }
    let same_netns = config.host_netns == 0 || caller.netns() == config.host_netns;
    Some((class, if same_netns { Locality::SameNetns } else { Locality::Host }))
}

/// Selects a backend of a service.
///
/// # Errors
/// The reason why the flow must be refused.
#[inline(always)]
fn choose_backend<T: DataPlane, C: Caller>(
    tables: &T,
    caller: &C,
    config: &Config,
    id: u32,
    service: &Service,
    flow: &Flow,
) -> Result<Choice, Reason> {
    admit(tables, caller, id, service)?;
    let bound = caller.bound();
    let families = if bound.is_unspecified() { flow.families } else { flow.families.intersection(Families::of(bound)) };
    let local = !bound.is_unspecified() && bound.is_loopback();
    // A socket with a loopback address reaches nothing beyond its namespace; in a container, not even the host.
    if local && config.host_netns != 0 && caller.netns() != config.host_netns {
        return Err(Reason::BoundLoopback);
    }
    let policy = caller.policy(service.policy);
    let params = SelectParams::new(policy, families, local);
    let hash = match policy {
        Policy::SOURCE => {
            let client = caller.client();
            hash64(client.cgroup, client.netns)
        }
        Policy::MAGLEV => caller.hash_input(),
        _ => 0,
    };
    let (backend, reason) = if service.affinity == 0 {
        tables.select(id, params, hash)?
    } else {
        select_with_affinity(tables, caller, id, service, params, hash)?
    };
    let chosen = tables.backend(backend).ok_or(Reason::NoBackend)?;
    Ok(Choice {
        service: id,
        backend,
        generation: chosen.generation,
        address: chosen.address,
        port: chosen.port,
        local: chosen.local != 0,
        syn_retries: service.syn_retries,
        reason,
    })
}

/// Returns the backend of the client's last connection if it is still eligible; else selects another and saves it.
#[inline(always)]
fn select_with_affinity<T: DataPlane, C: Caller>(
    tables: &T,
    caller: &C,
    id: u32,
    service: &Service,
    params: SelectParams,
    hash: u64,
) -> Result<(u32, Reason), Reason> {
    const SECOND: u64 = 1_000_000_000;
    let key = AffinityKey { service: id, _pad: 0, client: caller.client() };
    let (now, lasts) = (tables.now(), u64::from(service.affinity) * SECOND);
    if let Some(last) = tables.affinity(&key)
        && now.wrapping_sub(last.at) < lasts
        && still_eligible(tables, id, last.backend, last.generation, params)
    {
        // Not for each connection: a hash map update costs more than the rest of the decision.
        if now.wrapping_sub(last.at) > lasts / 8 {
            tables.save_affinity(&key, &Affinity { at: now, ..last });
        }
        return Ok((last.backend, Reason::AffinityHit));
    }
    let (backend, reason) = tables.select(id, params, hash)?;
    if let Some(chosen) = tables.backend(backend) {
        tables.save_affinity(&key, &Affinity { backend, generation: chosen.generation, at: now });
    }
    Ok((backend, reason))
}

#[cfg(test)]
mod tests;
