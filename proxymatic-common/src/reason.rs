//! Every verdict that is not a plain pass, by the one name it has in code, metrics, commands and tests.

use crate::{Cell64, assert_packed};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal),+ $(,)?) => {
        /// Why a hook did what it did. A socket that has nothing to do with us gets no reason and is not counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant),+
        }

        impl Reason {
            /// All of them, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in metrics, tables and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// One sentence for people.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii_start()),+ }
            }

            /// Returns the reason that has this number; `None` if none has. `as u32` is the inverse.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                match number {
                    $(number if number == Self::$variant as u32 => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

reasons! {
    /// Refused: the service has no backend that this socket can reach.
    NoBackend = "no_backend",
    /// Refused: every backend that would do is at its maxconn.
    BackendsFull = "backends_full",
    /// Refused: the service has as many connections from this host as it may have.
    ServiceFull = "service_full",
    /// Refused: the allow list of the service does not name this client.
    NotAllowed = "not_allowed",
    /// Refused: the socket is bound to a loopback address, and no backend is on this host.
    BoundLoopback = "bound_loopback",
    /// Sent to an eligible backend.
    Translated = "translated",
    /// Sent to a draining backend, because the service has no active one.
    Drained = "drained",
    /// Sent to an ejected backend, because the service has no other.
    PanicMode = "panic_mode",
    /// Sent to the backend of an earlier connection of this client.
    AffinityHit = "affinity_hit",
    /// A datagram was sent to the backend of the one before it.
    UdpCached = "udp_cached",
    /// Sent to a backend, but the kernel had no memory for the socket's state: not counted as open, and its peer name
    /// shows the backend.
    NoSocketState = "no_socket_state",
    /// A peer name or a sender was given as what the program had dialled.
    ReverseTranslated = "reverse_translated",
    /// Left alone: a program in this namespace listens on the port itself.
    LocalListener = "local_listener",
    /// Left alone: the socket is the agent's own, has the bypass mark, or is of an excluded cgroup.
    Bypassed = "bypassed",
    /// A program has bound a service port.
    PortBound = "port_bound",
    /// A backend refused a connection or did not answer it.
    Failed = "failed",
    /// A program gave up a connection before the backend had answered, within a second.
    Abandoned = "abandoned",
    /// A backend was ejected.
    Ejected = "ejected",
    /// A backend that failed was not ejected: half of its service is already.
    EjectionCapped = "ejection_capped",
    /// A slot named a backend whose id has a new owner; another slot was tried.
    StaleSlot = "stale_slot",
    /// A socket closed after its backend's id had been given to another: the close was not counted.
    StaleClose = "stale_close",
    /// An event was not told: the ring buffer is full, or nobody reads it.
    EventDropped = "event_dropped",
    /// A connection of a client on another machine was sent to a backend on another machine.
    Forwarded = "forwarded",
    /// A connection of a client on another machine was sent to a backend on this host.
    ForwardedLocal = "forwarded_local",
    /// A packet was sent on by XDP, before the kernel had made anything of it.
    ForwardedXdp = "forwarded_xdp",
    /// Left alone: a client on another machine dialled a service that is not exposed to such.
    NotExposed = "not_exposed",
    /// Left alone: no source port was free for a connection from another machine to its backend.
    SnatPortsExhausted = "snat_ports_exhausted",
    /// Left alone: the way to the backend is by an interface that is not served, where no reply would be met.
    NoReturnPath = "no_return_path",
    /// Left alone or dropped: this host has no way to the backend or to the client.
    NoRoute = "no_route",
    /// Left alone: no memory for a connection from another machine.
    ConntrackFull = "conntrack_full",
    /// Left alone: a later fragment of a packet whose first one did not lead to a service, or has not come yet.
    UnknownFragment = "unknown_fragment",
    /// Left alone: a packet with more headers than are read, or with less than one.
    Unreadable = "unreadable",
    /// Dropped: the kernel had no memory to rewrite a packet.
    RewriteFailed = "rewrite_failed",
    /// A packet was larger than the way to the other end allows: its sender was told by ICMP.
    MtuExceeded = "mtu_exceeded",
    /// A packet had no hops left: its sender was told by ICMP.
    TtlExceeded = "ttl_exceeded",
    /// An ICMP error about a connection from another machine was led to the other end.
    IcmpErrorForwarded = "icmp_error_forwarded",
    /// A connection from another machine that was not open yet lost its source port to another: all were taken.
    SnatPortPreempted = "snat_port_preempted",
}

/// How many of the reasons, from the first on, are refusals.
const REFUSALS: u32 = 5;

impl Reason {
    /// Where a refusal is counted in [`crate::ServiceStats::refused`]; `None` for what is no refusal.
    #[inline(always)]
    pub const fn refusal(self) -> Option<usize> {
        if (self as u32) < REFUSALS { Some(self as usize) } else { None }
    }
}

/// How many reasons have a counter.
pub const REASONS: usize = Reason::ALL.len();

/// One CPU's counters. A row for each possible CPU rather than a per-CPU map, because those cannot be mapped into
/// the agent's memory; 512 bytes, so that no two CPUs share a cache line.
#[repr(C)]
#[derive(Debug)]
pub struct Counters {
    /// By [`Reason`].
    pub by_reason: [Cell64; 64],
}
assert_packed!(Counters = [u64; 64]);
const _: () = assert!(REASONS <= 64, "a reason without a counter");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_fit_a_metric_label() {
        for (i, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, i);
            assert_eq!(Reason::from_number(i as u32), Some(*reason));
            assert!(reason.name().bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{}", reason.name());
            assert_eq!(Reason::ALL.iter().filter(|other| other.name() == reason.name()).count(), 1);
        }
        assert_eq!(Reason::from_number(REASONS as u32), None);
        assert_eq!(Reason::Translated.describe(), "Sent to an eligible backend.");
    }

    #[test]
    fn refusals_are_those_that_say_so() {
        for reason in Reason::ALL {
            assert_eq!(reason.refusal().is_some(), reason.describe().starts_with("Refused: "), "{}", reason.name());
        }
    }
}
