//! Passive health checks: the results of connections, and the ejection of backends that fail.

use proxymatic_common::{
    Address, BackendStats, Event, EventKind, PROTOCOL_TCP, Port, RTT_STEPS_US, Reason, SlotRange, Socket, SocketFlags,
};

use crate::{data_plane::DataPlane, events, hash::scale_to, packed::EjectionShares, socket_state::close};

/// One second, in nanoseconds.
const SECOND: u64 = 1_000_000_000;
/// The longest ejection, in nanoseconds.
const MAX_EJECTION: u64 = 30 * SECOND;
/// How many slots of a service are checked for ejected backends. The cap is exact for a service with at most so many
/// slots; for others it is checked on a sample.
const SAMPLE: u32 = EjectionShares::MOST;

/// Records that a socket's connection was established. `rtt_us` is its round trip time; 0 if unknown.
#[inline(always)]
pub fn on_established<T: DataPlane>(tables: &T, socket: &Socket, rtt_us: u32) {
    let translation = &socket.ring[0];
    if translation.counted != 0 {
        record_success(tables, translation.backend, translation.generation, rtt_us);
    }
}

/// Records that a backend answered a connection: ends its ejection and measures its round trip time.
#[inline(always)]
pub(crate) fn record_success<T: DataPlane>(tables: &T, id: u32, generation: u32, rtt_us: u32) {
    let (Some(backend), Some(stats)) = (tables.backend(id), tables.backend_stats(id)) else { return };
    if backend.generation != generation {
        return;
    }
    tables.inc(&stats.established);
    if stats.consecutive_failures.get() != 0 {
        stats.consecutive_failures.set(0);
        stats.ejected_until.set(0);
    }
    if rtt_us != 0 {
        update_ewma(tables, stats, u64::from(rtt_us));
        observe_histogram(tables, stats, rtt_us);
    }
}

/// Counts a round trip time in the histogram. The kernel runs this hook once per connection, when the backend's answer
/// arrives, so the program's system call takes no longer.
#[inline(always)]
fn observe_histogram<T: DataPlane>(tables: &T, stats: &BackendStats, rtt_us: u32) {
    let mut nth = 0;
    for step in RTT_STEPS_US {
        nth += usize::from(rtt_us > step);
    }
    if let Some(cell) = stats.rtts.get(nth) {
        tables.inc(cell);
    }
    tables.add(&stats.rtt_sum_us, u64::from(rtt_us));
}

/// Updates the peak-sensitive moving average: a rise counts at once, a fall counts more the older the last sample is.
#[inline(always)]
fn update_ewma<T: DataPlane>(tables: &T, stats: &BackendStats, sample: u64) {
    let (now, before) = (tables.now(), stats.rtt_us.get());
    let after = if sample >= before {
        sample
    } else {
        // A fall counts half after ten seconds, and an eighth at least.
        let age = now.saturating_sub(stats.rtt_at.get()) >> 10;
        let half = (10 * SECOND) >> 10;
        let fall = before - sample;
        before - (fall * age / (age + half)).max(fall / 8)
    };
    stats.rtt_us.set(after);
    stats.rtt_at.set(now);
}

/// Records that a connection ended before the backend answered: refused, or timed out. If the program closed the socket
/// within a second, the backend is not to blame.
#[inline(always)]
pub fn on_connect_failed<T: DataPlane>(tables: &T, socket: &mut Socket) {
    // The program may keep the socket, but the connection is no longer open.
    close(tables, &mut socket.ring[0]);
    let translation = &socket.ring[0];
    let age = tables.now().saturating_sub(socket.start);
    if socket.flags.has(SocketFlags::CLOSING) && age < SECOND {
        return tables.count(Reason::Abandoned);
    }
    if translation.backend_port.word() != 0 {
        record_failure(
            tables,
            translation.backend,
            translation.generation,
            (translation.destination, translation.destination_port),
            age,
        );
    }
}

/// Records that a backend refused a connection or did not answer it. `age` is in nanoseconds.
#[inline(always)]
pub(crate) fn record_failure<T: DataPlane>(
    tables: &T,
    id: u32,
    generation: u32,
    destination: (Address, Port),
    age: u64,
) {
    let (Some(backend), Some(stats)) = (tables.backend(id), tables.backend_stats(id)) else { return };
    if backend.generation != generation {
        return;
    }
    tables.count(Reason::Failed);
    tables.inc(&stats.failed);
    let ejected = tables.eject(backend.service, id);
    events::emit(
        tables,
        Event {
            kind: EventKind::FAILED,
            reason: Reason::Failed as u32,
            service: backend.service,
            backend: id,
            generation,
            age_us: (age / 1_000) as u32,
            ejected_ms: (ejected / 1_000_000) as u32,
            destination: destination.0,
            destination_port: destination.1,
            protocol: PROTOCOL_TCP,
            ..Event::EMPTY
        },
    );
}

/// Ejects a backend for 1 s, doubled for each consecutive failure, at most 30 s. A jitter of up to an eighth is
/// subtracted, so that hosts do not return at the same time. Returns the ejection time in nanoseconds; 0 if it is not
/// ejected.
#[inline(always)]
pub fn eject<T: DataPlane>(tables: &T, service: u32, id: u32) -> u64 {
    let Some(stats) = tables.backend_stats(id) else { return 0 };
    let now = tables.now();
    let until = stats.ejected_until.get();
    if until > now {
        // This connection began before the ejection: it is the same failure.
        return until - now;
    }
    if !may_eject(tables, tables.slot_range(service), id, now) {
        tables.count(Reason::EjectionCapped);
        return 0;
    }
    let before = stats.consecutive_failures.get();
    let doubled = if before >= 5 { MAX_EJECTION } else { SECOND << before };
    let time = doubled - ((u64::from(tables.random()) * (doubled >> 3)) >> 32);
    stats.consecutive_failures.set(before + 1);
    stats.ejected_until.set(now + time);
    tables.count(Reason::Ejected);
    time
}

/// Returns whether at most half of a service's backends would be ejected with this one.
#[inline(always)]
fn may_eject<T: DataPlane>(tables: &T, head: SlotRange, id: u32, now: u64) -> bool {
    let length = head.length();
    let start = if length > SAMPLE { scale_to(tables.random(), length) } else { 0 };
    let mut shares = EjectionShares::NONE;
    for n in 0..SAMPLE {
        if n >= length {
            break;
        }
        shares = shares.plus(tables.slot_share(head.base() + (start + n) % length, id, now));
    }
    shares.within_cap()
}

#[cfg(test)]
mod tests;
