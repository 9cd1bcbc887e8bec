//! The journey of one packet of an interface, from parsing to its verdict.
//!
//! [`run`] has the order of the stages. Each stage is a function of its own in this file, in the same order, and hands
//! on nothing but [`PacketCtx`] and a [`NextStage`]. So the eBPF programs can have each stage as a BPF subprogram,
//! which the verifier checks once and not once for each path to it; the host tests call the stages directly.
//!
//! At the XDP hook a packet takes [`crate::fast_path()`] first, and comes here if that passes it on.

use proxymatic_common::{Config, CtEntryAtomic, CtFlags, FiveTuple, FragmentPorts, PROTOCOL_TCP, Reason, ct_timeouts};

use crate::{
    conntrack::{
        EntryMatch,
        create::{self, select_backend_for},
        state::{forward_reason, on_packet_established, on_packet_half_open},
    },
    data_plane::{Conntrack, PacketHook},
    packet::{self, Flags, Fragment, IcmpError, IpHeader, L4Header, Parsed},
    packet_ctx::{PacketCtx, Route},
    route::is_service_port,
};

/// The stages of one packet at a TC hook.
pub trait Stages {
    /// The verdict of the hook.
    type Verdict;
    /// The verdict that leaves the packet as it is.
    const PASS: Self::Verdict;
    /// Whether the packet leaves this host. Else it arrives.
    const EGRESS: bool;
    /// Calls [`PacketCtx::parse`].
    fn parse(&mut self) -> Parsed;
    /// Calls [`classify`].
    fn classify(&mut self, parsed: Parsed) -> NextStage;
    /// Calls [`handle_half_open`].
    fn handle_half_open(&mut self) -> NextStage;
    /// Calls [`select_backend`].
    fn select_backend(&mut self) -> NextStage;
    /// Calls [`create_entries`].
    fn create_entries(&mut self) -> NextStage;
    /// Calls [`forward`] and carries out the action.
    fn forward(&mut self) -> Self::Verdict;
    /// Calls [`forward_icmp_error`] and carries out the action.
    fn forward_icmp_error(&mut self) -> Self::Verdict;
}

/// The stage that a packet needs next.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NextStage {
    /// None: the packet stays as it is.
    Pass,
    /// No established connection has its tuple: [`handle_half_open`].
    HalfOpen,
    /// It may begin a connection: [`select_backend`].
    SelectBackend,
    /// It has a backend, but no entries yet: [`create_entries`].
    CreateEntries,
    /// It belongs to a connection: [`forward`].
    Forward,
    /// It is an ICMP error about a packet that was forwarded: [`forward_icmp_error`].
    ForwardIcmpError,
}

impl NextStage {
    /// Returns the number by which a BPF subprogram returns this stage.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self as u32
    }

    /// Returns the stage of a number that [`NextStage::word`] returned; any other number passes the packet.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        const HALF_OPEN: u32 = NextStage::HalfOpen.word();
        const SELECT_BACKEND: u32 = NextStage::SelectBackend.word();
        const CREATE_ENTRIES: u32 = NextStage::CreateEntries.word();
        const FORWARD: u32 = NextStage::Forward.word();
        const FORWARD_ICMP_ERROR: u32 = NextStage::ForwardIcmpError.word();
        match word {
            HALF_OPEN => Self::HalfOpen,
            SELECT_BACKEND => Self::SelectBackend,
            CREATE_ENTRIES => Self::CreateEntries,
            FORWARD => Self::Forward,
            FORWARD_ICMP_ERROR => Self::ForwardIcmpError,
            _ => Self::Pass,
        }
    }
}

/// What a hook must do with a packet at the end of its journey.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave the packet as it is.
    Pass,
    /// Hand the rewritten packet to this host's stack.
    Local,
    /// Send the rewritten packet by the route that was found.
    Forward,
    /// Send the packet, which has become an ICMP error, back by the interface that it came from.
    ReplyIcmp,
    /// Drop the packet.
    Drop,
}

/// Runs the stages of one packet.
#[inline(always)]
pub fn run<S: Stages>(stages: &mut S) -> S::Verdict {
    let parsed = stages.parse();
    if parsed == Parsed::Other {
        return S::PASS;
    }
    let mut next = stages.classify(parsed);
    if next == NextStage::HalfOpen {
        next = stages.handle_half_open();
    }
    // Known at compile time: programs at the egress have no code for the two stages.
    if !S::EGRESS && next == NextStage::SelectBackend {
        next = stages.select_backend();
        if next == NextStage::CreateEntries {
            next = stages.create_entries();
        }
    }
    match next {
        NextStage::Forward => stages.forward(),
        NextStage::ForwardIcmpError => stages.forward_icmp_error(),
        _ => S::PASS,
    }
}

/// Stage 1, after parsing: decides whether a packet can be of a service, and looks it up among established connections.
#[inline(always)]
pub fn classify<T: Conntrack, H: PacketHook, const EGRESS: bool>(
    tables: &T,
    hook: &mut H,
    parsed: Parsed,
    ctx: &mut PacketCtx,
) -> NextStage {
    let Some(config) = tables.config() else { return NextStage::Pass };
    if config.snat_last == 0 {
        return NextStage::Pass;
    }
    match parsed {
        Parsed::Other => NextStage::Pass,
        Parsed::Unreadable => {
            tables.count(Reason::Unreadable);
            NextStage::Pass
        }
        Parsed::Error => handle_icmp_error::<T, H, EGRESS>(tables, hook, ctx),
        Parsed::Flow => {
            let header = &mut ctx.header;
            if header.network.fragment == Fragment::NonFirst && !restore_fragment_ports::<T, EGRESS>(tables, header) {
                return NextStage::Pass;
            }
            let protocol = header.network.protocol;
            let ours = if EGRESS {
                tables.is_local_reply_port(header.source_port, protocol)
            } else {
                is_snat_port(config, header) || is_service_port(tables, header.destination_port, protocol)
            };
            if ours { look_up_established::<T, EGRESS>(tables, ctx) } else { NextStage::Pass }
        }
    }
}

/// Returns whether the destination of a packet is one of this host's SNAT ports.
#[inline(always)]
pub(crate) fn is_snat_port(config: &Config, header: &L4Header) -> bool {
    let port = u32::from(header.destination_port.get());
    port >= config.snat_first && port <= config.snat_last
}

/// Gives a later fragment the ports of the first one. Returns false if the first one is unknown.
#[inline(always)]
fn restore_fragment_ports<T: Conntrack, const EGRESS: bool>(tables: &T, header: &mut L4Header) -> bool {
    let first = tables.fragment(&header.network.fragments());
    let Some(first) = first.filter(|it| tables.coarse_now().wrapping_sub(it.at) < ct_timeouts::FRAGMENTS) else {
        // Most fragments that this host sends belong to no service.
        if !EGRESS {
            tables.count(Reason::UnknownFragment);
        }
        return false;
    };
    header.source_port = first.source_port;
    header.destination_port = first.destination_port;
    true
}

#[inline(always)]
fn look_up_established<T: Conntrack, const EGRESS: bool>(tables: &T, ctx: &mut PacketCtx) -> NextStage {
    ctx.key = ctx.header.tuple();
    ctx.out_ifindex = 0;
    match tables.established_entry(&ctx.key) {
        Some(entry) if seen_in_right_direction::<EGRESS>(entry) => match on_packet_established(tables, ctx, entry) {
            EntryMatch::Belongs => NextStage::Forward,
            EntryMatch::Stale => no_entry::<EGRESS>(ctx),
        },
        Some(_) => NextStage::Pass,
        None => NextStage::HalfOpen,
    }
}

/// Returns whether packets of an entry pass in this direction: replies of backends on this host leave it, all other
/// packets arrive. A packet in the wrong direction has a forged address.
#[inline(always)]
fn seen_in_right_direction<const EGRESS: bool>(entry: &CtEntryAtomic) -> bool {
    entry.flags.has(CtFlags::LOCAL_BACKEND.with(CtFlags::REPLY)) == EGRESS
}

/// Returns the next stage of a packet that belongs to no connection.
#[inline(always)]
fn no_entry<const EGRESS: bool>(ctx: &PacketCtx) -> NextStage {
    if EGRESS || ctx.header.network.fragment == Fragment::NonFirst { NextStage::Pass } else { NextStage::SelectBackend }
}

/// Finds the connection that an ICMP error is about. The error takes the route of the replies to the packet that it
/// quotes.
#[inline(always)]
fn handle_icmp_error<T: Conntrack, H: PacketHook, const EGRESS: bool>(
    tables: &T,
    hook: &mut H,
    ctx: &mut PacketCtx,
) -> NextStage {
    let PacketCtx { header, outer, key, translated, reverse_key, flags, .. } = ctx;
    *key = header.tuple().reversed();
    let entry = match tables.established_entry(key) {
        Some(entry) => entry,
        None => match tables.half_open(key) {
            Some(entry) => entry,
            None => return NextStage::Pass,
        },
    };
    if !seen_in_right_direction::<EGRESS>(entry) {
        return NextStage::Pass;
    }
    *translated = entry.translated;
    *reverse_key = translated.reversed();
    *flags = entry.flags;
    // An error from the backend seems to come from this host; one from a router on the path keeps its source.
    if !outer.source.eq_branchless(&key.source) {
        translated.source = outer.source;
    }
    // No ICMP error may answer an ICMP error.
    if !flags.has(CtFlags::LOCAL_BACKEND) {
        match hook.fib_lookup(outer, translated) {
            Route::Via(_) if outer.ttl > 1 => {}
            _ => {
                tables.count(Reason::NoRoute);
                return NextStage::Pass;
            }
        }
    }
    tables.count(Reason::IcmpErrorForwarded);
    NextStage::ForwardIcmpError
}

/// Stage 2: looks a packet up among half-open connections.
#[inline(always)]
pub fn handle_half_open<T: Conntrack, const EGRESS: bool>(tables: &T, ctx: &mut PacketCtx) -> NextStage {
    match tables.half_open(&ctx.key) {
        Some(entry) if seen_in_right_direction::<EGRESS>(entry) => match on_packet_half_open(tables, ctx, entry) {
            EntryMatch::Belongs => NextStage::Forward,
            EntryMatch::Stale => no_entry::<EGRESS>(ctx),
        },
        Some(_) => NextStage::Pass,
        None => no_entry::<EGRESS>(ctx),
    }
}

/// Stage 3: selects a backend for a packet that belongs to no connection. If there is none the packet passes, and the
/// host's own stack refuses the connection unless a socket listens.
#[inline(always)]
pub fn select_backend<T: Conntrack, H: PacketHook>(tables: &T, hook: &H, ctx: &mut PacketCtx) -> NextStage {
    let Some(config) = tables.config() else { return NextStage::Pass };
    let header = &ctx.header;
    let network = &header.network;
    if network.protocol == PROTOCOL_TCP && (!header.flags.has(Flags::SYN) || header.flags.has(Flags::ACK)) {
        return NextStage::Pass;
    }
    // Such a packet comes from no other machine, and the host drops it.
    if network.source.is_loopback() || network.destination.is_loopback() {
        return NextStage::Pass;
    }
    match select_backend_for(tables, hook, config, header) {
        Ok(choice) => {
            ctx.choice = choice;
            NextStage::CreateEntries
        }
        Err(reason) => {
            if let Some(reason) = reason {
                tables.count(reason);
            }
            NextStage::Pass
        }
    }
}

/// Stage 4: creates the entries of a connection to the backend that was selected. If that is impossible the packet
/// passes.
#[inline(always)]
pub fn create_entries<T: Conntrack, H: PacketHook>(tables: &T, hook: &mut H, ctx: &mut PacketCtx) -> NextStage {
    let Some(config) = tables.config() else { return NextStage::Pass };
    match create::create_entries(tables, hook, config, ctx) {
        Ok(()) => {
            tables.count(ctx.choice.reason);
            tables.count(forward_reason(ctx.flags));
            NextStage::Forward
        }
        Err(reason) => {
            tables.count(reason);
            NextStage::Pass
        }
    }
}

/// Stage 5: rewrites a packet of a connection.
#[inline(always)]
pub fn forward<T: Conntrack, H: PacketHook>(tables: &T, hook: &mut H, ctx: &mut PacketCtx) -> Action {
    let PacketCtx { header, translated, flags, out_ifindex, .. } = ctx;
    let network = &header.network;
    if network.fragment == Fragment::First {
        let ports = FragmentPorts {
            at: tables.coarse_now(),
            source_port: header.source_port,
            destination_port: header.destination_port,
            _pad: 0,
        };
        tables.save_fragment(&network.fragments(), &ports);
    }
    let local = flags.has(CtFlags::LOCAL_BACKEND);
    if !local && let Err(action) = check_egress(tables, hook, network, translated, *out_ifindex) {
        return action;
    }
    let rewritten = packet::rewrite(hook, header, translated);
    finish(tables, hook, network, local, rewritten)
}

/// Checks that a packet can leave this host.
///
/// # Errors
/// The action for a packet that cannot.
#[inline(always)]
fn check_egress<T: Conntrack, H: PacketHook>(
    tables: &T,
    hook: &mut H,
    network: &IpHeader,
    translated: &FiveTuple,
    out_ifindex: u32,
) -> Result<(), Action> {
    let route = if out_ifindex == 0 { hook.fib_lookup(network, translated) } else { Route::Via(out_ifindex) };
    let (reason, error) = match route {
        Route::Via(_) if network.ttl > 1 => return Ok(()),
        Route::Via(_) => (Reason::TtlExceeded, IcmpError::TtlExceeded),
        Route::TooBig { mtu, .. } => (Reason::MtuExceeded, IcmpError::TooBig(mtu)),
        Route::None => {
            // The route may come back. The host's stack would reset the connection, so the packet must not pass.
            tables.count(Reason::NoRoute);
            return Err(Action::Drop);
        }
    };
    tables.count(reason);
    Err(if hook.reply_icmp(network, error) { Action::ReplyIcmp } else { Action::Drop })
}

/// Stage 5 for an ICMP error: rewrites the error and the packet that it quotes.
#[inline(always)]
pub fn forward_icmp_error<T: Conntrack, H: PacketHook>(tables: &T, hook: &mut H, ctx: &mut PacketCtx) -> Action {
    let PacketCtx { header, outer, translated, reverse_key, flags, .. } = ctx;
    let ends = (&translated.source, &translated.destination);
    let rewritten = packet::rewrite_error(hook, outer, header, ends, reverse_key);
    finish(tables, hook, outer, flags.has(CtFlags::LOCAL_BACKEND), rewritten)
}

/// Decrements the TTL of a rewritten packet if it leaves this host, and returns its action.
#[inline(always)]
pub(crate) fn finish<T: Conntrack, H: PacketHook>(
    tables: &T,
    hook: &mut H,
    network: &IpHeader,
    local: bool,
    rewritten: Option<()>,
) -> Action {
    let done = if local { rewritten } else { rewritten.and_then(|()| packet::decrement_ttl(hook, network)) };
    match (done, local) {
        (Some(()), true) => Action::Local,
        (Some(()), false) => Action::Forward,
        // A part of the packet may have been rewritten.
        (None, _) => {
            tables.count(Reason::RewriteFailed);
            Action::Drop
        }
    }
}

#[cfg(test)]
mod tests;
