//! Events for the agent, and the counters that go with them.

use proxymatic_common::{Event, EventKind, Reason};

use crate::{
    data_plane::{Caller, Environment, Tables},
    types::{Choice, Flow},
};

/// The least time between two refusal events of a service, in nanoseconds: refusals may come by the thousand.
const REFUSAL_EVENT_INTERVAL: u64 = 100_000_000;

/// Sends an event with the current time. Counts it if it is dropped.
#[inline(always)]
pub(crate) fn emit<T: Tables + Environment>(tables: &T, event: Event) {
    if !tables.emit(&Event { at: tables.now(), ..event }) {
        tables.count(Reason::EventDropped);
    }
}

/// Returns an event about a caller's flow.
#[inline(always)]
fn event_of<C: Caller>(caller: &C, flow: &Flow) -> Event {
    Event {
        cgroup: caller.cgroup(),
        pid: caller.tgid(),
        destination: flow.address,
        destination_port: flow.port,
        protocol: flow.protocol,
        ..Event::EMPTY
    }
}

/// Counts a refusal, for the host and for the service, and emits an event unless there was one just before.
#[inline(always)]
pub fn on_refused<T: Tables + Environment, C: Caller>(
    tables: &T,
    caller: &C,
    flow: &Flow,
    service: u32,
    reason: Reason,
) {
    tables.count(reason);
    let Some(stats) = tables.service_stats(service) else { return };
    if let Some(index) = reason.refusal()
        && let Some(cell) = stats.refused.get(index)
    {
        tables.inc(cell);
    }
    let now = tables.now();
    if now.wrapping_sub(stats.last_refusal_event.get()) > REFUSAL_EVENT_INTERVAL {
        stats.last_refusal_event.set(now);
        emit(tables, Event { kind: EventKind::REFUSED, reason: reason as u32, service, ..event_of(caller, flow) });
    }
}

/// Emits an event for one of `event_sample_rate` connections, if the agent has set that rate.
#[inline(always)]
pub fn on_sampled_connect<T: Tables + Environment, C: Caller>(tables: &T, caller: &C, flow: &Flow, choice: &Choice) {
    let Some(config) = tables.config() else { return };
    if config.event_sample_rate == 0 || !tables.random().is_multiple_of(config.event_sample_rate) {
        return;
    }
    emit(
        tables,
        Event {
            kind: EventKind::CONNECTED,
            reason: choice.reason as u32,
            service: choice.service,
            backend: choice.backend,
            generation: choice.generation,
            ..event_of(caller, flow)
        },
    );
}
