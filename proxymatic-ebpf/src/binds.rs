//! Programs that bind, listen on and leave service ports, and datagrams that come from one.

use proxymatic_common::{
    Address, Class, Config, Event, EventKind, Features, Frontend, HookFlags, ListenerEntry, ListenerFlags, ListenerKey,
    PROTOCOL_TCP, PROTOCOL_UDP, Port, PortBit, Reason, Socket, SocketFlags,
};

use crate::{
    admission::direct_peer,
    data_plane::{Caller, DataPlane, Tables},
    events::emit,
};

/// The address and port that a program has bound a socket to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bind {
    /// The address; an unspecified one for all.
    pub address: Address,
    /// The port.
    pub port: Port,
    /// IPPROTO number.
    pub protocol: u8,
}

impl Bind {
    /// Returns the bind that a socket's storage has; `None` if the socket is not on a service port of the host.
    #[inline(always)]
    pub fn of(socket: &Socket) -> Option<Self> {
        socket.flags.has(SocketFlags::BOUND).then_some(Self {
            address: socket.bound_address,
            port: socket.bound_port,
            protocol: socket.bound_protocol,
        })
    }

    /// Saves the bind in a socket's storage.
    #[inline(always)]
    pub fn save(&self, socket: &mut Socket) {
        socket.flags = socket.flags.with(SocketFlags::BOUND);
        socket.bound_address = self.address;
        socket.bound_port = self.port;
        socket.bound_protocol = self.protocol;
    }
}

/// What the hook must do with a bind.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindVerdict {
    /// Nothing: the port is no service port of the host.
    Other,
    /// Save the bind in the socket's storage: the port is a service port of the host.
    OnServicePort,
    /// Let bind(2) fail with EADDRINUSE.
    Refuse,
}

/// Decides on the bind of a port. Counts the bind of a service port, and emits an event if the port is the host's.
#[inline(always)]
pub fn on_bind<T: DataPlane, C: Caller>(tables: &T, caller: &C, bind: &Bind) -> BindVerdict {
    let Some(service) = service_on(tables, bind.port, bind.protocol) else { return BindVerdict::Other };
    let Some(config) = tables.config() else { return BindVerdict::Other };
    let of_host = config.host_netns == 0 || caller.netns() == config.host_netns;
    if of_host && is_refused(tables, caller, config, service, bind.port) {
        tables.count(Reason::BindRefused);
        emit(tables, event(caller, EventKind::BIND_REFUSED, Reason::BindRefused, service, bind));
        return BindVerdict::Refuse;
    }
    note_listener(tables, service);
    if !of_host {
        return BindVerdict::Other;
    }
    if bind.protocol == PROTOCOL_UDP && config.hook_flags.has(HookFlags::LISTENERS) {
        save_listener(tables, service, bind, ListenerFlags::NEW);
    }
    tables.count(Reason::PortBound);
    emit(tables, event(caller, EventKind::BOUND, Reason::PortBound, service, bind));
    BindVerdict::OnServicePort
}

/// Records that a TCP socket listens. That may be long after bind(2), after the agent found no listener. `bind` is that
/// of a socket of the host, with the index of its interface.
#[inline(always)]
pub fn on_listen<T: Tables>(tables: &T, port: Port, bind: Option<(Bind, u32)>) {
    let Some(service) = service_on(tables, port, PROTOCOL_TCP) else { return };
    note_listener(tables, service);
    if let Some((bind, ifindex)) = bind
        && tables.config().is_some_and(|config| config.hook_flags.has(HookFlags::LISTENERS))
    {
        save_listener(tables, service, &bind, ListenerFlags::of_interface(ifindex));
    }
}

/// Tells the agent that a program has closed a socket that was bound to a service port of the host.
#[inline(always)]
pub fn on_unbind<T: DataPlane, C: Caller>(tables: &T, caller: &C, bind: &Bind, ifindex: u32) {
    let Some(service) = service_on(tables, bind.port, bind.protocol) else { return };
    // The kernel's lookup finds other sockets without an interface, so the host's sockets need no entry for them.
    if ifindex == 0 && bind.protocol == PROTOCOL_UDP {
        not_new(tables, bind, bind.address);
        if bind.address.is_unspecified() && !bind.address.is_v4() {
            not_new(tables, bind, Address::from_v4_word(0));
        }
    }
    emit(tables, event(caller, EventKind::UNBOUND, Reason::PortBound, service, bind));
}

/// Records the sender of a datagram that no service sent, if its port is a service port: replies to it are to that
/// socket and not to the service.
#[inline(always)]
pub fn on_direct_datagram<T: DataPlane, C: Caller>(tables: &T, caller: &C, from: &Address, port: Port) {
    let Some(service) = service_on(tables, port, PROTOCOL_UDP) else { return };
    let Some(config) = tables.config() else { return };
    // In the sender's own namespace the kernel finds the sender's socket.
    if !config.hook_flags.has(HookFlags::LISTENERS)
        || config.host_netns == 0
        || tables.class(from).is_none_or(|class| class.0 != Class::HOST.0)
        || caller.netns() == config.host_netns
    {
        return;
    }
    tables.save_direct_peer(&direct_peer(caller, *from, port), tables.coarse_now());
    if tables.service_stats(service).is_some_and(|stats| !stats.may_have_listener()) {
        note_listener(tables, service);
    }
}

/// Returns the service on the host's addresses that has a port.
#[inline(always)]
fn service_on<T: Tables>(tables: &T, port: Port, protocol: u8) -> Option<u32> {
    let bit = PortBit::of(port, protocol)?;
    if tables.ports(bit.word) & bit.mask == 0 {
        return None;
    }
    tables.frontend(&Frontend::new(Class::HOST, port, protocol))
}

/// Counts that a service port may have a listener from now on. That is before the system call returns, so that every
/// later connection looks up the listener.
#[inline(always)]
fn note_listener<T: Tables>(tables: &T, service: u32) {
    if let Some(stats) = tables.service_stats(service) {
        tables.inc(&stats.bind_seq);
    }
}

/// Saves a listener of the host for the sockets that cannot look it up.
#[inline(always)]
fn save_listener<T: Tables>(tables: &T, service: u32, bind: &Bind, flags: ListenerFlags) {
    let bind_seq = tables.service_stats(service).map_or(0, |stats| stats.bind_seq.get() as u32);
    let save = |address| {
        let key = ListenerKey::new(address, bind.port, bind.protocol);
        let flags = tables.listener(&key).map_or(flags, |entry| entry.flags.with(flags));
        tables.save_listener(&key, &ListenerEntry { flags, bind_seq });
    };
    save(bind.address);
    // No hook sees IPV6_V6ONLY. The agent does, and removes this entry within a second.
    if bind.address.is_unspecified() && !bind.address.is_v4() {
        save(Address::from_v4_word(0));
    }
}

/// Ends the time in which a published listener counts as one on the loopback interface.
#[inline(always)]
fn not_new<T: Tables>(tables: &T, bind: &Bind, address: Address) {
    let key = ListenerKey::new(address, bind.port, bind.protocol);
    if let Some(entry) = tables.listener(&key)
        && entry.flags.has(ListenerFlags::NEW)
    {
        let flags = entry.flags.without(ListenerFlags::NEW).with(ListenerFlags::ANY_INTERFACE);
        tables.save_listener(&key, &ListenerEntry { flags, ..entry });
    }
}

/// Returns whether only root may bind a port, and the program is not root. A program that may bind a port below
/// `first_unprivileged_port` has CAP_NET_BIND_SERVICE; no hook sees that capability otherwise.
#[inline(always)]
fn is_refused<T: Tables, C: Caller>(tables: &T, caller: &C, config: &Config, service: u32, port: Port) -> bool {
    config.hook_flags.has(HookFlags::ROOT_WINS)
        && u32::from(port.get()) >= config.first_unprivileged_port
        && caller.uid() != 0
        && !replicas_use_port(tables, service, port)
}

/// Returns whether replicas of the service listen on its port themselves, so that one may start here.
#[inline(always)]
fn replicas_use_port<T: Tables>(tables: &T, service: u32, port: Port) -> bool {
    if tables.service(service).is_some_and(|settings| settings.features.has(Features::OWN_LISTENER)) {
        return true;
    }
    let range = tables.slot_range(service);
    range.length() > 0
        && tables
            .slot(range.base())
            .and_then(|slot| tables.backend(slot.backend()))
            .is_some_and(|backend| backend.port.word() == port.word())
}

#[inline(always)]
fn event<C: Caller>(caller: &C, kind: EventKind, reason: Reason, service: u32, bind: &Bind) -> Event {
    Event {
        kind,
        reason: reason as u32,
        service,
        cgroup: caller.cgroup(),
        pid: caller.tgid(),
        destination: bind.address,
        destination_port: bind.port,
        protocol: bind.protocol,
        ..Event::EMPTY
    }
}

#[cfg(test)]
mod tests;
