//! What the agent is told as it happens.

use proxymatic_common::{Address, Class, Event, EventKind, Frontend, PROTOCOL_TCP, Port, PortBit, Reason};

use crate::{Caller, Choice, Flow, Tables};

/// The least time between two refusals of a service that are told, in nanoseconds: they may come by the thousand.
const APART: u64 = 100_000_000;

/// An event that says nothing yet.
pub(crate) const NOTHING: Event = Event {
    at: 0,
    cgroup: 0,
    kind: EventKind(0),
    reason: 0,
    service: 0,
    backend: 0,
    generation: 0,
    pid: 0,
    age_us: 0,
    ejected_ms: 0,
    destination: Address::ZERO,
    destination_port: Port::new(0),
    protocol: 0,
    zero: [0; 5],
};

#[inline(always)]
pub(crate) fn tell<T: Tables>(tables: &T, event: Event) {
    if !tables.tell(&Event { at: tables.now(), ..event }) {
        tables.count(Reason::EventDropped);
    }
}

#[inline(always)]
fn by<C: Caller>(caller: &C, flow: &Flow) -> Event {
    Event {
        cgroup: caller.cgroup(),
        pid: caller.tgid(),
        destination: flow.address,
        destination_port: flow.port,
        protocol: flow.protocol,
        ..NOTHING
    }
}

/// Counts a refusal, for the host and for the service, and tells it unless one was told just now.
#[inline(always)]
pub fn refused<T: Tables, C: Caller>(tables: &T, caller: &C, flow: &Flow, service: u32, reason: Reason) {
    tables.count(reason);
    let Some(load) = tables.service_load(service) else { return };
    if let Some(index) = reason.refusal()
        && let Some(cell) = load.refused.get(index)
    {
        tables.add(cell);
    }
    let now = tables.now();
    if now.wrapping_sub(load.last_refusal_event.get()) > APART {
        load.last_refusal_event.set(now);
        tell(tables, Event { kind: EventKind::REFUSED, reason: reason as u32, service, ..by(caller, flow) });
    }
}

/// Tells one of so many connections, if the operator wants that.
#[inline(always)]
pub fn sampled<T: Tables, C: Caller>(tables: &T, caller: &C, flow: &Flow, choice: &Choice) {
    let Some(config) = tables.config() else { return };
    if config.event_sample_rate == 0 || !tables.random().is_multiple_of(config.event_sample_rate) {
        return;
    }
    tell(
        tables,
        Event {
            kind: EventKind::CONNECTED,
            reason: choice.reason as u32,
            service: choice.service,
            backend: choice.backend,
            generation: choice.generation,
            ..by(caller, flow)
        },
    );
}

/// A TCP socket has begun to listen: maybe long after it was bound, when the agent has looked and seen no listener.
#[inline(always)]
pub fn listens<T: Tables>(tables: &T, port: Port) {
    let _ = heard(tables, port, PROTOCOL_TCP);
}

/// Counts that somebody may listen on a port from now on. Gives the service whose port it is on this host.
#[inline(always)]
fn heard<T: Tables>(tables: &T, port: Port, protocol: u8) -> Option<u32> {
    let bit = PortBit::of(port, protocol)?;
    if tables.ports(bit.word) & bit.mask == 0 {
        return None;
    }
    let service = tables.frontend(&Frontend::new(Class::HOST, port, protocol))?;
    // Before the program goes on, so that no connection it knows of looks past it.
    if let Some(load) = tables.service_load(service) {
        tables.add(&load.bound);
    }
    Some(service)
}

/// A program has bound a port: where it is a service port of this host, that is counted and told.
#[inline(always)]
pub fn bound<T: Tables, C: Caller>(tables: &T, caller: &C, address: Address, port: Port, protocol: u8) {
    let Some(service) = heard(tables, port, protocol) else { return };
    let Some(config) = tables.config() else { return };
    if config.host_netns != 0 && caller.netns() != config.host_netns {
        return;
    }
    tables.count(Reason::PortBound);
    tell(
        tables,
        Event {
            kind: EventKind::BOUND,
            reason: Reason::PortBound as u32,
            service,
            cgroup: caller.cgroup(),
            pid: caller.tgid(),
            destination: address,
            destination_port: port,
            protocol,
            ..NOTHING
        },
    );
}
