//! What becomes of connections of clients on other machines: from the first packet to the last.

use proxymatic_common::{
    BackendState, CtEntry, CtEntryAtomic, CtFlags, CtProgress, FiveTuple, PROTOCOL_TCP, PROTOCOL_UDP, Reason,
};

use crate::{
    Connections, Notes, Stage,
    outcome::{answered, unanswered},
    packet::{Flags, Header},
    socket::{count_closed, count_opened},
};

/// How often a half notes that it was seen, in nanoseconds: not with each packet.
const SECOND: u64 = 1_000_000_000;
/// How long a backend may leave a SYN unanswered where its service does not say, in milliseconds.
const CONNECT_MS: u64 = 3_000;
/// How much of a connection's beginning may be acknowledged at once: enough for what is sent before the handshake is over,
/// and little enough that an acknowledgement cannot be guessed.
const WINDOW: u32 = 1 << 16;

/// A packet of an open connection. False where it begins a new one that only looks the same.
#[inline(always)]
pub(crate) fn open<T: Connections>(tables: &T, notes: &mut Notes, live: &CtEntryAtomic) -> bool {
    notes.becomes = live.translated;
    notes.half = live.flags;
    let (flags, reply) = (notes.header.flags, live.flags.has(CtFlags::REPLY));
    if flags.matter() {
        if flags.has(Flags::SYN) && !flags.has(Flags::ACK) && !reply {
            if is_past(tables, live) {
                tables.forget(Stage::Open, &notes.key);
                return false;
            }
        } else {
            ends(tables, notes, live);
        }
    }
    let now = tables.about_now();
    if now.wrapping_sub(live.last_seen.get()) > SECOND {
        notes.other = notes.becomes.reversed();
        if notes.key.protocol == PROTOCOL_UDP && !reply && !lasts(tables, live) {
            // Datagrams know no end: those of a backend that leaves go to another, as those of sockets do.
            count_closed(tables, live.backend, live.generation);
            tables.forget(Stage::Open, &notes.key);
            tables.forget(Stage::Open, &notes.other);
            return false;
        }
        live.last_seen.set(now);
        keep(tables, notes, live, now);
    }
    true
}

/// Whether nothing is to be noted of a half but that it was seen, and that was noted just now.
#[inline(always)]
pub(crate) fn is_steady<T: Connections>(tables: &T, live: &CtEntryAtomic) -> bool {
    live.state.get() == 0 && tables.about_now().wrapping_sub(live.last_seen.get()) <= SECOND
}

/// Whether a connection is over, or its backend's id has another owner.
#[inline(always)]
fn is_past<T: Connections>(tables: &T, live: &CtEntryAtomic) -> bool {
    progress(live).has(CtProgress::CLOSED)
        || tables.backend(live.backend).is_none_or(|backend| backend.generation != live.generation)
}

/// Whether the backend is still there and takes traffic.
#[inline(always)]
fn lasts<T: Connections>(tables: &T, live: &CtEntryAtomic) -> bool {
    tables
        .backend(live.backend)
        .is_some_and(|it| it.generation == live.generation && it.state.0 == BackendState::ACTIVE.0)
}

/// Notes a FIN or RST. If that is the end, the connection is out of the counts, once.
#[inline(always)]
fn ends<T: Connections>(tables: &T, notes: &mut Notes, live: &CtEntryAtomic) {
    let mut sent = CtProgress::default();
    if notes.header.flags.has(Flags::FIN) {
        sent = sent.with(CtProgress::FINISHED);
    }
    if notes.header.flags.has(Flags::RST) {
        sent = sent.with(CtProgress::RESET);
    }
    if progress(live).has(sent) {
        return;
    }
    notes.other = notes.becomes.reversed();
    let other = tables.connection(&notes.other);
    // Both ends may send their FIN at the same time, on two processors. Without a lock each would see a connection that the
    // other has not ended yet, and neither would count its end.
    let closes = tables.locked(live.start, || {
        let (own, others) = (progress(live).with(sent), other.map_or(CtProgress::default(), progress));
        let closes = own.closes_with(others) && !own.with(others).has(CtProgress::CLOSED);
        let closed = if closes { CtProgress::CLOSED } else { CtProgress::default() };
        set_progress(live, own.with(closed));
        if let Some(other) = other {
            set_progress(other, others.with(closed));
        }
        closes
    });
    if closes == Some(true) {
        count_closed(tables, live.backend, live.generation);
    }
}

/// The other half is looked at, so that it is not evicted, and made anew where it was.
#[inline(always)]
fn keep<T: Connections>(tables: &T, notes: &mut Notes, live: &CtEntryAtomic, now: u64) {
    let Notes { key, other, made, .. } = notes;
    if tables.connection(other).is_some() {
        return;
    }
    copy(made, live, now);
    made.translated = key.reversed();
    made.flags = CtFlags(live.flags.0 ^ CtFlags::REPLY.0);
    tables.put(Stage::Open, other, made, true);
}

/// A packet of a connection that is not open yet. False where another backend has to be found.
#[inline(always)]
pub(crate) fn early<T: Connections>(tables: &T, notes: &mut Notes, live: &CtEntryAtomic) -> bool {
    notes.becomes = live.translated;
    notes.half = live.flags;
    notes.other = live.translated.reversed();
    let (flags, reply) = (notes.header.flags, live.flags.has(CtFlags::REPLY));
    if notes.key.protocol != PROTOCOL_TCP {
        if reply {
            opens(tables, notes, live);
        } else {
            // Some are never answered, and need not be: they go on to the same backend.
            live.last_seen.set(tables.about_now());
        }
    } else if flags.has(Flags::RST) {
        if reply {
            let client = tables.handshake(&notes.other);
            let answered = client.filter(|it| progress(it).has(CtProgress::ANSWERED));
            // What comes late of a connection that had the port before ends nothing: the client will not believe it either.
            let header = &notes.header;
            if !answered.map_or(acknowledges(header, live), |it| follows(header.sequence, it)) {
                return true;
            }
            if answered.is_none() {
                fails(tables, live, &notes.other);
            }
        } else if !progress(live).has(CtProgress::ANSWERED) {
            // It was about what came late, and the client goes on waiting.
            return true;
        }
        forget(tables, notes);
    } else if reply && flags.has(Flags::SYN) {
        // Any other is about a connection that had the port before.
        if acknowledges(&notes.header, live)
            && let Some(client) = tables.handshake(&notes.other)
        {
            answers(tables, &notes.header, client);
        }
    } else if !reply && flags.has(Flags::SYN) {
        let age = tables.now().wrapping_sub(live.start);
        if !progress(live).has(CtProgress::ANSWERED) && age > patience(tables, live) {
            fails(tables, live, &notes.key);
            forget(tables, notes);
            return false;
        }
        // A client that gives up and dials again from the same port begins with another number.
        if let Some(replies) = tables.handshake(&notes.other) {
            replies.state.set(u64::from(notes.header.sequence) << 32);
        }
    } else if !reply && progress(live).has(CtProgress::ANSWERED) && acknowledges(&notes.header, live) {
        opens(tables, notes, live);
    }
    true
}

/// How long a SYN may stay unanswered, in nanoseconds.
#[inline(always)]
fn patience<T: Connections>(tables: &T, live: &CtEntryAtomic) -> u64 {
    let wanted = tables.service(live.service).map_or(0, |service| service.connect_ms);
    (if wanted == 0 { CONNECT_MS } else { u64::from(wanted) }) * 1_000_000
}

/// The backend has answered a SYN: what a client must acknowledge is noted, so that nobody opens a connection that has not
/// seen the answer.
#[inline(always)]
fn answers<T: Connections>(tables: &T, header: &Header, client: &CtEntryAtomic) {
    let first = !progress(client).has(CtProgress::ANSWERED);
    client.state.set(u64::from(header.sequence) << 32 | u64::from(CtProgress::ANSWERED.0));
    if first {
        let rtt = tables.now().saturating_sub(client.start) / 1_000;
        answered(tables, client.backend, client.generation, rtt as u32);
    }
}

/// Whether a segment acknowledges the SYN that a half notes.
#[inline(always)]
fn acknowledges(header: &Header, half: &CtEntryAtomic) -> bool {
    header.flags.has(Flags::ACK) && follows(header.acknowledged, half)
}

/// Whether a sequence number comes after the SYN that a half of a connection notes: that of the backend in the client's
/// half, once it has answered, that of the client in the other.
#[inline(always)]
fn follows(number: u32, half: &CtEntryAtomic) -> bool {
    let first = ((half.state.get() >> 32) as u32).wrapping_add(1);
    number.wrapping_sub(first) < WINDOW
}

/// The connection is open from now on: both halves go where a flood cannot evict them. `live` is either half.
#[inline(always)]
fn opens<T: Connections>(tables: &T, notes: &mut Notes, live: &CtEntryAtomic) {
    let Notes { key, other, made, .. } = notes;
    copy(made, live, tables.about_now());
    // Whoever makes this one counts: two packets may get here at once.
    if !tables.put(Stage::Open, key, made, true) {
        return;
    }
    made.translated = key.reversed();
    made.flags = CtFlags(made.flags.0 ^ CtFlags::REPLY.0);
    tables.put(Stage::Open, other, made, false);
    count_opened(tables, made.service, made.backend);
    forget(tables, notes);
}

/// The backend refused, or did not answer for long. `client` is the key of the client's half.
#[inline(always)]
fn fails<T: Connections>(tables: &T, live: &CtEntryAtomic, client: &FiveTuple) {
    let age = tables.now().saturating_sub(live.start);
    unanswered(tables, live.backend, live.generation, (client.destination, client.destination_port), age);
}

#[inline(always)]
fn forget<T: Connections>(tables: &T, notes: &Notes) {
    tables.forget(Stage::Handshake, &notes.key);
    tables.forget(Stage::Handshake, &notes.other);
}

/// A half as the maps take it, seen now.
#[inline(always)]
fn copy(made: &mut CtEntry, live: &CtEntryAtomic, now: u64) {
    made.translated = live.translated;
    made.start = live.start;
    made.last_seen = now;
    made.state = 0;
    made.service = live.service;
    made.backend = live.backend;
    made.generation = live.generation;
    made.flags = live.flags;
}

#[inline(always)]
pub(crate) fn progress(live: &CtEntryAtomic) -> CtProgress {
    CtProgress(live.state.get() as u32)
}

#[inline(always)]
fn set_progress(live: &CtEntryAtomic, progress: CtProgress) {
    live.state.set(u64::from(progress.0));
}

/// Whether a half that is in the way may be: its connection is over, and counts no longer.
#[inline(always)]
pub(crate) fn is_over(live: &CtEntryAtomic) -> bool {
    progress(live).has(CtProgress::CLOSED)
}

/// Counts under the name of where a connection goes.
#[inline(always)]
pub(crate) const fn begun(half: CtFlags) -> Reason {
    if half.has(CtFlags::LOCAL_BACKEND) { Reason::ForwardedLocal } else { Reason::Forwarded }
}
