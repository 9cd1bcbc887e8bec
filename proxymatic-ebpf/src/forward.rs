//! What becomes of a packet of an interface.

use proxymatic_common::{
    Address, Config, CtEntry, CtEntryAtomic, CtFlags, FiveTuple, FragmentPorts, Port, Reason, ct_timeouts,
};

use crate::{
    Choice, Connections, Hook,
    begin::Candidate,
    packet::{self, Answer, Header, Network, Parsed, Part},
    route::is_service_port,
    track,
};

/// What is kept in mind of a packet while a hook is at it. In the programs it lies in a map, since their stack is small;
/// what a packet before it left there means nothing.
#[derive(Debug)]
#[repr(C)]
pub struct Notes {
    /// What it says; of an ICMP error what that quotes.
    pub(crate) header: Header,
    /// The header of an ICMP error.
    pub(crate) outer: Network,
    /// Who sends it to whom.
    pub(crate) key: FiveTuple,
    /// What it becomes.
    pub(crate) becomes: FiveTuple,
    /// The key of the other half.
    pub(crate) other: FiveTuple,
    /// A half that is made.
    pub(crate) made: CtEntry,
    /// Which half it is of.
    pub(crate) half: CtFlags,
    /// The backend that was chosen for it.
    pub(crate) choice: Choice,
    /// The interface by which it leaves, where that has been found out; else 0.
    pub(crate) by: u32,
    /// The source port that another connection would have to give up for this one. Not on the stack, where the verifier
    /// tells apart all ways to come to a value: of what is in a map it knows nothing.
    pub(crate) candidate: Candidate,
}

impl Notes {
    /// Reads a packet.
    #[inline(always)]
    pub fn read<P: packet::Packet>(&mut self, packet: &P) -> Parsed {
        packet::read(packet, &mut self.header, &mut self.outer)
    }

    /// What the header of the network says.
    #[inline(always)]
    pub const fn network(&self) -> &Network {
        &self.header.network
    }

    /// Nothing yet.
    pub const fn none() -> Self {
        let none = FiveTuple::new((Address::ZERO, Port::new(0)), (Address::ZERO, Port::new(0)), 0);
        Self {
            header: Header::NONE,
            outer: Header::NONE.network,
            key: none,
            becomes: none,
            other: none,
            made: CtEntry {
                translated: none,
                start: 0,
                last_seen: 0,
                state: 0,
                service: 0,
                backend: 0,
                generation: 0,
                flags: CtFlags(0),
            },
            half: CtFlags(0),
            choice: Choice {
                service: 0,
                backend: 0,
                generation: 0,
                address: Address::ZERO,
                port: Port::new(0),
                local: false,
                syn_retries: 0,
                reason: Reason::NoBackend,
            },
            by: 0,
            candidate: Candidate::none(),
        }
    }
}

/// What a hook does with a packet.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing: it is as it came.
    Pass,
    /// It goes on through this host, rewritten.
    Host,
    /// It leaves by the way that was found, rewritten.
    Out,
    /// It has become an ICMP error, which goes back to where it came from.
    Back,
    /// It is dropped.
    Drop,
}

/// Where a packet to an address goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By this interface.
    By(u32),
    /// By this interface, but it is larger than what fits there, in bytes without the link's header.
    TooBig {
        /// The interface.
        by: u32,
        /// What fits.
        most: u32,
    },
    /// Nowhere.
    None,
}

/// What is to be done next with a packet.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is left as it came.
    Pass,
    /// It may be of a connection that is not open yet: [`early`].
    Early,
    /// It may begin a connection: [`choose`](crate::choose), then [`connect`](crate::connect).
    Begin,
    /// It is an ICMP error that is to be sent on: [`send_error`].
    SendError,
    /// It is to be rewritten and sent on: [`send`].
    Send,
}

/// A packet comes from a network, and nothing has been made of it yet: one of a connection that is open and stays so, with
/// only the usual headers, goes on at once. All others are for [`arrive`], and so is one a second of each half.
#[inline(always)]
pub fn accelerate<T: Connections, H: Hook>(tables: &T, hook: &mut H, notes: &mut Notes) -> Fate {
    match packet::is_v4(hook) {
        Some(true) => plain::<T, H, true>(tables, hook, notes),
        Some(false) => plain::<T, H, false>(tables, hook, notes),
        None => Fate::Pass,
    }
}

#[inline(always)]
fn plain<T: Connections, H: Hook, const V4: bool>(tables: &T, hook: &mut H, notes: &mut Notes) -> Fate {
    // Not among the notes: so the offsets are known to be constants.
    let mut header = Header::NONE;
    let Some(config) = tables.config() else { return Fate::Pass };
    if config.snat_last == 0 || !packet::read_plain::<H, V4>(hook, &mut header) {
        return Fate::Pass;
    }
    let network = &header.network;
    if header.flags.matter()
        || network.hops <= 1
        || !(is_source_port(config, &header) || is_service_port(tables, header.destination_port, network.protocol))
    {
        return Fate::Pass;
    }
    notes.key = header.tuple();
    let Some(live) = tables.connection(&notes.key) else { return Fate::Pass };
    if live.flags.has(CtFlags::LOCAL_BACKEND) || !track::is_steady(tables, live) {
        return Fate::Pass;
    }
    notes.becomes = live.translated;
    let Way::By(_) = hook.way(network, &notes.becomes) else { return Fate::Pass };
    tables.count(Reason::ForwardedXdp);
    let done = packet::rewrite(hook, &header, &notes.becomes);
    finish(tables, hook, network, false, done)
}

/// Looks at a packet that has been read: one that comes from a network, or one that leaves this host for one (`DEPARTS`).
///
/// The steps of a packet are functions of their own, with nothing between them but the notes: so programs can have each of
/// them verified once, and not once for each way that leads there.
#[inline(always)]
pub fn meet<T: Connections, H: Hook, const DEPARTS: bool>(
    tables: &T,
    hook: &mut H,
    parsed: Parsed,
    notes: &mut Notes,
) -> Step {
    let Some(config) = tables.config() else { return Step::Pass };
    if config.snat_last == 0 {
        return Step::Pass;
    }
    match parsed {
        Parsed::Other => Step::Pass,
        Parsed::Unreadable => {
            tables.count(Reason::Unreadable);
            Step::Pass
        }
        Parsed::Error => report::<T, H, DEPARTS>(tables, hook, notes),
        Parsed::Flow => {
            let header = &mut notes.header;
            if header.network.part == Part::Later && !remembered::<T, DEPARTS>(tables, header) {
                return Step::Pass;
            }
            let protocol = header.network.protocol;
            let ours = if DEPARTS {
                tables.answers_from(header.source_port, protocol)
            } else {
                is_source_port(config, header) || is_service_port(tables, header.destination_port, protocol)
            };
            if ours { flow::<T, DEPARTS>(tables, notes) } else { Step::Pass }
        }
    }
}

/// Whether a packet goes to one of the ports that we send from.
#[inline(always)]
fn is_source_port(config: &Config, header: &Header) -> bool {
    let port = u32::from(header.destination_port.get());
    port >= config.snat_first && port <= config.snat_last
}

#[inline(always)]
fn flow<T: Connections, const DEPARTS: bool>(tables: &T, notes: &mut Notes) -> Step {
    notes.key = notes.header.tuple();
    notes.by = 0;
    match tables.connection(&notes.key) {
        Some(live) if is_here::<DEPARTS>(live) => {
            if track::open(tables, notes, live) {
                Step::Send
            } else {
                unknown::<DEPARTS>(notes)
            }
        }
        Some(_) => Step::Pass,
        None => Step::Early,
    }
}

/// Looks for a packet among the connections that are not open yet.
#[inline(always)]
pub fn early<T: Connections, const DEPARTS: bool>(tables: &T, notes: &mut Notes) -> Step {
    match tables.handshake(&notes.key) {
        Some(live) if is_here::<DEPARTS>(live) => {
            if track::early(tables, notes, live) {
                Step::Send
            } else {
                unknown::<DEPARTS>(notes)
            }
        }
        Some(_) => Step::Pass,
        None => unknown::<DEPARTS>(notes),
    }
}

/// What becomes of a packet that no connection is known for.
#[inline(always)]
fn unknown<const DEPARTS: bool>(notes: &Notes) -> Step {
    if DEPARTS || notes.header.network.part == Part::Later { Step::Pass } else { Step::Begin }
}

/// Whether packets of a half pass by here: replies of backends on this host where they leave it, all others where they
/// come. Anything else is an address that somebody made up.
#[inline(always)]
fn is_here<const DEPARTS: bool>(live: &CtEntryAtomic) -> bool {
    live.flags.has(CtFlags::LOCAL_BACKEND.with(CtFlags::REPLY)) == DEPARTS
}

/// Rewrites a packet and sends it on.
#[inline(always)]
pub fn send<T: Connections, H: Hook>(tables: &T, hook: &mut H, notes: &mut Notes) -> Fate {
    let Notes { header, becomes, half, by, .. } = notes;
    let network = &header.network;
    if network.part == Part::First {
        let ports = FragmentPorts {
            at: tables.about_now(),
            source_port: header.source_port,
            destination_port: header.destination_port,
            zero: 0,
        };
        tables.note_fragment(&network.fragments(), &ports);
    }
    let local = half.has(CtFlags::LOCAL_BACKEND);
    if !local && let Err(fate) = leaves(tables, hook, network, becomes, *by) {
        return fate;
    }
    let done = packet::rewrite(hook, header, becomes);
    finish(tables, hook, network, local, done)
}

/// Whether a packet can leave this host.
///
/// # Errors
/// What becomes of it where it cannot.
#[inline(always)]
fn leaves<T: Connections, H: Hook>(
    tables: &T,
    hook: &mut H,
    network: &Network,
    becomes: &FiveTuple,
    by: u32,
) -> Result<(), Fate> {
    let way = if by == 0 { hook.way(network, becomes) } else { Way::By(by) };
    let (reason, answer) = match way {
        Way::By(_) if network.hops > 1 => return Ok(()),
        Way::By(_) => (Reason::TtlExceeded, Answer::HopsExceeded),
        Way::TooBig { most, .. } => (Reason::MtuExceeded, Answer::TooBig(most)),
        Way::None => {
            // It may come back. To leave the packet to the host would be to have the connection reset.
            tables.count(Reason::NoRoute);
            return Err(Fate::Drop);
        }
    };
    tables.count(reason);
    Err(if hook.answer(network, answer) { Fate::Back } else { Fate::Drop })
}

/// Sends on what was rewritten.
#[inline(always)]
fn finish<T: Connections, H: Hook>(tables: &T, hook: &mut H, network: &Network, local: bool, done: Option<()>) -> Fate {
    let hopped = if local { done } else { done.and_then(|()| packet::hop(hook, network)) };
    match (hopped, local) {
        (Some(()), true) => Fate::Host,
        (Some(()), false) => Fate::Out,
        // Half of it may have been rewritten.
        (None, _) => {
            tables.count(Reason::RewriteFailed);
            Fate::Drop
        }
    }
}

/// An ICMP error: where it is about a packet that was sent on here, it goes to who had sent that.
#[inline(always)]
fn report<T: Connections, H: Hook, const DEPARTS: bool>(tables: &T, hook: &mut H, notes: &mut Notes) -> Step {
    let Notes { header, outer, key, becomes, other, half, .. } = notes;
    // It goes the way of the replies to that packet.
    *key = header.tuple().reversed();
    let live = match tables.connection(key) {
        Some(live) => live,
        None => match tables.handshake(key) {
            Some(live) => live,
            None => return Step::Pass,
        },
    };
    if !is_here::<DEPARTS>(live) {
        return Step::Pass;
    }
    *becomes = live.translated;
    *other = becomes.reversed();
    *half = live.flags;
    // Who answers for the backend is this host; a router on the way is who it is.
    if !outer.source.eq_branchless(&key.source) {
        becomes.source = outer.source;
    }
    // Nothing is answered to an error.
    if !half.has(CtFlags::LOCAL_BACKEND) {
        match hook.way(outer, becomes) {
            Way::By(_) if outer.hops > 1 => {}
            _ => {
                tables.count(Reason::NoRoute);
                return Step::Pass;
            }
        }
    }
    tables.count(Reason::IcmpErrorForwarded);
    Step::SendError
}

/// Rewrites an ICMP error and sends it on.
#[inline(always)]
pub fn send_error<T: Connections, H: Hook>(tables: &T, hook: &mut H, notes: &mut Notes) -> Fate {
    let Notes { header, outer, becomes, other, half, .. } = notes;
    let done = packet::rewrite_error(hook, outer, header, (&becomes.source, &becomes.destination), other);
    finish(tables, hook, outer, half.has(CtFlags::LOCAL_BACKEND), done)
}

/// Gives a later fragment the ports that the first one named.
#[inline(always)]
fn remembered<T: Connections, const DEPARTS: bool>(tables: &T, header: &mut Header) -> bool {
    let first = tables.fragment(&header.network.fragments());
    let Some(first) = first.filter(|it| tables.about_now().wrapping_sub(it.at) < ct_timeouts::FRAGMENTS) else {
        // What this host sends in fragments has mostly nothing to do with services.
        if !DEPARTS {
            tables.count(Reason::UnknownFragment);
        }
        return false;
    };
    header.source_port = first.source_port;
    header.destination_port = first.destination_port;
    true
}

#[cfg(test)]
mod tests;
