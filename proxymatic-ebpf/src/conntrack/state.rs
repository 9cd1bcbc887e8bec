//! The state of half-open and established connections, and how packets change it.

use proxymatic_common::{
    BackendState, CtEntry, CtEntryAtomic, CtFlags, CtProgress, FiveTuple, PROTOCOL_TCP, PROTOCOL_UDP, Reason,
};

use super::EntryMatch;
use crate::{
    data_plane::Conntrack,
    outlier::{record_failure, record_success},
    packet::{Flags, L4Header},
    packet_ctx::{CtTable, PacketCtx},
    socket_state::{count_closed, count_opened},
};

/// How often `last_seen` is written, in nanoseconds. A write for each packet would be too expensive.
const SECOND: u64 = 1_000_000_000;
/// How long a backend may leave a SYN unanswered if its service sets no timeout, in milliseconds.
const CONNECT_MS: u64 = 3_000;
/// How far an acknowledgement may be beyond the SYN. Large enough for data sent before the handshake completes, small
/// enough that nobody can guess an acknowledgement.
const WINDOW: u32 = 1 << 16;

/// Handles a packet whose tuple is that of an established connection.
#[inline(always)]
pub(crate) fn on_packet_established<T: Conntrack>(
    tables: &T,
    ctx: &mut PacketCtx,
    entry: &CtEntryAtomic,
) -> EntryMatch {
    ctx.translated = entry.translated;
    ctx.flags = entry.flags;
    let (tcp_flags, reply) = (ctx.header.flags, entry.flags.has(CtFlags::REPLY));
    if tcp_flags.changes_state() {
        if tcp_flags.has(Flags::SYN) && !tcp_flags.has(Flags::ACK) && !reply {
            if is_stale(tables, entry) {
                tables.remove(CtTable::Established, &ctx.key);
                return EntryMatch::Stale;
            }
        } else {
            on_fin_or_rst(tables, ctx, entry);
        }
    }
    let now = tables.coarse_now();
    if now.wrapping_sub(entry.last_seen.get()) > SECOND {
        ctx.reverse_key = ctx.translated.reversed();
        if ctx.key.protocol == PROTOCOL_UDP && !reply && !backend_accepts(tables, entry) {
            // UDP has no FIN: datagrams go to another backend once theirs drains, as datagrams of local sockets do.
            count_closed(tables, entry.backend, entry.generation);
            tables.remove(CtTable::Established, &ctx.key);
            tables.remove(CtTable::Established, &ctx.reverse_key);
            return EntryMatch::Stale;
        }
        entry.last_seen.set(now);
        refresh_reverse_entry(tables, ctx, entry, now);
    }
    EntryMatch::Belongs
}

/// Returns whether the fast path may forward a packet of this entry: no progress since the connection opened, and
/// `last_seen` was written within the last second.
#[inline(always)]
pub(crate) fn fast_path_ok<T: Conntrack>(tables: &T, entry: &CtEntryAtomic) -> bool {
    entry.state.get() == 0 && tables.coarse_now().wrapping_sub(entry.last_seen.get()) <= SECOND
}

/// Returns whether a connection is closed, or its backend's id has a new owner.
#[inline(always)]
fn is_stale<T: Conntrack>(tables: &T, entry: &CtEntryAtomic) -> bool {
    progress(entry).has(CtProgress::CLOSED)
        || tables.backend(entry.backend).is_none_or(|backend| backend.generation != entry.generation)
}

/// Returns whether the backend still exists and is active.
#[inline(always)]
fn backend_accepts<T: Conntrack>(tables: &T, entry: &CtEntryAtomic) -> bool {
    tables
        .backend(entry.backend)
        .is_some_and(|it| it.generation == entry.generation && it.state.0 == BackendState::ACTIVE.0)
}

/// Records a FIN or RST. If the connection is then closed, counts that once.
#[inline(always)]
fn on_fin_or_rst<T: Conntrack>(tables: &T, ctx: &mut PacketCtx, entry: &CtEntryAtomic) {
    let mut received = CtProgress::default();
    if ctx.header.flags.has(Flags::FIN) {
        received = received.with(CtProgress::FINISHED);
    }
    if ctx.header.flags.has(Flags::RST) {
        received = received.with(CtProgress::RESET);
    }
    if progress(entry).has(received) {
        return;
    }
    ctx.reverse_key = ctx.translated.reversed();
    let reverse = tables.established_entry(&ctx.reverse_key);
    // Both ends may send their FIN at the same time, on two CPUs. Without a lock each CPU would see that the other end
    // has not finished, and neither would count the close.
    let closes = tables.with_lock(entry.start, || {
        let (own, others) = (progress(entry).with(received), reverse.map_or(CtProgress::default(), progress));
        let closes = own.closes_with(others) && !own.with(others).has(CtProgress::CLOSED);
        let closed = if closes { CtProgress::CLOSED } else { CtProgress::default() };
        set_progress(entry, own.with(closed));
        if let Some(reverse) = reverse {
            set_progress(reverse, others.with(closed));
        }
        closes
    });
    if closes == Some(true) {
        count_closed(tables, entry.backend, entry.generation);
    }
}

/// Looks up the entry of the other direction, so that the LRU map keeps it, and inserts it anew if it was evicted.
#[inline(always)]
fn refresh_reverse_entry<T: Conntrack>(tables: &T, ctx: &mut PacketCtx, entry: &CtEntryAtomic, now: u64) {
    let PacketCtx { key, reverse_key, new_entry, .. } = ctx;
    if tables.established_entry(reverse_key).is_some() {
        return;
    }
    snapshot_entry(new_entry, entry, now);
    new_entry.translated = key.reversed();
    new_entry.flags = CtFlags(entry.flags.0 ^ CtFlags::REPLY.0);
    tables.insert(CtTable::Established, reverse_key, new_entry, true);
}

/// Handles a packet whose tuple is that of a half-open connection.
#[inline(always)]
pub(crate) fn on_packet_half_open<T: Conntrack>(tables: &T, ctx: &mut PacketCtx, entry: &CtEntryAtomic) -> EntryMatch {
    ctx.translated = entry.translated;
    ctx.flags = entry.flags;
    ctx.reverse_key = entry.translated.reversed();
    let (tcp_flags, reply) = (ctx.header.flags, entry.flags.has(CtFlags::REPLY));
    if ctx.key.protocol != PROTOCOL_TCP {
        if reply {
            promote_to_established(tables, ctx, entry);
        } else {
            // Some datagrams need no reply: they stay half-open and go to the same backend.
            entry.last_seen.set(tables.coarse_now());
        }
    } else if tcp_flags.has(Flags::RST) {
        if reply {
            let client = tables.half_open(&ctx.reverse_key);
            let answered = client.filter(|it| progress(it).has(CtProgress::ANSWERED));
            // A late RST of an earlier connection on this port ends nothing: the client ignores it too.
            let header = &ctx.header;
            if !answered.map_or(acknowledges(header, entry), |it| follows(header.sequence, it)) {
                return EntryMatch::Belongs;
            }
            if answered.is_none() {
                on_no_answer(tables, entry, &ctx.reverse_key);
            }
        } else if !progress(entry).has(CtProgress::ANSWERED) {
            // The client's RST answers a late packet, and the client still waits for its SYN-ACK.
            return EntryMatch::Belongs;
        }
        remove_half_open(tables, ctx);
    } else if reply && tcp_flags.has(Flags::SYN) {
        // A SYN-ACK with another acknowledgement is of an earlier connection on this port.
        if acknowledges(&ctx.header, entry)
            && let Some(client) = tables.half_open(&ctx.reverse_key)
        {
            on_syn_ack(tables, &ctx.header, client);
        }
    } else if !reply && tcp_flags.has(Flags::SYN) {
        let age = tables.now().wrapping_sub(entry.start);
        if !progress(entry).has(CtProgress::ANSWERED) && age > syn_timeout(tables, entry) {
            on_no_answer(tables, entry, &ctx.key);
            remove_half_open(tables, ctx);
            return EntryMatch::Stale;
        }
        // A client that gives up and connects again from the same port has another initial sequence number.
        if let Some(replies) = tables.half_open(&ctx.reverse_key) {
            replies.state.set(u64::from(ctx.header.sequence) << 32);
        }
    } else if !reply && progress(entry).has(CtProgress::ANSWERED) && acknowledges(&ctx.header, entry) {
        promote_to_established(tables, ctx, entry);
    }
    EntryMatch::Belongs
}

/// Returns how long a SYN may stay unanswered, in nanoseconds.
#[inline(always)]
fn syn_timeout<T: Conntrack>(tables: &T, entry: &CtEntryAtomic) -> u64 {
    let configured = tables.service(entry.service).map_or(0, |service| service.connect_ms);
    (if configured == 0 { CONNECT_MS } else { u64::from(configured) }) * 1_000_000
}

/// Records the backend's sequence number, which the client must acknowledge: only a client that received the SYN-ACK
/// can open the connection.
#[inline(always)]
fn on_syn_ack<T: Conntrack>(tables: &T, header: &L4Header, client: &CtEntryAtomic) {
    let first = !progress(client).has(CtProgress::ANSWERED);
    client.state.set(u64::from(header.sequence) << 32 | u64::from(CtProgress::ANSWERED.0));
    if first {
        let rtt = tables.now().saturating_sub(client.start) / 1_000;
        record_success(tables, client.backend, client.generation, rtt as u32);
    }
}

/// Returns whether a segment acknowledges the SYN that an entry has recorded.
#[inline(always)]
fn acknowledges(header: &L4Header, entry: &CtEntryAtomic) -> bool {
    header.flags.has(Flags::ACK) && follows(header.acknowledged, entry)
}

/// Returns whether a sequence number follows the SYN that an entry has recorded: the backend's SYN-ACK in the client's
/// entry, the client's SYN in the reply entry.
#[inline(always)]
fn follows(number: u32, entry: &CtEntryAtomic) -> bool {
    let first = ((entry.state.get() >> 32) as u32).wrapping_add(1);
    number.wrapping_sub(first) < WINDOW
}

/// Moves both entries to the table of established connections, where a flood cannot evict them. `entry` is either one.
#[inline(always)]
fn promote_to_established<T: Conntrack>(tables: &T, ctx: &mut PacketCtx, entry: &CtEntryAtomic) {
    let PacketCtx { key, reverse_key, new_entry, .. } = ctx;
    snapshot_entry(new_entry, entry, tables.coarse_now());
    // Two CPUs may get here at once: the one whose insert succeeds counts the connection.
    if !tables.insert(CtTable::Established, key, new_entry, true) {
        return;
    }
    new_entry.translated = key.reversed();
    new_entry.flags = CtFlags(new_entry.flags.0 ^ CtFlags::REPLY.0);
    tables.insert(CtTable::Established, reverse_key, new_entry, false);
    count_opened(tables, new_entry.service, new_entry.backend);
    remove_half_open(tables, ctx);
}

/// Records that the backend refused the connection, or did not answer in time. `client` is the key of the client's
/// entry.
#[inline(always)]
fn on_no_answer<T: Conntrack>(tables: &T, entry: &CtEntryAtomic, client: &FiveTuple) {
    let age = tables.now().saturating_sub(entry.start);
    record_failure(tables, entry.backend, entry.generation, (client.destination, client.destination_port), age);
}

#[inline(always)]
fn remove_half_open<T: Conntrack>(tables: &T, ctx: &PacketCtx) {
    tables.remove(CtTable::HalfOpen, &ctx.key);
    tables.remove(CtTable::HalfOpen, &ctx.reverse_key);
}

/// Copies an entry to the plain words that the maps take, with `now` as the time of its last packet.
#[inline(always)]
fn snapshot_entry(new_entry: &mut CtEntry, entry: &CtEntryAtomic, now: u64) {
    new_entry.translated = entry.translated;
    new_entry.start = entry.start;
    new_entry.last_seen = now;
    new_entry.state = 0;
    new_entry.service = entry.service;
    new_entry.backend = entry.backend;
    new_entry.generation = entry.generation;
    new_entry.flags = entry.flags;
}

#[inline(always)]
pub(crate) fn progress(entry: &CtEntryAtomic) -> CtProgress {
    CtProgress(entry.state.get() as u32)
}

#[inline(always)]
fn set_progress(entry: &CtEntryAtomic, progress: CtProgress) {
    entry.state.set(u64::from(progress.0));
}

/// Returns whether a connection is closed and no longer counted, so that a new one may replace it.
#[inline(always)]
pub(crate) fn is_closed(entry: &CtEntryAtomic) -> bool {
    progress(entry).has(CtProgress::CLOSED)
}

/// Returns the reason that is counted for a new connection.
#[inline(always)]
pub(crate) const fn forward_reason(flags: CtFlags) -> Reason {
    if flags.has(CtFlags::LOCAL_BACKEND) { Reason::ForwardedLocal } else { Reason::Forwarded }
}
