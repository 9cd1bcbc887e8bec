#![no_std]
//! The decisions of the data plane: a flow and the tables in, a verdict out.
//!
//! Generic over [`Tables`] and [`Caller`], so that the eBPF programs and the tests on a developer's machine run the same
//! code. Nothing here knows a hook, a map or aya; nothing in the hooks decides.

#[cfg(test)]
extern crate std;

mod admit;
mod begin;
mod forward;
mod look;
mod object;
mod outcome;
pub mod packet;
mod remote;
mod route;
mod select;
mod share;
mod socket;
mod tell;
mod track;

pub use admit::listed;
pub use begin::{choose, connect};
pub use forward::{Fate, Notes, Step, Way, accelerate, early, meet, send, send_error};
pub use look::{Seen, look};
pub use outcome::{eject, established, failed};
pub use route::{Choice, Flow, Verdict, may_be_service, route};
pub use select::{Draw, select};
pub use share::{Shares, share};
pub use socket::{connected, release, repeat, reverse, sent};
pub use tell::{bound, listens, refused, sampled};

use proxymatic_common::{
    Address, Affinity, AffinityKey, Backend, BackendStats, Cell64, Class, Client, Config, CtEntry, CtEntryAtomic,
    Event, FiveTuple, FragmentKey, FragmentPorts, Frontend, Interface, Policy, Port, Reason, Service, ServiceStats,
    Slot, SlotRange, SourceCgroup, SourceRangeKey,
};

/// What a decision reads and counts. The programs answer from BPF maps, the tests from plain memory.
pub trait Tables {
    /// What the agent set; `None` only where there is no map at all.
    fn config(&self) -> Option<&Config>;
    /// A word of service ports, 64 bits of them.
    fn ports(&self, word: u32) -> u64;
    /// The class of an address that is not a loopback one.
    fn class(&self, address: &Address) -> Option<Class>;
    /// The id of a service.
    fn frontend(&self, frontend: &Frontend) -> Option<u32>;
    /// The settings of a service.
    fn service(&self, id: u32) -> Option<&Service>;
    /// What is counted of a service.
    fn service_load(&self, id: u32) -> Option<&ServiceStats>;
    /// A service's head; the zero head where the id has none.
    fn head(&self, service: u32) -> SlotRange;
    /// A slot by index.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// A backend by id.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// What is counted of a backend.
    fn load(&self, id: u32) -> Option<&BackendStats>;
    /// Where a client was sent last.
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Notes where a client was sent. May fail: then the client is sent anew.
    fn remember(&self, key: &AffinityKey, affinity: &Affinity);
    /// Whether a network that contains the address is on the allow list.
    fn allows(&self, key: &SourceRangeKey) -> bool;
    /// Whether a cgroup is on the allow list.
    fn allows_cgroup(&self, key: &SourceCgroup) -> bool;
    /// Whether programs of a cgroup are to be left alone.
    fn excludes(&self, cgroup: u64) -> bool;
    /// Draws a backend of a service for a flow: [`select`], which the programs want verified once and not at each call.
    fn select(&self, service: u32, draw: Draw, hash: u64) -> Result<(u32, Reason), Reason>;
    /// Looks at the backend of one slot: [`look`], which the programs want verified once too.
    fn look(&self, index: u32, draw: Draw) -> Seen;
    /// What one slot stands for of the backends of a service: [`share`], which the programs want verified once too.
    fn share(&self, index: u32, id: u32, now: u64) -> Shares
    where
        Self: Sized,
    {
        share(self, index, id, now)
    }
    /// Ejects a backend that failed: [`eject`], which the programs want verified once too.
    fn eject(&self, service: u32, id: u32) -> u64
    where
        Self: Sized,
    {
        eject(self, service, id)
    }
    /// 32 random bits.
    fn random(&self) -> u32;
    /// Nanoseconds of the monotonic clock.
    fn now(&self) -> u64;
    /// The same, up to a tick of the kernel late (at most 10 ms), for what is not compared with anything shorter: to read
    /// the clock exactly costs as much as three lookups.
    fn about_now(&self) -> u64 {
        self.now()
    }
    /// Adds one.
    #[inline(always)]
    fn add(&self, cell: &Cell64) {
        self.raise(cell, 1);
    }
    /// Adds so many.
    fn raise(&self, cell: &Cell64, by: u64);
    /// Adds one to a reason's counter.
    fn count(&self, reason: Reason);
    /// Tells the agent. False where it cannot be told.
    fn tell(&self, event: &Event) -> bool;
}

/// What decisions on packets read and write beside [`Tables`].
pub trait Connections: Tables {
    /// The half of an open connection that packets of this tuple belong to.
    fn connection(&self, key: &FiveTuple) -> Option<&CtEntryAtomic>;
    /// The same of a connection that is not open yet.
    fn handshake(&self, key: &FiveTuple) -> Option<&CtEntryAtomic>;
    /// Makes a half. False where there is no memory, or where there is one and `only_new` is asked for.
    fn put(&self, stage: Stage, key: &FiveTuple, half: &CtEntry, only_new: bool) -> bool;
    /// Forgets a half. False where there was none.
    fn forget(&self, stage: Stage, key: &FiveTuple) -> bool;
    /// Changes both halves of a connection that began at `start`, while no other processor changes either. `change` may read
    /// and write cells and do nothing else: the verifier takes no call of a helper under a lock.
    fn locked<R>(&self, start: u64, change: impl FnOnce() -> R) -> Option<R>;
    /// What the first fragment of a packet said.
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts>;
    /// Notes what the first fragment of a packet says. May fail: then the others are not known.
    fn note_fragment(&self, key: &FragmentKey, ports: &FragmentPorts);
    /// What is behind an interface.
    fn interface(&self, number: u32) -> Option<&Interface>;
    /// Whether a backend on this host may answer remote clients from a port.
    fn answers_from(&self, port: Port, protocol: u8) -> bool;
    /// Notes that one will.
    fn will_answer_from(&self, port: Port, protocol: u8);
}

/// Which of the two tables of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `CT_HALF_OPEN`: not open yet.
    Handshake,
    /// `CONNTRACK`: open, or closed a short while ago.
    Open,
}

/// What a hook on packets offers beside the packet itself.
pub trait Hook: packet::Packet {
    /// Finds the way of a packet that becomes what `to` says, and keeps it in mind.
    fn way(&mut self, header: &packet::Network, to: &FiveTuple) -> Way;
    /// Turns the packet into an ICMP error for its sender. False where that cannot be done.
    fn answer(&mut self, header: &packet::Network, error: packet::Answer) -> bool;
    /// What listens on an address and port in the namespace of the interface.
    fn listener(&self, address: &Address, port: Port, protocol: u8) -> Listener;
}

/// Who dials. Asked only for what a decision needs, since each answer costs.
pub trait Caller {
    /// The cookie of the network namespace that the socket is in.
    fn netns(&self) -> u64;
    /// The address that the socket is bound to; an unspecified one where it is free.
    fn bound(&self) -> Address;
    /// The port that the socket is bound to; 0 where it is free.
    fn bound_port(&self) -> u32;
    /// SO_MARK of the socket.
    fn mark(&self) -> u32;
    /// The process, in the initial pid namespace.
    fn tgid(&self) -> u32;
    /// The cgroup of the process.
    fn cgroup(&self) -> u64;
    /// The cgroup above that of the process at a level below the root, which is level 0; 0 where there is none.
    fn ancestor(&self, level: u32) -> u64;
    /// Whether the process is of a cgroup on the allow list of a service, or of an excluded one where none is given:
    /// [`listed`], which the programs want verified once.
    fn listed(&self, service: Option<u32>) -> bool;
    /// What listens in the socket's namespace on an address and port.
    fn listener(&self, address: &Address, port: Port, protocol: u8) -> Listener;
    /// Who dials, for affinity.
    fn client(&self) -> Client {
        Client { cgroup: self.cgroup(), netns: self.netns() }
    }
    /// Whether it is on another machine.
    #[inline(always)]
    fn remote(&self) -> bool {
        false
    }
    /// How a backend is chosen for it where the service says `policy`.
    #[inline(always)]
    fn policy(&self, policy: Policy) -> Policy {
        policy
    }
    /// What consistent hashing goes by.
    #[inline(always)]
    fn spread(&self) -> u64 {
        route::mixed(u64::from(self.tgid()), u64::from(self.bound_port()))
    }
}

/// What listens on a port in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listener {
    /// Nothing.
    None,
    /// A socket that is bound to a loopback address.
    Loopback,
    /// A socket that is bound to any other address, or to all.
    Other,
}

#[cfg(test)]
mod fixture;
