//! From a flow to a verdict.

use proxymatic_common::{
    Address, Affinity, AffinityKey, Class, Config, Families, Features, Frontend, Loopback, Policy, Port, PortBit,
    Reason, Service,
};

use crate::{Caller, Draw, Tables, admit, look};

/// A connection or datagram that a program asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The address dialled. Never an unspecified one: those mean loopback, see [`Flow::new`].
    pub address: Address,
    /// The port dialled.
    pub port: Port,
    /// IPPROTO number.
    pub protocol: u8,
    /// What the socket could reach if it were bound to nothing.
    pub families: Families,
}

impl Flow {
    /// A flow to an address as it was dialled: 0.0.0.0 and :: are where Linux sends them, to loopback.
    #[inline(always)]
    pub const fn new(address: Address, port: Port, protocol: u8, families: Families) -> Self {
        Self { address: address.effective(), port, protocol, families }
    }
}

/// A backend that was chosen, copied: the id may get a new owner while this is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The id of the service.
    pub service: u32,
    /// Its id.
    pub backend: u32,
    /// Its generation.
    pub generation: u32,
    /// Where it listens.
    pub address: Address,
    /// The port it listens on.
    pub port: Port,
    /// Whether it is on this host.
    pub local: bool,
    /// TCP_SYNCNT for the connection; 0 for the system's.
    pub syn_retries: u32,
    /// How it came to be chosen.
    pub reason: Reason,
}

/// What is to become of a flow.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours: untouched and not counted.
    Pass,
    /// Ours, but left alone for a reason that is counted.
    Leave(Reason),
    /// Send it there.
    Translate(Choice),
    /// Refuse it, for a reason that the service (by id) is to know of.
    Refuse(u32, Reason),
}

/// Decides. A miss anywhere on the way to a service is a pass, without side effects.
#[inline(always)]
pub fn route<T: Tables, C: Caller>(tables: &T, caller: &C, flow: &Flow) -> Verdict {
    let Some(config) = tables.config() else { return Verdict::Pass };
    let Some((id, place)) = find(tables, caller, config, flow) else { return Verdict::Pass };
    let Some(service) = tables.service(id) else { return Verdict::Pass };
    if caller.remote() && !service.features.has(Features::EXPOSE) {
        return Verdict::Leave(Reason::NotExposed);
    }
    if let Some(reason) = admit::leave(tables, caller, config, (id, service), flow, place) {
        return Verdict::Leave(reason);
    }
    match choose(tables, caller, config, id, service, flow) {
        Ok(choice) => Verdict::Translate(choice),
        Err(reason) => Verdict::Refuse(id, reason),
    }
}

/// Where a flow was dialled, as seen from the socket's namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The address is one of the socket's own namespace: somebody may listen there.
    Here,
    /// It is elsewhere.
    Elsewhere,
}

/// Whether a service has the port of a flow. One bit answers for nearly every connection on a host that has nothing to do
/// with us.
#[inline(always)]
pub fn may_be_service<T: Tables>(tables: &T, flow: &Flow) -> bool {
    is_service_port(tables, flow.port, flow.protocol)
}

#[inline(always)]
pub(crate) fn is_service_port<T: Tables>(tables: &T, port: Port, protocol: u8) -> bool {
    PortBit::of(port, protocol).is_some_and(|bit| tables.ports(bit.word) & bit.mask != 0)
}

#[inline(always)]
fn find<T: Tables, C: Caller>(tables: &T, caller: &C, config: &Config, flow: &Flow) -> Option<(u32, Place)> {
    if !may_be_service(tables, flow) {
        return None;
    }
    let (class, place) = classify(tables, caller, config, &flow.address)?;
    let service = tables.frontend(&Frontend::new(class, flow.port, flow.protocol))?;
    Some((service, place))
}

/// What an address means to this socket. Loopback is told by the bits, not by a table: it is 2^24 addresses, and what
/// it means depends on the namespace.
#[inline(always)]
fn classify<T: Tables, C: Caller>(
    tables: &T,
    caller: &C,
    config: &Config,
    address: &Address,
) -> Option<(Class, Place)> {
    if address.is_loopback() {
        let ours = match config.loopback {
            Loopback::ALL => true,
            Loopback::HOST => caller.netns() == config.host_netns,
            _ => false,
        };
        return if ours { Some((Class::HOST, Place::Here)) } else { None };
    }
    let class = tables.class(address)?;
    // Where the host's namespace is not known, a listener anywhere is taken for one on the host.
    let here = class.0 == Class::HOST.0 && (config.host_netns == 0 || caller.netns() == config.host_netns);
    Some((class, if here { Place::Here } else { Place::Elsewhere }))
}

/// Chooses a backend of a service, or says why there is none.
#[inline(always)]
fn choose<T: Tables, C: Caller>(
    tables: &T,
    caller: &C,
    config: &Config,
    id: u32,
    service: &Service,
    flow: &Flow,
) -> Result<Choice, Reason> {
    admit::admit(tables, caller, id, service, flow)?;
    let bound = caller.bound();
    let families = if bound.is_unspecified() { flow.families } else { flow.families.intersection(Families::of(bound)) };
    let local = !bound.is_unspecified() && bound.is_loopback();
    // A loopback address reaches nothing beyond its namespace, from a container not even the host.
    if local && config.host_netns != 0 && caller.netns() != config.host_netns {
        return Err(Reason::BoundLoopback);
    }
    let policy = caller.policy(service.policy);
    let draw = Draw::new(policy, families, local);
    let hash = match policy {
        Policy::SOURCE => {
            let client = caller.client();
            mixed(client.cgroup, client.netns)
        }
        Policy::MAGLEV => caller.spread(),
        _ => 0,
    };
    let (backend, reason) = if service.affinity == 0 {
        tables.select(id, draw, hash)?
    } else {
        select_with_affinity(tables, caller, id, service, draw, hash)?
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

/// The backend of the client's last connection while it would do; else another, which is remembered.
#[inline(always)]
fn select_with_affinity<T: Tables, C: Caller>(
    tables: &T,
    caller: &C,
    id: u32,
    service: &Service,
    draw: Draw,
    hash: u64,
) -> Result<(u32, Reason), Reason> {
    const SECOND: u64 = 1_000_000_000;
    let key = AffinityKey { service: id, zero: 0, client: caller.client() };
    let (now, lasts) = (tables.now(), u64::from(service.affinity) * SECOND);
    if let Some(last) = tables.affinity(&key)
        && now.wrapping_sub(last.at) < lasts
        && look::fits(tables, id, last.backend, last.generation, draw)
    {
        // Not at each connection: a write to a hash costs more than all the rest.
        if now.wrapping_sub(last.at) > lasts / 8 {
            tables.remember(&key, &Affinity { at: now, ..last });
        }
        return Ok((last.backend, Reason::AffinityHit));
    }
    let (backend, reason) = tables.select(id, draw, hash)?;
    if let Some(chosen) = tables.backend(backend) {
        tables.remember(&key, &Affinity { backend, generation: chosen.generation, at: now });
    }
    Ok((backend, reason))
}

/// Two words to one that is spread over all bits (the finalizer of splitmix64).
#[inline(always)]
pub(crate) const fn mixed(a: u64, b: u64) -> u64 {
    let mut x = a ^ b.rotate_left(32).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests;
