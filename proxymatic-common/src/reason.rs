//! The reasons: every verdict of a hook except a plain pass, under one name for code, metrics, commands and tests.

use crate::{Cell64, assert_packed};

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal),+ $(,)?) => {
        /// Why a hook did what it did. A hook counts no reason for a socket that has no relation to a service.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(u32)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant),+
        }

        impl Reason {
            /// All reasons, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name in metrics, tables and JSON.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// Returns a description in one sentence.
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
    /// Refused: every eligible backend is at its maxconn.
    BackendsFull = "backends_full",
    /// Refused: the service is at its maxconn for connections from this host.
    ServiceFull = "service_full",
    /// Refused: the allow list of the service does not name this client.
    NotAllowed = "not_allowed",
    /// Refused: the socket is bound to a loopback address, and the service has no backend on this host.
    BoundLoopback = "bound_loopback",
    /// Refused: the allow list of the service does not name this client's cgroup, and the address of its network
    /// namespace is unknown.
    UnknownNetns = "unknown_netns",
    /// Sent to an eligible backend.
    Translated = "translated",
    /// Sent to a draining backend, because the service has no active one.
    Drained = "drained",
    /// Sent to an ejected backend, because the service has no other.
    PanicMode = "panic_mode",
    /// Sent to the backend of an earlier connection of this client.
    AffinityHit = "affinity_hit",
    /// A datagram was sent to the backend of the datagram before it.
    UdpCached = "udp_cached",
    /// Sent to a backend without state for the socket (no memory): not counted as open, and getpeername shows the
    /// backend.
    NoSocketState = "no_socket_state",
    /// A peer name or a sender address was translated back to the program's destination.
    ReverseTranslated = "reverse_translated",
    /// Left alone: another program receives at the destination.
    LocalListener = "local_listener",
    /// Left alone: the socket is the agent's own, has the bypass mark, or belongs to an excluded cgroup.
    Bypassed = "bypassed",
    /// A program bound a service port.
    PortBound = "port_bound",
    /// A backend refused a connection or did not answer it.
    Failed = "failed",
    /// A program gave up a connection within a second, before the backend answered.
    Abandoned = "abandoned",
    /// A backend was ejected.
    Ejected = "ejected",
    /// A failed backend was not ejected: half of its service is ejected already.
    EjectionCapped = "ejection_capped",
    /// A slot named a backend whose id has a new owner; another slot was tried.
    StaleSlot = "stale_slot",
    /// A socket closed after its backend's id got a new owner: the close was not counted.
    StaleClose = "stale_close",
    /// An event was dropped: the ring buffer was full or had no reader.
    EventDropped = "event_dropped",
    /// A remote client's connection was sent to a backend on another machine.
    Forwarded = "forwarded",
    /// A remote client's connection was sent to a backend on this host.
    ForwardedLocal = "forwarded_local",
    /// A packet was forwarded by XDP, before it reached the kernel's network stack.
    ForwardedXdp = "forwarded_xdp",
    /// Left alone: a remote client connected to a service that is not exposed.
    NotExposed = "not_exposed",
    /// Left alone: no SNAT port was free for a remote client's connection.
    SnatPortsExhausted = "snat_ports_exhausted",
    /// Left alone: the route to the backend uses an interface without hooks, which would not intercept the replies.
    NoReturnPath = "no_return_path",
    /// Left alone or dropped: this host has no route to the backend or to the client.
    NoRoute = "no_route",
    /// Left alone: no memory for the conntrack entries of a remote client's connection.
    ConntrackFull = "conntrack_full",
    /// Left alone: a later fragment of a packet whose first fragment has not arrived or is not for a service.
    UnknownFragment = "unknown_fragment",
    /// Left alone: a packet with more headers than the hooks read, or with a truncated header.
    Unreadable = "unreadable",
    /// Dropped: the kernel had no memory to rewrite a packet.
    RewriteFailed = "rewrite_failed",
    /// A packet exceeded the MTU of its route: an ICMP error went to its sender.
    MtuExceeded = "mtu_exceeded",
    /// The TTL or hop limit of a packet ran out: an ICMP error went to its sender.
    TtlExceeded = "ttl_exceeded",
    /// An ICMP error about a remote client's connection was forwarded to the other end.
    IcmpErrorForwarded = "icmp_error_forwarded",
    /// A remote client's half-open connection lost its SNAT port to another one: all ports were taken.
    SnatPortPreempted = "snat_port_preempted",
    /// A program without privileges bound a service port and got EADDRINUSE.
    BindRefused = "bind_refused",
}

/// The number of refusals; they are the first reasons.
const REFUSALS: u32 = 6;

impl Reason {
    /// Returns the index of a refusal in [`crate::ServiceStats::refused`]; `None` if the reason is not a refusal.
    #[inline(always)]
    pub const fn refusal(self) -> Option<usize> {
        if (self as u32) < REFUSALS { Some(self as usize) } else { None }
    }

    /// Returns whether a refused program gets EACCES, as from a firewall, and not ECONNREFUSED, as from a host.
    #[inline(always)]
    pub const fn denies_access(self) -> bool {
        matches!(self, Self::NotAllowed | Self::UnknownNetns)
    }
}

/// The number of reasons with a counter.
pub const REASONS: usize = Reason::ALL.len();

/// The counters of one CPU. The map has a row for each possible CPU; a per-CPU map cannot be mapped into the agent's
/// memory. A row has 512 bytes, so that no two CPUs share a cache line.
#[repr(C)]
#[derive(Debug)]
pub struct Counters {
    /// The counters, indexed by [`Reason`].
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
    fn refusals_are_the_reasons_described_as_refused() {
        for reason in Reason::ALL {
            assert_eq!(reason.refusal().is_some(), reason.describe().starts_with("Refused: "), "{}", reason.name());
        }
    }
}
