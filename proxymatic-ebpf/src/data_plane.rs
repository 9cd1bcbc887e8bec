//! The traits through which decisions reach everything outside of them.
//!
//! The eBPF programs implement them on BPF maps, helpers and subprograms; `testing.rs` implements them in memory.

use proxymatic_common::{
    Address, Affinity, AffinityKey, Backend, BackendStats, Cell64, Class, Client, Config, CtEntry, CtEntryAtomic,
    DirectPeer, Event, FiveTuple, FragmentKey, FragmentPorts, Frontend, Interface, ListenerEntry, ListenerKey,
    NetnsAddresses, Policy, Port, Reason, Service, ServiceStats, Slot, SlotRange, SourceCgroup, SourceRangeKey,
};

use crate::{
    hash::hash64,
    packed::{EjectionShares, SelectParams, SlotScore},
    packet::{IcmpError, IpHeader, Packet},
    packet_ctx::{CtTable, Route},
    types::{Listener, NetnsMatch},
};

/// The maps of services, backends and counters.
pub trait Tables {
    /// Returns the agent's configuration; `None` only if the map is missing.
    fn config(&self) -> Option<&Config>;
    /// Returns one word of the bitmap of service ports: 64 bits.
    fn ports(&self, word: u32) -> u64;
    /// Returns the class of an address that is not a loopback address.
    fn class(&self, address: &Address) -> Option<Class>;
    /// Returns the id of the service of a frontend.
    fn frontend(&self, frontend: &Frontend) -> Option<u32>;
    /// Returns the settings of a service.
    fn service(&self, id: u32) -> Option<&Service>;
    /// Returns the counters of a service.
    fn service_stats(&self, id: u32) -> Option<&ServiceStats>;
    /// Returns the slot range of a service; an empty one if the id has none.
    fn slot_range(&self, service: u32) -> SlotRange;
    /// Returns a slot by its index.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// Returns a backend by its id.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// Returns the counters of a backend.
    fn backend_stats(&self, id: u32) -> Option<&BackendStats>;
    /// Returns the backend of a client's last connection.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Saves the backend of a client's connection. May fail: the next connection is then balanced anew.
    fn save_affinity(&self, key: &AffinityKey, affinity: &Affinity);
    /// Returns whether a network of the allow list contains the address.
    fn source_allowed(&self, key: &SourceRangeKey) -> bool;
    /// Returns the addresses of a network namespace by its cookie; `None` if they are unknown.
    fn netns_addresses(&self, netns: u64) -> Option<NetnsAddresses>;
    /// Returns whether the allow list has the cgroup.
    fn cgroup_allowed(&self, key: &SourceCgroup) -> bool;
    /// Returns whether hooks leave the sockets of a cgroup alone.
    fn cgroup_excluded(&self, cgroup: u64) -> bool;
    /// Returns the entry of a listener of the host.
    fn listener(&self, key: &ListenerKey) -> Option<ListenerEntry>;
    /// Saves a listener of the host. May fail: the agent then saves the listener within a second.
    fn save_listener(&self, key: &ListenerKey, entry: &ListenerEntry);
    /// Returns when the last datagram came from a peer, in nanoseconds of the monotonic clock.
    fn direct_peer(&self, peer: &DirectPeer) -> Option<u64>;
    /// Saves the time of a datagram from a peer. If that fails, replies to the peer may go to a service.
    fn save_direct_peer(&self, peer: &DirectPeer, at: u64);
    /// Adds one to a counter.
    #[inline(always)]
    fn inc(&self, cell: &Cell64) {
        self.add(cell, 1);
    }
    /// Adds `by` to a counter.
    fn add(&self, cell: &Cell64, by: u64);
    /// Adds one to the counter of a reason.
    fn count(&self, reason: Reason);
}

/// The maps of remote clients' connections, and of the interfaces on which their packets pass.
pub trait Conntrack: DataPlane {
    /// Returns the entry of an established connection whose packets have this tuple.
    fn established_entry(&self, key: &FiveTuple) -> Option<&CtEntryAtomic>;
    /// Returns the entry of a half-open connection whose packets have this tuple.
    fn half_open(&self, key: &FiveTuple) -> Option<&CtEntryAtomic>;
    /// Inserts an entry. Returns false if there is no memory, or if `only_new` is set and the key has an entry.
    fn insert(&self, table: CtTable, key: &FiveTuple, entry: &CtEntry, only_new: bool) -> bool;
    /// Removes an entry. Returns false if there was none.
    fn remove(&self, table: CtTable, key: &FiveTuple) -> bool;
    /// Runs `change` while no other CPU changes an entry of the connection that began at `start`. `change` may only
    /// read and write cells: the verifier refuses a helper call under a lock.
    fn with_lock<R>(&self, start: u64, change: impl FnOnce() -> R) -> Option<R>;
    /// Returns the ports that the first fragment of a packet had.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    /// Saves the ports of a first fragment. May fail: the later fragments then pass unchanged.
    fn save_fragment(&self, key: &FragmentKey, ports: &FragmentPorts);
    /// Returns an interface by its index.
    fn interface(&self, ifindex: u32) -> Option<&Interface>;
    /// Returns whether a backend on this host may reply to remote clients from a port.
    fn is_local_reply_port(&self, port: Port, protocol: u8) -> bool;
    /// Marks a port as one from which a backend on this host replies to remote clients.
    fn mark_local_reply_port(&self, port: Port, protocol: u8);
}

/// Clock, random numbers and the event ring buffer.
pub trait Environment {
    /// Returns 32 random bits.
    fn random(&self) -> u32;
    /// Returns the monotonic clock, in nanoseconds.
    fn now(&self) -> u64;
    /// Returns the monotonic clock as of the kernel's last tick, at most 10 ms late. Reading the exact clock costs as
    /// much as three map lookups, so this one serves for whatever is compared with longer times only.
    fn coarse_now(&self) -> u64 {
        self.now()
    }
    /// Sends an event to the agent. Returns false if the ring buffer is full.
    fn emit(&self, event: &Event) -> bool;
}

/// The decisions that the object has as BPF subprograms, so that the verifier checks each once and not at each call.
pub trait Subprograms {
    /// Calls [`crate::select()`].
    ///
    /// # Errors
    /// The reason why the flow must be refused.
    fn select(&self, service: u32, params: SelectParams, hash: u64) -> Result<(u32, Reason), Reason>;
    /// Calls [`crate::score_slot`].
    fn score_slot(&self, index: u32, params: SelectParams) -> SlotScore;
    /// Calls [`crate::slot_share`].
    fn slot_share(&self, index: u32, id: u32, now: u64) -> EjectionShares;
    /// Calls [`crate::netns_match`].
    fn netns_match(&self, service: u32, netns: u64) -> NetnsMatch;
    /// Calls [`crate::eject`].
    fn eject(&self, service: u32, id: u32) -> u64;
}

/// All that a decision about a socket needs.
pub trait DataPlane: Tables + Environment + Subprograms {}

impl<T: Tables + Environment + Subprograms> DataPlane for T {}

/// A packet at a hook, with what the hook can do with it.
pub trait PacketHook: Packet {
    /// Looks up the route of a packet that will be rewritten to `to`, and keeps the result for sending.
    fn fib_lookup(&mut self, header: &IpHeader, to: &FiveTuple) -> Route;
    /// Turns the packet into an ICMP error for its sender. Returns false if that is impossible.
    fn reply_icmp(&mut self, header: &IpHeader, error: IcmpError) -> bool;
    /// Returns the listener on an address and port in the interface's network namespace. `from` is the packet's source:
    /// a connected UDP socket receives only from its peer.
    fn listener(&self, from: (Address, Port), to: (&Address, Port), protocol: u8) -> Listener;
}

/// The client of a flow. Each method may cost a helper call, so decisions call only those that they need.
pub trait Caller {
    /// Returns the cookie of the socket's network namespace.
    fn netns(&self) -> u64;
    /// Returns the address that the socket is bound to; an unspecified address if it is not bound.
    fn bound(&self) -> Address;
    /// Returns the port that the socket is bound to; 0 if it is not bound.
    fn bound_port(&self) -> u32;
    /// Returns SO_MARK of the socket.
    fn mark(&self) -> u32;
    /// Returns the process id, in the initial pid namespace.
    fn tgid(&self) -> u32;
    /// Returns the user id of the process, in the initial user namespace.
    fn uid(&self) -> u32;
    /// Returns the cgroup id of the process.
    fn cgroup(&self) -> u64;
    /// Returns the id of the process's ancestor cgroup at a level (the root has level 0); 0 if there is none.
    fn ancestor(&self, level: u32) -> u64;
    /// Calls [`crate::cgroup_listed`], which the object has as a subprogram.
    fn cgroup_listed(&self, service: Option<u32>) -> bool;
    /// Returns the listener on an address and port in the socket's network namespace.
    fn listener(&self, address: &Address, port: Port, protocol: u8) -> Listener;
    /// Returns the identity of the client for affinity.
    fn client(&self) -> Client {
        Client { cgroup: self.cgroup(), netns: self.netns() }
    }
    /// Returns whether the client is on another machine.
    #[inline(always)]
    fn remote(&self) -> bool {
        false
    }
    /// Returns the policy that applies to this client if the service has `policy`.
    #[inline(always)]
    fn policy(&self, policy: Policy) -> Policy {
        policy
    }
    /// Returns the input of consistent hashing.
    #[inline(always)]
    fn hash_input(&self) -> u64 {
        hash64(u64::from(self.tgid()), u64::from(self.bound_port()))
    }
}
