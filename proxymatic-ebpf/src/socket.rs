//! What a socket remembers: for its peer name, for the senders of its datagrams, and for the counts.

use proxymatic_common::{Address, BackendState, Port, RING, Reason, Socket, SocketFlags, Translation};

use crate::{Choice, Flow, Tables};

/// Notes what connect(2) was turned into. A second connect on one socket ends the first.
#[inline(always)]
pub fn connected<T: Tables>(tables: &T, socket: &mut Socket, flow: &Flow, choice: &Choice) {
    socket.start = tables.about_now();
    socket.newest = 0;
    note(tables, &mut socket.ring[0], flow, choice);
}

/// Notes where a datagram was sent that was not the repetition of another. The oldest such one is forgotten.
#[inline(always)]
pub fn sent<T: Tables>(tables: &T, socket: &mut Socket, flow: &Flow, choice: &Choice) {
    socket.start = tables.about_now();
    socket.flags = socket.flags.with(SocketFlags::SENT);
    let newest = socket.newest as usize;
    let next = if newest >= RING - 1 { 1 } else { newest + 1 };
    socket.newest = next as u32;
    if let Some(made) = entry(&mut socket.ring, next) {
        note(tables, made, flow, choice);
    }
}

/// One of the ring, by an index that LLVM knows nothing about, so that it keeps the one comparison with the bound. A test
/// for zero belongs before this, on the number itself: LLVM makes one comparison of two, on a copy, and then verifiers up
/// to 6.19 do not see the bound of what is used. A pointer at once, so that the index need not be kept.
#[inline(always)]
fn entry(ring: &mut [Translation; RING], index: usize) -> Option<&mut Translation> {
    let index = core::hint::black_box(index);
    if index < RING { Some(core::hint::black_box(&mut ring[index])) } else { None }
}

#[inline(always)]
fn note<T: Tables>(tables: &T, made: &mut Translation, flow: &Flow, choice: &Choice) {
    close(tables, made);
    made.destination = flow.address;
    made.backend_address = choice.address;
    made.destination_port = flow.port;
    made.backend_port = choice.port;
    made.backend = choice.backend;
    made.generation = choice.generation;
    if count_opened(tables, choice.service, choice.backend) {
        made.counted = 1;
    }
}

/// A connection is open, of a backend and of its service. False where there is nothing to count it in.
#[inline(always)]
pub(crate) fn count_opened<T: Tables>(tables: &T, service: u32, backend: u32) -> bool {
    let Some(load) = tables.load(backend) else { return false };
    tables.add(&load.opened);
    if let Some(service) = tables.service_load(service) {
        tables.add(&service.opened);
    }
    true
}

/// Where a datagram goes that was dialled before on this socket, while its backend takes traffic: one socket keeps one
/// backend, and pays for the choice once.
#[inline(always)]
pub fn repeat<T: Tables>(tables: &T, socket: &mut Socket, flow: &Flow) -> Option<(Address, Port)> {
    if socket.newest > 0
        && let Some(made) = entry(&mut socket.ring, socket.newest as usize)
        && is(made, flow)
    {
        return lasts(tables, made);
    }
    for at in 1..RING {
        let made = &socket.ring[at];
        if is(made, flow) {
            let to = lasts(tables, made);
            if to.is_some() {
                socket.newest = at as u32;
            }
            return to;
        }
    }
    None
}

#[inline(always)]
fn is(made: &Translation, flow: &Flow) -> bool {
    made.destination_port.word() == flow.port.word()
        && made.counted != 0
        && made.destination.eq_branchless(&flow.address)
}

#[inline(always)]
fn lasts<T: Tables>(tables: &T, made: &Translation) -> Option<(Address, Port)> {
    let backend = tables.backend(made.backend)?;
    if backend.generation != made.generation || backend.state.0 != BackendState::ACTIVE.0 {
        return None;
    }
    Some((made.backend_address, made.backend_port))
}

/// The program closes the socket: all that it translated is out of the counts, once.
#[inline(always)]
pub fn release<T: Tables>(tables: &T, socket: &mut Socket) {
    socket.flags = socket.flags.with(SocketFlags::CLOSING);
    let [connected, sent @ ..] = &mut socket.ring;
    close(tables, connected);
    // Most sockets only ever connect: the rest of the ring is seven cache lines that need not be looked at.
    if socket.flags.has(SocketFlags::SENT) {
        for made in sent {
            close(tables, made);
        }
    }
}

/// One translation is open no longer: out of the counts, once.
#[inline(always)]
pub(crate) fn close<T: Tables>(tables: &T, made: &mut Translation) {
    if made.counted == 0 {
        return;
    }
    made.counted = 0;
    count_closed(tables, made.backend, made.generation);
}

/// A connection that was counted is open no longer.
#[inline(always)]
pub(crate) fn count_closed<T: Tables>(tables: &T, id: u32, generation: u32) {
    let Some(backend) = tables.backend(id) else { return };
    if backend.generation != generation {
        return tables.count(Reason::StaleClose);
    }
    if let Some(load) = tables.load(id) {
        tables.add(&load.closed);
    }
    if let Some(service) = tables.service_load(backend.service) {
        tables.add(&service.closed);
    }
}

/// What the program dialled, where the peer is one we chose for this socket; of two services that share a backend, the
/// one dialled last. A socket that has since been connected elsewhere has another peer, and keeps it.
#[inline(always)]
pub fn reverse(socket: &Socket, peer: &Address, port: Port) -> Option<(Address, Port)> {
    // A zero port is the zeroed state of a translation that was not made: nobody connects to it.
    if port.word() == 0 {
        return None;
    }
    for back in 0..RING as u32 {
        let at = socket.newest.wrapping_sub(back) as usize & (RING - 1);
        let made = socket.ring.get(at)?;
        if made.backend_port.word() == port.word() && made.backend_address.eq_branchless(peer) {
            return Some((made.destination, made.destination_port));
        }
    }
    None
}

#[cfg(test)]
mod tests;
