//! The translations that a socket keeps: for getpeername, for the senders of datagrams, and for the counters.

use proxymatic_common::{
    Address, BackendState, HookFlags, Port, RING, Reason, ServiceStats, Socket, SocketFlags, Translation,
};

use crate::{
    data_plane::{Environment, Tables},
    types::{CachedBackend, Choice, Flow},
};

/// Records the translation of a connect(2). A second connect on the socket replaces the first.
#[inline(always)]
pub fn on_connect<T: Tables + Environment>(tables: &T, socket: &mut Socket, flow: &Flow, choice: &Choice) {
    socket.start = tables.coarse_now();
    socket.newest = 0;
    record(tables, &mut socket.ring[0], flow, choice);
}

/// Records the translation of a datagram that [`cached_udp_backend`] did not know. Replaces the oldest such
/// translation.
#[inline(always)]
pub fn on_udp_send<T: Tables + Environment>(tables: &T, socket: &mut Socket, flow: &Flow, choice: &Choice) {
    socket.start = tables.coarse_now();
    socket.flags = socket.flags.with(SocketFlags::SENT);
    let newest = socket.newest as usize;
    let next = if newest >= RING - 1 { 1 } else { newest + 1 };
    socket.newest = next as u32;
    if let Some(translation) = entry(&mut socket.ring, next) {
        record(tables, translation, flow, choice);
    }
}

/// Returns a translation of the ring. The index is hidden from LLVM, so that LLVM keeps the one comparison with the
/// bound. The caller must test for zero before, on the number itself: LLVM merges two comparisons into one on a copy,
/// and verifiers up to 6.19 then miss the bound of the original. The function returns a pointer, so that the index need
/// not be kept.
#[inline(always)]
fn entry(ring: &mut [Translation; RING], index: usize) -> Option<&mut Translation> {
    let index = core::hint::black_box(index);
    if index < RING { Some(core::hint::black_box(&mut ring[index])) } else { None }
}

#[inline(always)]
fn record<T: Tables>(tables: &T, translation: &mut Translation, flow: &Flow, choice: &Choice) {
    close(tables, translation);
    translation.destination = flow.address;
    translation.backend_address = choice.address;
    translation.destination_port = flow.port;
    translation.backend_port = choice.port;
    translation.backend = choice.backend;
    translation.generation = choice.generation;
    if count_opened(tables, choice.service, choice.backend) {
        translation.counted = 1;
    }
}

/// Counts an open connection of a backend and its service. Returns false if the backend has no counters.
#[inline(always)]
pub(crate) fn count_opened<T: Tables>(tables: &T, service: u32, backend: u32) -> bool {
    let Some(stats) = tables.backend_stats(backend) else { return false };
    tables.inc(&stats.opened);
    if let Some(service) = tables.service_stats(service) {
        tables.inc(&service.opened);
    }
    true
}

/// Returns the backend of an earlier datagram to the same destination, while that backend is active. So a socket keeps
/// its backend, and selects it once.
#[inline(always)]
pub fn cached_udp_backend<T: Tables>(tables: &T, socket: &mut Socket, flow: &Flow) -> Option<CachedBackend> {
    if socket.newest > 0
        && let Some(translation) = entry(&mut socket.ring, socket.newest as usize)
        && is_translation_of(translation, flow)
    {
        return backend_active(tables, translation);
    }
    for at in 1..RING {
        let translation = &socket.ring[at];
        if is_translation_of(translation, flow) {
            let to = backend_active(tables, translation);
            if to.is_some() {
                socket.newest = at as u32;
            }
            return to;
        }
    }
    None
}

#[inline(always)]
fn is_translation_of(translation: &Translation, flow: &Flow) -> bool {
    translation.destination_port.word() == flow.port.word()
        && translation.counted != 0
        && translation.destination.eq_branchless(&flow.address)
}

#[inline(always)]
fn backend_active<T: Tables>(tables: &T, translation: &Translation) -> Option<CachedBackend> {
    let backend = tables.backend(translation.backend)?;
    if backend.generation != translation.generation || backend.state.0 != BackendState::ACTIVE.0 {
        return None;
    }
    let checks = tables.config().is_some_and(|config| config.hook_flags.has(HookFlags::LISTENERS));
    let may_have_listener =
        checks && tables.service_stats(backend.service).is_some_and(ServiceStats::may_have_listener);
    Some(CachedBackend { address: translation.backend_address, port: translation.backend_port, may_have_listener })
}

/// Counts the connections of a socket as closed when the program closes it.
#[inline(always)]
pub fn on_release<T: Tables>(tables: &T, socket: &mut Socket) {
    socket.flags = socket.flags.with(SocketFlags::CLOSING);
    let [connected, sent @ ..] = &mut socket.ring;
    close(tables, connected);
    // Most sockets only connect, so the other seven cache lines of the ring need not be read.
    if socket.flags.has(SocketFlags::SENT) {
        for translation in sent {
            close(tables, translation);
        }
    }
}

/// Counts the connection of a translation as closed, once.
#[inline(always)]
pub(crate) fn close<T: Tables>(tables: &T, translation: &mut Translation) {
    if translation.counted == 0 {
        return;
    }
    translation.counted = 0;
    count_closed(tables, translation.backend, translation.generation);
}

/// Counts a connection that was counted as open as closed.
#[inline(always)]
pub(crate) fn count_closed<T: Tables>(tables: &T, id: u32, generation: u32) {
    let Some(backend) = tables.backend(id) else { return };
    if backend.generation != generation {
        return tables.count(Reason::StaleClose);
    }
    if let Some(stats) = tables.backend_stats(id) {
        tables.inc(&stats.closed);
    }
    if let Some(service) = tables.service_stats(backend.service) {
        tables.inc(&service.closed);
    }
}

/// Returns the destination that the program connected to, if the peer is a backend that was selected for this socket.
/// If two services share the backend, returns the latest destination. A socket that was connected elsewhere since has
/// another peer.
#[inline(always)]
pub fn original_destination(socket: &Socket, peer: &Address, port: Port) -> Option<(Address, Port)> {
    // A translation with port zero is unused: no program can connect to port zero.
    if port.word() == 0 {
        return None;
    }
    for back in 0..RING as u32 {
        let at = socket.newest.wrapping_sub(back) as usize & (RING - 1);
        let translation = socket.ring.get(at)?;
        if translation.backend_port.word() == port.word() && translation.backend_address.eq_branchless(peer) {
            return Some((translation.destination, translation.destination_port));
        }
    }
    None
}

#[cfg(test)]
mod tests;
