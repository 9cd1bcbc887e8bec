//! A service: its key, its settings and its counters.

use crate::{Cell64, Port, assert_packed, bit_set, cell::open_count, plain_bytes};

/// An address class: a set of addresses that mean the same services.
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

/// The key of a service in `FRONTENDS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The address class of the destination.
    pub class: Class,
    /// The service port.
    pub port: Port,
    /// IPPROTO number.
    pub protocol: u8,
    /// Always zero.
    pub _pad: u8,
}
assert_packed!(Frontend = Class, Port, u8, u8);

impl Frontend {
    /// Makes the key of a service in one address class.
    #[inline(always)]
    pub const fn new(class: Class, port: Port, protocol: u8) -> Self {
        Self { class, port, protocol, _pad: 0 }
    }
}

/// The rule that picks a backend.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy(pub u32);

impl Policy {
    /// Draws two backends by weight and picks the less loaded one.
    pub const LEASTCONN: Self = Self(0);
    /// Draws one backend by weight.
    pub const RANDOM: Self = Self(1);
    /// Picks the next backend in turn, by weight.
    pub const ROUNDROBIN: Self = Self(2);
    /// Picks by client: the same client gets the same backend, as long as that backend is eligible.
    pub const SOURCE: Self = Self(3);
    /// Draws two backends by weight and picks the one with the lower latency.
    pub const LATENCY: Self = Self(4);
    /// Consistent hashing of client and source port.
    pub const MAGLEV: Self = Self(5);

    /// Returns the word for labels and command output.
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

    /// Returns the policy for the remote clients of a service: consistent hashing in place of policies that compare
    /// load, since the counters of one host do not show the load of a backend to which many hosts forward. With
    /// hashing, all hosts select the same backend for a client.
    #[must_use]
    #[inline(always)]
    pub const fn for_remote_clients(self) -> Self {
        match self {
            Self::ROUNDROBIN | Self::SOURCE => self,
            _ => Self::MAGLEV,
        }
    }

    /// Returns the layout of the slots: a maglev table if a hash picks the slot for local clients or, if the service is
    /// `exposed`, for remote clients.
    pub const fn slot_layout(self, exposed: bool) -> SlotLayout {
        if self.is_hashed() || exposed && self.for_remote_clients().is_hashed() {
            SlotLayout::MaglevTable
        } else {
            SlotLayout::ByWeight
        }
    }

    const fn is_hashed(self) -> bool {
        matches!(self, Self::SOURCE | Self::MAGLEV)
    }
}

/// What the slots of a service look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotLayout {
    /// Each backend has slots in proportion to its weight, spread evenly.
    ByWeight,
    /// A maglev table, in which few slots change if backends come or go.
    MaglevTable,
}

/// The kind of source from which a service comes.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SourceCode(pub u32);

impl SourceCode {
    /// No source: the id is free.
    pub const NONE: Self = Self(0);
    /// Marathon.
    pub const MARATHON: Self = Self(1);
    /// registrator, by way of etcd.
    pub const REGISTRATOR: Self = Self(2);
    /// A file on this host.
    pub const FILE: Self = Self(3);
    /// The agent itself, for its self-test.
    pub const SELF: Self = Self(4);

    /// Returns the word for command output.
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

/// The optional features of a service: a set of bits. A bit makes hooks read another map or act differently.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u32);

impl Features {
    /// Only clients in `SOURCE_RANGES` or `SOURCE_CGROUPS` may connect.
    pub const ALLOW: Self = Self(1);
    /// A replica on this host listens on the service port itself, so a listener there is not a foreign program.
    pub const OWN_LISTENER: Self = Self(1 << 1);
    /// The agent resets TCP connections to a backend that is gone, in addition to closing UDP sockets.
    pub const RESET: Self = Self(1 << 2);
    /// Remote clients may use the service.
    pub const EXPOSE: Self = Self(1 << 3);

    /// Returns all features, each with its name for `map dump` and its words for plans.
    #[cfg(not(target_arch = "bpf"))]
    pub const fn all() -> [(Self, &'static str, &'static str); 4] {
        [
            (Self::ALLOW, "allow", "allow list"),
            (Self::OWN_LISTENER, "own_listener", "own listener"),
            (Self::RESET, "reset", "reset"),
            (Self::EXPOSE, "expose", "expose"),
        ]
    }
}

/// The settings of a service, by id. One cache line that only the agent writes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The rule that picks a backend.
    pub policy: Policy,
    /// The kind of source; [`SourceCode::NONE`] if the id is free.
    pub source: SourceCode,
    /// The optional features.
    pub features: Features,
    /// The limit of open connections from this host to all backends together; 0 for none.
    pub maxconn: u32,
    /// How long a client stays with its backend after its last connection, in seconds; 0 for no affinity.
    pub affinity: u32,
    /// TCP_SYNCNT of the connections: the number of SYN retransmits; 0 for the system's setting.
    pub syn_retries: u32,
    /// The timeout for an unanswered SYN, in ms; 0 for the system's. `syn_retries` is the nearest value that the kernel
    /// offers.
    pub connect_ms: u32,
    /// The idle timeout of the client's side, in ms; 0 for none.
    pub idle_client_ms: u32,
    /// The idle timeout of the backend's side, in ms; 0 for none.
    pub idle_server_ms: u32,
    /// Always zero; reserved for future fields within one cache line.
    pub _reserved: [u32; 7],
}
assert_packed!(Service = Policy, SourceCode, Features, u32, u32, u32, u32, u32, u32, [u32; 7]);
const _: () = assert!(size_of::<Service>() == 64, "one cache line");

impl Service {
    /// The settings of an id without an owner.
    pub const FREE: Self = Self::new(Policy::LEASTCONN, SourceCode::NONE);

    /// Makes a service without limits, timeouts or lists.
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
            _reserved: [0; 7],
        }
    }

    /// Returns the settings that are numbers, as commands show them.
    #[cfg(not(target_arch = "bpf"))]
    pub const fn numbers(&self) -> [SettingNumber; 5] {
        let Self {
            policy: _,
            source: _,
            features: _,
            maxconn,
            affinity,
            syn_retries: _,
            connect_ms,
            idle_client_ms,
            idle_server_ms,
            _reserved: _,
        } = *self;
        [
            SettingNumber { word: "maxconn", unit: "", column: "maxconn", value: maxconn },
            SettingNumber { word: "affinity", unit: "s", column: "affinity_s", value: affinity },
            SettingNumber { word: "connect", unit: "ms", column: "connect_ms", value: connect_ms },
            SettingNumber { word: "client", unit: "ms", column: "client_ms", value: idle_client_ms },
            SettingNumber { word: "server", unit: "ms", column: "server_ms", value: idle_server_ms },
        ]
    }
}

/// A setting of a service that is a number, as commands show it.
#[cfg(not(target_arch = "bpf"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettingNumber {
    /// The word in plans.
    pub word: &'static str,
    /// The unit in plans.
    pub unit: &'static str,
    /// The column of `map dump`.
    pub column: &'static str,
    /// The number; 0 for a setting that is not used.
    pub value: u32,
}

/// The kernel's counters of a service, by id. Two cache lines, so that adjacent services do not share one.
#[repr(C)]
#[derive(Debug, Default)]
pub struct ServiceStats {
    /// Connections opened since the owner got the id.
    pub opened: Cell64,
    /// Connections closed since then; the difference is the number of open connections.
    pub closed: Cell64,
    /// The round-robin counter; it only grows.
    pub turn: Cell64,
    /// The time of the last refusal event in `EVENTS`: nanoseconds of the monotonic clock.
    pub last_refusal_event: Cell64,
    /// Refusals, indexed by [`crate::Reason::refusal`].
    pub refused: [Cell64; 8],
    /// How often a program bound the service port or began to listen on it, plus one for listeners older than the
    /// service.
    pub bind_seq: Cell64,
    /// The value of `bind_seq` when the agent last found no listener. As long as both are equal, there is no listener.
    pub no_listener_seq: Cell64,
    /// Reserved for future fields.
    _reserved: [u64; 2],
}
const _: () = assert!(size_of::<ServiceStats>() == 128, "two cache lines");

impl ServiceStats {
    /// Returns the number of open connections.
    #[inline(always)]
    pub fn active(&self) -> u64 {
        open_count(&self.opened, &self.closed)
    }

    /// Returns whether a program may be listening on the service port.
    #[inline(always)]
    pub fn may_have_listener(&self) -> bool {
        self.bind_seq.get() != self.no_listener_seq.get()
    }

    /// Resets all cells for a new owner: all counts are zero, and a listener is possible.
    #[cfg(not(target_arch = "bpf"))]
    pub fn reset(&self) {
        let Self { opened, closed, turn, last_refusal_event, refused, bind_seq, no_listener_seq, _reserved: _ } = self;
        bind_seq.set(1);
        for cell in [opened, closed, turn, last_refusal_event, no_listener_seq].into_iter().chain(refused) {
            cell.set(0);
        }
    }
}

bit_set!(Features);
plain_bytes!(Class, Frontend, Policy, SourceCode, Features, Service);
