//! The state of one packet between the stages of the pipeline.

use proxymatic_common::{Address, Cell64, CtEntry, CtFlags, FiveTuple, Port, Reason};

use crate::{
    packet::{self, IpHeader, L4Header, Parsed},
    types::Choice,
};

/// The state of one packet between stages. The programs keep it in a per-CPU map, since their stack is small. What an
/// earlier packet left in it is not cleared, and must not be read.
#[derive(Debug)]
#[repr(C)]
pub struct PacketCtx {
    /// The headers of the packet; for an ICMP error, the headers that the error quotes.
    pub(crate) header: L4Header,
    /// The IP header of an ICMP error.
    pub(crate) outer: IpHeader,
    /// The tuple of the packet, by which its entry is looked up.
    pub(crate) key: FiveTuple,
    /// The tuple that the packet gets.
    pub(crate) translated: FiveTuple,
    /// The key of the entry of the other direction.
    pub(crate) reverse_key: FiveTuple,
    /// The entry that is about to be inserted.
    pub(crate) new_entry: CtEntry,
    /// The flags of the packet's entry.
    pub(crate) flags: CtFlags,
    /// The backend that was selected.
    pub(crate) choice: Choice,
    /// The index of the interface by which the packet leaves; 0 if no lookup has found it yet.
    pub(crate) out_ifindex: u32,
    /// The best SNAT port to preempt. Here and not on the stack, because the verifier tracks each value on the stack
    /// and would check every combination; it knows nothing about values in a map.
    pub(crate) candidate: SnatCandidate,
}

impl PacketCtx {
    /// Parses a packet into this context.
    #[inline(always)]
    pub fn parse<P: packet::Packet>(&mut self, packet: &P) -> Parsed {
        packet::read(packet, &mut self.header, &mut self.outer)
    }

    /// Returns the IP header of the packet.
    #[inline(always)]
    pub const fn ip_header(&self) -> &IpHeader {
        &self.header.network
    }

    /// Returns an empty context.
    pub const fn empty() -> Self {
        let tuple = FiveTuple::new((Address::ZERO, Port::new(0)), (Address::ZERO, Port::new(0)), 0);
        Self {
            header: L4Header::NONE,
            outer: L4Header::NONE.network,
            key: tuple,
            translated: tuple,
            reverse_key: tuple,
            new_entry: CtEntry {
                translated: tuple,
                start: 0,
                last_seen: 0,
                state: 0,
                service: 0,
                backend: 0,
                generation: 0,
                flags: CtFlags(0),
            },
            flags: CtFlags(0),
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
            out_ifindex: 0,
            candidate: SnatCandidate::none(),
        }
    }
}

/// The two tables of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtTable {
    /// `CT_HALF_OPEN`.
    HalfOpen,
    /// `CONNTRACK`: established, or closed a short while ago.
    Established,
}

/// The route to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// By the interface with this index.
    Via(u32),
    /// By this interface, but the packet exceeds its MTU.
    TooBig {
        /// The index of the interface.
        out_ifindex: u32,
        /// The MTU in bytes, without the link-layer header.
        mtu: u32,
    },
    /// There is none.
    None,
}

/// The SNAT port that is the best to take from another connection.
#[derive(Debug)]
pub(crate) struct SnatCandidate {
    port: Port,
    /// Since when the port has been unused, in nanoseconds of the monotonic clock; with [`SnatCandidate::HALF_OPEN`] if
    /// a half-open connection has it. A cell, as the next field is, so that it is read in place: see
    /// [`PacketCtx::candidate`].
    since: Cell64,
    /// The number of half-open connections among the ports that were probed.
    half_open: Cell64,
}

impl SnatCandidate {
    /// Larger than any time, so that ports of closed connections come first.
    const HALF_OPEN: u64 = 1 << 63;

    pub(crate) const fn none() -> Self {
        Self { port: Port::new(0), since: Cell64::new(u64::MAX), half_open: Cell64::new(0) }
    }

    /// Forgets all offers.
    #[inline(always)]
    pub(crate) fn clear(&self) {
        self.since.set(u64::MAX);
        self.half_open.set(0);
    }

    #[inline(always)]
    pub(crate) fn is_none(&self) -> bool {
        self.since.get() == u64::MAX
    }

    #[inline(always)]
    pub(crate) fn is_half_open(&self) -> bool {
        self.since.get() & Self::HALF_OPEN != 0
    }

    #[inline(always)]
    pub(crate) fn port(&self) -> Port {
        self.port
    }

    #[inline(always)]
    pub(crate) fn since(&self) -> u64 {
        self.since.get()
    }

    #[inline(always)]
    pub(crate) fn half_open_count(&self) -> u64 {
        self.half_open.get()
    }

    /// Offers the port of a connection that is closed since a time.
    #[inline(always)]
    pub(crate) fn offer_closed(&mut self, port: Port, since: u64) {
        self.offer(port, since);
    }

    /// Offers the port of a connection that is half-open since a time.
    #[inline(always)]
    pub(crate) fn offer_half_open(&mut self, port: Port, since: u64) {
        self.offer(port, Self::HALF_OPEN | since);
        self.half_open.set(self.half_open.get() + 1);
    }

    /// Keeps the port that was offered if it has been unused for longer than the one before.
    #[inline(always)]
    fn offer(&mut self, port: Port, since: u64) {
        if since < self.since.get() {
            self.port = port;
            self.since.set(since);
        }
    }
}
