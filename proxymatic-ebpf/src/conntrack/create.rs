//! The first packet of a remote client's connection: selects a backend and creates both entries.

use proxymatic_common::{Address, Class, Config, CtFlags, Families, FiveTuple, Interface, InterfaceKind, Reason};

use super::{same_tuple, snat::allocate_snat_port, state::is_closed};
use crate::{
    data_plane::{Conntrack, PacketHook},
    events::{on_refused, on_sampled_connect},
    packet::L4Header,
    packet_caller::PacketCaller,
    packet_ctx::{CtTable, PacketCtx, Route},
    route::route,
    types::{Choice, Flow, Verdict},
};

/// Makes the decision that socket hooks make, for the client of a packet.
///
/// # Errors
/// The packet is left alone: for a reason that the caller must count, or for none.
#[inline(always)]
pub(crate) fn select_backend_for<T: Conntrack, H: PacketHook>(
    tables: &T,
    hook: &H,
    config: &Config,
    header: &L4Header,
) -> Result<Choice, Option<Reason>> {
    let network = &header.network;
    let flow = Flow {
        address: network.destination,
        port: header.destination_port,
        protocol: network.protocol,
        families: Families::of(network.source),
    };
    let (source, source_port) = (network.source, header.source_port);
    let caller = PacketCaller { hook, netns: config.host_netns, source, source_port };
    match route(tables, &caller, &flow) {
        Verdict::Pass => Err(None),
        Verdict::Leave(reason) => Err(Some(reason)),
        Verdict::Refuse(service, reason) => {
            on_refused(tables, &caller, &flow, service, reason);
            Err(None)
        }
        Verdict::Translate(choice) => {
            on_sampled_connect(tables, &caller, &flow, &choice);
            Ok(choice)
        }
    }
}

/// Creates the entries of both directions, half-open.
///
/// # Errors
/// The reason why the connection is impossible.
#[inline(always)]
pub(crate) fn create_entries<T: Conntrack, H: PacketHook>(
    tables: &T,
    hook: &mut H,
    config: &Config,
    ctx: &mut PacketCtx,
) -> Result<(), Reason> {
    let PacketCtx { header, key, translated, reverse_key, new_entry, flags, choice, out_ifindex, candidate, .. } = ctx;
    translated.source = key.source;
    translated.source_port = key.source_port;
    translated.destination = choice.address;
    translated.destination_port = choice.port;
    translated.protocol = key.protocol;
    *flags = CtFlags::LOCAL_BACKEND;
    if !choice.local {
        let ifindex = match hook.fib_lookup(&header.network, translated) {
            Route::Via(ifindex) => {
                *out_ifindex = ifindex;
                ifindex
            }
            // The stage that sends the packet replies with an ICMP error.
            Route::TooBig { out_ifindex: ifindex, .. } => ifindex,
            Route::None => return Err(Reason::NoRoute),
        };
        let interface = tables.interface(ifindex).ok_or(Reason::NoReturnPath)?;
        if interface.kind.0 != InterfaceKind::CONTAINERS.0 {
            *flags = CtFlags::default();
            translated.source = own_address(tables, &key.destination, header.network.v4, interface);
            if translated.source == Address::ZERO {
                return Err(Reason::NoReturnPath);
            }
        }
    }
    *reverse_key = translated.reversed();
    let now = tables.now();
    new_entry.translated = key.reversed();
    new_entry.start = now;
    new_entry.last_seen = now;
    // The sequence number that a SYN-ACK must acknowledge; SYN-ACKs are looked up by the reply entry.
    new_entry.state = u64::from(header.sequence) << 32;
    new_entry.service = choice.service;
    new_entry.backend = choice.backend;
    new_entry.generation = choice.generation;
    new_entry.flags = flags.with(CtFlags::REPLY);
    // The reply entry first: without it the connection could not get a reply.
    if flags.has(CtFlags::LOCAL_BACKEND) {
        if !reply_tuple_is_free(tables, reverse_key, &new_entry.translated) {
            return Err(Reason::SnatPortsExhausted);
        }
        if !tables.insert(CtTable::HalfOpen, reverse_key, new_entry, false) {
            return Err(Reason::ConntrackFull);
        }
        tables.mark_local_reply_port(choice.port, key.protocol);
    } else {
        allocate_snat_port(tables, config, reverse_key, new_entry, candidate)?;
        translated.source_port = reverse_key.destination_port;
    }
    new_entry.translated = *translated;
    new_entry.state = 0;
    new_entry.flags = *flags;
    if !tables.insert(CtTable::HalfOpen, key, new_entry, false) {
        tables.remove(CtTable::HalfOpen, reverse_key);
        return Err(Reason::ConntrackFull);
    }
    Ok(())
}

/// Returns the address of this host that the backend sees: the packet's destination if it belongs to this host alone,
/// else the interface's address.
#[inline(always)]
fn own_address<T: Conntrack>(tables: &T, destination: &Address, v4: bool, interface: &Interface) -> Address {
    if tables.class(destination).is_some_and(|class| class.0 == Class::HOST.0) {
        *destination
    } else if v4 {
        interface.v4
    } else {
        interface.v6
    }
}

/// Returns whether no other connection has the reply tuple. Removes the entry of a closed connection.
#[inline(always)]
fn reply_tuple_is_free<T: Conntrack>(tables: &T, reply: &FiveTuple, translated: &FiveTuple) -> bool {
    if let Some(entry) = tables.established_entry(reply) {
        if !is_closed(entry) && !same_tuple(&entry.translated, translated) {
            return false;
        }
        tables.remove(CtTable::Established, reply);
    }
    tables.half_open(reply).is_none_or(|entry| same_tuple(&entry.translated, translated))
}
