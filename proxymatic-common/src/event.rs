//! The events that hooks send to the agent.

use crate::{Address, Port, assert_packed, plain_bytes};

/// What happened.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventKind(pub u32);

impl EventKind {
    /// A hook refused a connection; `reason` is the cause. At most ten a second for each service.
    pub const REFUSED: Self = Self(1);
    /// A backend refused a TCP connection or did not answer it.
    pub const FAILED: Self = Self(2);
    /// A hook sent a connection to a backend. Only a sample of connections has this event.
    pub const CONNECTED: Self = Self(3);
    /// A program bound a service port and so replaces the service for programs in its network namespace.
    pub const BOUND: Self = Self(4);
    /// A program closed a socket that was bound to a service port of the host. Only the agent reads this event.
    pub const UNBOUND: Self = Self(5);
    /// An unprivileged program's bind of a service port was refused, because only root may have the port.
    pub const BIND_REFUSED: Self = Self(6);

    /// The name in tables, JSON and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::REFUSED => "refused",
            Self::FAILED => "failed",
            Self::CONNECTED => "connected",
            Self::BOUND => "bound",
            Self::UNBOUND => "unbound",
            Self::BIND_REFUSED => "bind_refused",
            _ => "unknown",
        }
    }
}

/// One record of `EVENTS`. A field that does not apply is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// The time: nanoseconds of the monotonic clock.
    pub at: u64,
    /// The cgroup of the program that connected.
    pub cgroup: u64,
    /// What happened.
    pub kind: EventKind,
    /// The number of the [`crate::Reason`].
    pub reason: u32,
    /// The id of the service.
    pub service: u32,
    /// The id of the backend.
    pub backend: u32,
    /// The backend's generation.
    pub generation: u32,
    /// The process that connected: its id in the initial pid namespace.
    pub pid: u32,
    /// The age of the connection attempt, in microseconds.
    pub age_us: u32,
    /// The duration of the backend's ejection, in milliseconds; 0 if it is not ejected.
    pub ejected_ms: u32,
    /// The address to which the program connected.
    pub destination: Address,
    /// The port to which the program connected.
    pub destination_port: Port,
    /// IPPROTO number.
    pub protocol: u8,
    /// Always zero.
    pub _pad: [u8; 5],
}

impl Event {
    /// An event with all fields zero.
    pub const EMPTY: Self = Self {
        at: 0,
        cgroup: 0,
        kind: EventKind(0),
        reason: 0,
        service: 0,
        backend: 0,
        generation: 0,
        pid: 0,
        age_us: 0,
        ejected_ms: 0,
        destination: Address::ZERO,
        destination_port: Port::new(0),
        protocol: 0,
        _pad: [0; 5],
    };
}

assert_packed!(Event = u64, u64, EventKind, u32, u32, u32, u32, u32, u32, u32, Address, Port, u8, [u8; 5]);

plain_bytes!(EventKind, Event);
