//! What a program dials, and how it is served.

use crate::{Cell64, Port, assert_packed, bit_set, cell::open_count, plain_bytes};

/// A set of addresses that mean the same thing.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Class(pub u32);

impl Class {
    /// Every address of this host.
    pub const HOST: Self = Self(1);
}

/// IPPROTO_TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// IPPROTO_UDP.
pub const PROTOCOL_UDP: u8 = 17;

/// The key under which a service is found.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The class of the address that is dialled.
    pub class: Class,
    /// The service port.
    pub port: Port,
    /// IPPROTO number.
    pub protocol: u8,
    /// Always zero.
    pub zero: u8,
}
assert_packed!(Frontend = Class, Port, u8, u8);

impl Frontend {
    /// The key of a service on one class of addresses.
    #[inline(always)]
    pub const fn new(class: Class, port: Port, protocol: u8) -> Self {
        Self { class, port, protocol, zero: 0 }
    }
}

/// How a backend is chosen.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy(pub u32);

impl Policy {
    /// The less loaded of two drawn by weight.
    pub const LEASTCONN: Self = Self(0);
    /// One drawn by weight.
    pub const RANDOM: Self = Self(1);
    /// The next in turn, by weight.
    pub const ROUNDROBIN: Self = Self(2);
    /// By who dials: the same client the same backend, as long as that is eligible.
    pub const SOURCE: Self = Self(3);
    /// The one that answers sooner, of two drawn by weight.
    pub const LATENCY: Self = Self(4);
    /// Consistent hashing of client and source port.
    pub const MAGLEV: Self = Self(5);

    /// The word in labels and in what the commands show.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LEASTCONN => "leastconn",
            Self::RANDOM => "random",
            Self::ROUNDROBIN => "roundrobin",
            Self::SOURCE => "source",
            Self::LATENCY => "latency",
            Self::MAGLEV => "maglev",
            _ => "unknown",
        }
    }

    /// Whether slots are found by a hash, so that they must be laid out as a maglev table.
    #[inline(always)]
    pub const fn is_hashed(self) -> bool {
        self.0 == Self::SOURCE.0 || self.0 == Self::MAGLEV.0
    }
}

/// Who told us of a service.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceCode(pub u32);

impl SourceCode {
    /// Nobody: the id is free.
    pub const NONE: Self = Self(0);
    /// Marathon.
    pub const MARATHON: Self = Self(1);
    /// registrator, by way of etcd.
    pub const REGISTRATOR: Self = Self(2);
    /// A file on this host.
    pub const FILE: Self = Self(3);
    /// The agent itself, to test that services are reached.
    pub const SELF: Self = Self(4);

    /// The word in what the commands show.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NONE => "none",
            Self::MARATHON => "marathon",
            Self::REGISTRATOR => "registrator",
            Self::FILE => "file",
            Self::SELF => "self",
            _ => "unknown",
        }
    }
}

/// What a service has beyond a port and backends: a set of bits, each a table to look at.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u32);

impl Features {
    /// Only those may connect whom `ALLOW` or `SOURCE_CGROUPS` names.
    pub const ALLOW: Self = Self(1);
    /// A replica on this host listens on the service port itself: a listener there is not a stranger.
    pub const OWN_LISTENER: Self = Self(1 << 1);
    /// TCP connections to a backend that is gone are reset, not only UDP sockets.
    pub const RESET: Self = Self(1 << 2);
    /// Clients on other machines are served.
    pub const EXPOSE: Self = Self(1 << 3);
}

/// The settings of a service, by id. One cache line that only the agent writes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// How a backend is chosen.
    pub policy: Policy,
    /// Who told us of it; [`SourceCode::NONE`] where the id is free.
    pub source: SourceCode,
    /// Which other tables speak of it.
    pub features: Features,
    /// The most connections open from this host at once, to all its backends together; 0 for no bound.
    pub maxconn: u32,
    /// How long a client stays with its backend after its last connection, in seconds; 0 for not at all.
    pub affinity: u32,
    /// TCP_SYNCNT of its connections: how often an unanswered SYN is sent again; 0 leaves it to the system.
    pub syn_retries: u32,
    /// How long an unanswered SYN may take, in ms, of which `syn_retries` is the nearest the kernel offers; 0 for the
    /// system's.
    pub connect_ms: u32,
    /// How long the client's side may be idle, in ms; 0 for ever.
    pub idle_client_ms: u32,
    /// How long the backend's side may be idle, in ms; 0 for ever.
    pub idle_server_ms: u32,
    /// Always zero: room for what comes, within one cache line.
    pub rest: [u32; 7],
}
assert_packed!(Service = Policy, SourceCode, Features, u32, u32, u32, u32, u32, u32, [u32; 7]);
const _: () = assert!(size_of::<Service>() == 64, "one cache line");

impl Service {
    /// The settings of an id that nobody owns.
    pub const FREE: Self = Self::new(Policy::LEASTCONN, SourceCode::NONE);

    /// A service without bounds, timeouts or lists.
    pub const fn new(policy: Policy, source: SourceCode) -> Self {
        Self {
            policy,
            source,
            features: Features(0),
            maxconn: 0,
            affinity: 0,
            syn_retries: 0,
            connect_ms: 0,
            idle_client_ms: 0,
            idle_server_ms: 0,
            rest: [0; 7],
        }
    }
}

/// What the kernel counts of a service, by id. Two cache lines, so that neighbours do not share one.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ServiceStats {
    /// Connections opened, ever.
    pub opened: Cell64,
    /// Connections closed, ever; those open are the difference.
    pub closed: Cell64,
    /// Whose turn it is: counts on for ever.
    pub turn: Cell64,
    /// When a refusal was last told in `EVENTS`: nanoseconds of the monotonic clock.
    pub last_refusal_event: Cell64,
    /// Refusals, by [`crate::Reason::refusal`].
    pub refused: [Cell64; 8],
    /// How often somebody has bound the service port or begun to listen on it, and once for what was there before the
    /// service.
    pub bound: Cell64,
    /// What `bound` was when the agent last saw that nobody listens there: while it is the same, nobody does.
    pub no_listener_seq: Cell64,
    /// Room for what comes.
    rest: [u64; 2],
}
const _: () = assert!(size_of::<ServiceStats>() == 128, "two cache lines");

impl ServiceStats {
    /// Connections open now.
    #[inline(always)]
    pub fn active(&self) -> u64 {
        open_count(&self.opened, &self.closed)
    }

    /// Whether somebody may be listening on the service port.
    #[inline(always)]
    pub fn may_have_listener(&self) -> bool {
        self.bound.get() != self.no_listener_seq.get()
    }

    /// All cells, to be set for a new owner: nothing is counted, and nobody knows yet who listens.
    #[cfg(not(target_arch = "bpf"))]
    pub fn reset(&self) {
        let Self { opened, closed, turn, last_refusal_event, refused, bound, no_listener_seq, rest: _ } = self;
        bound.set(1);
        for cell in [opened, closed, turn, last_refusal_event, no_listener_seq].into_iter().chain(refused) {
            cell.set(0);
        }
    }
}

bit_set!(Features);
plain_bytes!(Class, Frontend, Policy, SourceCode, Features, Service);
