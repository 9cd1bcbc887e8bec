//! How connections end up, and what that does to their backends: the ejection of those that fail.

use proxymatic_common::{
    Address, BackendStats, Event, EventKind, PROTOCOL_TCP, Port, RTT_STEPS_US, Reason, SlotRange, Socket, SocketFlags,
};

use crate::{Shares, Tables, select::below, socket::close, tell};

/// One second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;
/// The longest that one failure ejects.
const LONGEST: u64 = 30 * SECOND;
/// How many slots of a service are looked at to see how many of its backends are ejected. Up to so many slots the cap
/// is exact, beyond it is a sample.
const SAMPLE: u32 = Shares::MOST;

/// A backend has answered a connection. `rtt_us` is its round trip time; 0 for not known.
#[inline(always)]
pub fn established<T: Tables>(tables: &T, socket: &Socket, rtt_us: u32) {
    let made = &socket.ring[0];
    if made.counted != 0 {
        answered(tables, made.backend, made.generation, rtt_us);
    }
}

/// The same, of whatever connection.
#[inline(always)]
pub(crate) fn answered<T: Tables>(tables: &T, id: u32, generation: u32, rtt_us: u32) {
    let (Some(backend), Some(load)) = (tables.backend(id), tables.load(id)) else { return };
    if backend.generation != generation {
        return;
    }
    tables.add(&load.established);
    if load.consecutive_failures.get() != 0 {
        load.consecutive_failures.set(0);
        load.ejected_until.set(0);
    }
    if rtt_us != 0 {
        measure(tables, load, u64::from(rtt_us));
        sort(tables, load, rtt_us);
    }
}

/// Counts a round trip time for the histogram. Once for each connection, and not in the program's call: the kernel comes here
/// when the backend's answer arrives.
#[inline(always)]
fn sort<T: Tables>(tables: &T, load: &BackendStats, rtt_us: u32) {
    let mut nth = 0;
    for step in RTT_STEPS_US {
        nth += usize::from(rtt_us > step);
    }
    if let Some(cell) = load.rtts.get(nth) {
        tables.add(cell);
    }
    tables.raise(&load.rtt_sum_us, u64::from(rtt_us));
}

/// Peak exponentially weighted moving average: a rise counts at once, a fall the more the longer the last one is past.
#[inline(always)]
fn measure<T: Tables>(tables: &T, load: &BackendStats, sample: u64) {
    let (now, before) = (tables.now(), load.rtt_us.get());
    let after = if sample >= before {
        sample
    } else {
        // Ten seconds take half of the difference, and each sample an eighth.
        let age = now.saturating_sub(load.rtt_at.get()) >> 10;
        let half = (10 * SECOND) >> 10;
        let fall = before - sample;
        before - (fall * age / (age + half)).max(fall / 8)
    };
    load.rtt_us.set(after);
    load.rtt_at.set(now);
}

/// A connection has ended before the backend answered: refused, or not answered in time. Where the program gave it up
/// within a second that says nothing about the backend.
#[inline(always)]
pub fn failed<T: Tables>(tables: &T, socket: &mut Socket) {
    // A socket that the program keeps although it is not connected is none that is open.
    close(tables, &mut socket.ring[0]);
    let made = &socket.ring[0];
    let age = tables.now().saturating_sub(socket.start);
    if socket.flags.has(SocketFlags::CLOSING) && age < SECOND {
        return tables.count(Reason::Abandoned);
    }
    if made.backend_port.word() != 0 {
        unanswered(tables, made.backend, made.generation, (made.destination, made.destination_port), age);
    }
}

/// A backend refused a connection or did not answer it, of whatever kind. `age` is in nanoseconds.
#[inline(always)]
pub(crate) fn unanswered<T: Tables>(tables: &T, id: u32, generation: u32, dialled: (Address, Port), age: u64) {
    let (Some(backend), Some(load)) = (tables.backend(id), tables.load(id)) else { return };
    if backend.generation != generation {
        return;
    }
    tables.count(Reason::Failed);
    tables.add(&load.failed);
    let ejected = tables.eject(backend.service, id);
    tell::tell(
        tables,
        Event {
            kind: EventKind::FAILED,
            reason: Reason::Failed as u32,
            service: backend.service,
            backend: id,
            generation,
            age_us: (age / 1_000) as u32,
            ejected_ms: (ejected / 1_000_000) as u32,
            destination: dialled.0,
            destination_port: dialled.1,
            protocol: PROTOCOL_TCP,
            ..tell::NOTHING
        },
    );
}

/// Ejects a backend for 1 s, twice as long for each failure in a row, 30 s at most, less a jitter so that hosts do not
/// return together. Gives the nanoseconds; 0 where it is not ejected.
#[inline(always)]
pub fn eject<T: Tables>(tables: &T, service: u32, id: u32) -> u64 {
    let Some(load) = tables.load(id) else { return 0 };
    let now = tables.now();
    let until = load.ejected_until.get();
    if until > now {
        // Connections that were under way when it was ejected: one failure, seen several times.
        return until - now;
    }
    if !may_eject(tables, tables.head(service), id, now) {
        tables.count(Reason::EjectionCapped);
        return 0;
    }
    let before = load.consecutive_failures.get();
    let doubled = if before >= 5 { LONGEST } else { SECOND << before };
    let time = doubled - ((u64::from(tables.random()) * (doubled >> 3)) >> 32);
    load.consecutive_failures.set(before + 1);
    load.ejected_until.set(now + time);
    tables.count(Reason::Ejected);
    time
}

/// Whether at most half of a service's backends would be ejected with this one.
#[inline(always)]
fn may_eject<T: Tables>(tables: &T, head: SlotRange, id: u32, now: u64) -> bool {
    let length = head.length();
    let start = if length > SAMPLE { below(tables.random(), length) } else { 0 };
    let mut shares = Shares::NONE;
    for n in 0..SAMPLE {
        if n >= length {
            break;
        }
        shares = shares.plus(tables.share(head.base() + (start + n) % length, id, now));
    }
    shares.at_most_half()
}

#[cfg(test)]
mod tests;
