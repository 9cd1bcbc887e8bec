//! The first packet of a connection of a client on another machine.

use proxymatic_common::{
    Address, Cell64, Class, Config, CtEntry, CtFlags, Families, FiveTuple, Interface, InterfaceKind, PROTOCOL_TCP,
    Port, Reason, ct_timeouts,
};

use crate::{
    Choice, Connections, Flow, Hook, Notes, Stage, Verdict, Way,
    packet::{Flags, Header},
    remote::Remote,
    route::{mixed, route},
    select::below,
    tell::{refused, sampled},
    track::{begun, is_over},
};

/// How many source ports are tried.
pub(crate) const TRIES: u32 = 16;
/// After how many that are all taken one will do that has rested. Where connections end as fast as they begin nearly all
/// are taken, and each look is one at memory that no cache has.
pub(crate) const FEW: u32 = 4;

/// Finds a backend for a packet that belongs to no connection. False where the packet is left alone: the host itself then
/// says that nobody listens there, if nobody does.
#[inline(always)]
pub fn choose<T: Connections, H: Hook>(tables: &T, hook: &H, notes: &mut Notes) -> bool {
    let Some(config) = tables.config() else { return false };
    let header = &notes.header;
    let network = &header.network;
    if network.protocol == PROTOCOL_TCP && (!header.flags.has(Flags::SYN) || header.flags.has(Flags::ACK)) {
        return false;
    }
    // No such packet comes from another machine, and what is left alone the host drops.
    if network.source.is_loopback() || network.destination.is_loopback() {
        return false;
    }
    match decide(tables, hook, config, header) {
        Ok(choice) => {
            notes.choice = choice;
            true
        }
        Err(reason) => {
            if let Some(reason) = reason {
                tables.count(reason);
            }
            false
        }
    }
}

/// Makes a connection to the backend that was chosen. False where that cannot be: then too the packet is left alone.
#[inline(always)]
pub fn connect<T: Connections, H: Hook>(tables: &T, hook: &mut H, notes: &mut Notes) -> bool {
    let Some(config) = tables.config() else { return false };
    match make(tables, hook, config, notes) {
        Ok(()) => {
            tables.count(notes.choice.reason);
            tables.count(begun(notes.half));
            true
        }
        Err(reason) => {
            tables.count(reason);
            false
        }
    }
}

/// The decision of the sockets' hooks.
///
/// # Errors
/// The reason that has still to be counted why there is none.
#[inline(always)]
fn decide<T: Connections, H: Hook>(
    tables: &T,
    hook: &H,
    config: &Config,
    header: &Header,
) -> Result<Choice, Option<Reason>> {
    let network = &header.network;
    let flow = Flow {
        address: network.destination,
        port: header.destination_port,
        protocol: network.protocol,
        families: Families::of(network.source),
    };
    let (source, source_port) = (network.source, header.source_port);
    let caller = Remote { hook, netns: config.host_netns, source, source_port };
    match route(tables, &caller, &flow) {
        Verdict::Pass => Err(None),
        Verdict::Leave(reason) => Err(Some(reason)),
        Verdict::Refuse(service, reason) => {
            refused(tables, &caller, &flow, service, reason);
            Err(None)
        }
        Verdict::Translate(choice) => {
            sampled(tables, &caller, &flow, &choice);
            Ok(choice)
        }
    }
}

/// Makes the two halves.
///
/// # Errors
/// Why there can be none.
#[inline(always)]
fn make<T: Connections, H: Hook>(tables: &T, hook: &mut H, config: &Config, notes: &mut Notes) -> Result<(), Reason> {
    let Notes { header, key, becomes, other, made, half, choice, by, candidate, .. } = notes;
    becomes.source = key.source;
    becomes.source_port = key.source_port;
    becomes.destination = choice.address;
    becomes.destination_port = choice.port;
    becomes.protocol = key.protocol;
    *half = CtFlags::LOCAL_BACKEND;
    if !choice.local {
        let number = match hook.way(&header.network, becomes) {
            Way::By(number) => {
                *by = number;
                number
            }
            // Its sender is told once the packet is to be sent.
            Way::TooBig { by: number, .. } => number,
            Way::None => return Err(Reason::NoRoute),
        };
        let interface = tables.interface(number).ok_or(Reason::NoReturnPath)?;
        if interface.kind.0 != InterfaceKind::CONTAINERS.0 {
            *half = CtFlags::default();
            becomes.source = own_address(tables, &key.destination, header.network.v4, interface);
            if becomes.source == Address::ZERO {
                return Err(Reason::NoReturnPath);
            }
        }
    }
    *other = becomes.reversed();
    let now = tables.now();
    made.translated = key.reversed();
    made.start = now;
    made.last_seen = now;
    // What an answer must acknowledge, noted where answers are looked for.
    made.state = u64::from(header.sequence) << 32;
    made.service = choice.service;
    made.backend = choice.backend;
    made.generation = choice.generation;
    made.flags = half.with(CtFlags::REPLY);
    // The half of the replies first: what nobody can answer is not begun.
    if half.has(CtFlags::LOCAL_BACKEND) {
        if !free(tables, other, &made.translated) {
            return Err(Reason::SnatPortsExhausted);
        }
        if !tables.put(Stage::Handshake, other, made, false) {
            return Err(Reason::ConntrackFull);
        }
        tables.will_answer_from(choice.port, key.protocol);
    } else {
        claim(tables, config, other, made, candidate)?;
        becomes.source_port = other.destination_port;
    }
    made.translated = *becomes;
    made.state = 0;
    made.flags = *half;
    if !tables.put(Stage::Handshake, key, made, false) {
        tables.forget(Stage::Handshake, other);
        return Err(Reason::ConntrackFull);
    }
    Ok(())
}

/// Which address of this host a backend sees: the one that was dialled, if it is one of this host alone.
#[inline(always)]
fn own_address<T: Connections>(tables: &T, dialled: &Address, v4: bool, interface: &Interface) -> Address {
    if tables.class(dialled).is_some_and(|class| class.0 == Class::HOST.0) {
        *dialled
    } else if v4 {
        interface.v4
    } else {
        interface.v6
    }
}

/// Whether no other connection has the replies of this one. One that is over is forgotten.
#[inline(always)]
fn free<T: Connections>(tables: &T, reply: &FiveTuple, becomes: &FiveTuple) -> bool {
    if let Some(other) = tables.connection(reply) {
        if !is_over(other) && !same(&other.translated, becomes) {
            return false;
        }
        tables.forget(Stage::Open, reply);
    }
    tables.handshake(reply).is_none_or(|other| same(&other.translated, becomes))
}

/// Whether two halves lead to the same service for the same client.
#[inline(always)]
fn same(one: &FiveTuple, other: &FiveTuple) -> bool {
    let ports = |it: &FiveTuple| u32::from(it.source_port.word()) << 16 | u32::from(it.destination_port.word());
    ports(one) == ports(other)
        && one.source.eq_branchless(&other.source)
        && one.destination.eq_branchless(&other.destination)
}

/// Takes a source port that no other connection to the same backend has, as the port that replies go to, and makes their
/// half.
///
/// From a random place on: a port that was used long ago is better than one that was used just now, since the backend may
/// still remember the connection. Where all that are tried are taken, one of a connection that is over will do: Linux lets
/// a new connection take the place of one in TIME_WAIT. Of those the one that was seen last the longest ago: packets of one
/// that ended just now may still be on their way. Once [`FEW`] are taken, one that has rested for [`ct_timeouts::REST`] will do.
///
/// Where none is over either, the connection that has waited the longest to be opened loses its port. A flood of SYNs has
/// every port within a tenth of a second, and so waits the longest; a client that means it is open within two ways there
/// and back, and is hardly ever the oldest of [`FEW`], which are as many as are looked at then: without a flood so many are
/// not met. If it is, it is served by another port as soon as it repeats its SYN.
#[inline(always)]
fn claim<T: Connections>(
    tables: &T,
    config: &Config,
    reply: &mut FiveTuple,
    made: &CtEntry,
    candidate: &mut Candidate,
) -> Result<(), Reason> {
    let ports = config.snat_last.wrapping_sub(config.snat_first).wrapping_add(1) & 0xffff;
    let random = mixed(u64::from(tables.random()), u64::from(made.translated.destination_port.word()));
    // So wide that none is tried twice, where there are so many.
    let step = 1 + below(random as u32, ports / TRIES);
    let mut place = below((random >> 32) as u32, ports);
    candidate.since.set(u64::MAX);
    candidate.waiting.set(0);
    for tried in 1..=TRIES {
        let port = Port::new(config.snat_first.wrapping_add(place) as u16);
        place += step;
        if place >= ports {
            place -= ports;
        }
        reply.destination_port = port;
        if let Some(open) = tables.connection(reply) {
            if is_over(open) {
                candidate.or(port, open.last_seen.get());
            }
        } else if let Some(waits) = tables.handshake(reply) {
            candidate.or(port, Candidate::WAITS | waits.start);
            candidate.waiting.set(candidate.waiting.get() + 1);
        } else if tables.put(Stage::Handshake, reply, made, true) {
            // Looked for before it is made: to make an entry that is there takes the kernel a free one first.
            return Ok(());
        }
        let rested = candidate.since.get() < made.last_seen.saturating_sub(ct_timeouts::SNAT_PORT_REUSE);
        if (tried >= FEW && rested) || candidate.waiting.get() >= u64::from(FEW) {
            break;
        }
    }
    if candidate.is_none() {
        return Err(Reason::SnatPortsExhausted);
    }
    reply.destination_port = candidate.port;
    if candidate.waits() {
        displace(tables, reply);
    } else {
        forget_closed(tables, reply);
    }
    if tables.put(Stage::Handshake, reply, made, true) { Ok(()) } else { Err(Reason::SnatPortsExhausted) }
}

/// Forgets a connection that is not open yet, by the half of its replies.
#[inline(always)]
fn displace<T: Connections>(tables: &T, reply: &FiveTuple) {
    if let Some(other) = tables.handshake(reply) {
        tables.forget(Stage::Handshake, &other.translated.reversed());
        tables.forget(Stage::Handshake, reply);
        tables.count(Reason::SnatPortPreempted);
    }
}

/// Forgets a connection that is over, by the half of its replies. The client's half goes too: what that client still sends
/// would be forwarded into the connection that gets the port. It stays where the client has begun another connection since.
#[inline(always)]
fn forget_closed<T: Connections>(tables: &T, reply: &FiveTuple) {
    if let Some(closed) = tables.connection(reply) {
        let client = closed.translated.reversed();
        if tables.connection(&client).is_some_and(|half| same(&half.translated, &reply.reversed())) {
            tables.forget(Stage::Open, &client);
        }
        tables.forget(Stage::Open, reply);
    }
}

/// A source port that another connection would have to give up.
#[derive(Debug)]
pub(crate) struct Candidate {
    port: Port,
    /// Since when it has not been needed, in nanoseconds of the kernel's clock; with [`Candidate::WAITS`] where a connection
    /// waits on it to be opened. A cell, as the next, so that it is read where it lies: see [`Notes`].
    since: Cell64,
    /// How many that wait have been met.
    waiting: Cell64,
}

impl Candidate {
    /// More than any time: whatever is over comes first.
    const WAITS: u64 = 1 << 63;

    pub(crate) const fn none() -> Self {
        Self { port: Port::new(0), since: Cell64::new(u64::MAX), waiting: Cell64::new(0) }
    }

    #[inline(always)]
    fn is_none(&self) -> bool {
        self.since.get() == u64::MAX
    }

    #[inline(always)]
    fn waits(&self) -> bool {
        self.since.get() & Self::WAITS != 0
    }

    /// Whichever of the two comes first.
    #[inline(always)]
    fn or(&mut self, port: Port, since: u64) {
        if since < self.since.get() {
            self.port = port;
            self.since.set(since);
        }
    }
}
