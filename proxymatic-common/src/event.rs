//! What the hooks tell the agent as it happens.

use crate::{Address, Port, assert_packed, plain_bytes};

/// What happened.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventKind(pub u32);

impl EventKind {
    /// A connection was refused; `reason` says why. At most ten a second for each service.
    pub const REFUSED: Self = Self(1);
    /// A backend refused a TCP connection or did not answer it.
    pub const FAILED: Self = Self(2);
    /// A connection was sent to a backend. A sample.
    pub const CONNECTED: Self = Self(3);
    /// A program has bound a service port, and so takes its place for those in its namespace.
    pub const BOUND: Self = Self(4);

    /// The name in tables, JSON and logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::REFUSED => "refused",
            Self::FAILED => "failed",
            Self::CONNECTED => "connected",
            Self::BOUND => "bound",
            _ => "unknown",
        }
    }
}

/// One record of `EVENTS`. What does not apply is zero.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// When: nanoseconds of the monotonic clock.
    pub at: u64,
    /// The cgroup of the program that dialled.
    pub cgroup: u64,
    /// What happened.
    pub kind: EventKind,
    /// [`crate::Reason`] as a number.
    pub reason: u32,
    /// The service.
    pub service: u32,
    /// The backend, and its generation.
    pub backend: u32,
    /// The backend's generation.
    pub generation: u32,
    /// The process that dialled, in the initial pid namespace.
    pub pid: u32,
    /// How long the connection had been tried, in microseconds.
    pub age_us: u32,
    /// For how long the backend is ejected, in milliseconds; 0 where it is not.
    pub ejected_ms: u32,
    /// What was dialled.
    pub destination: Address,
    /// The port that was dialled.
    pub destination_port: Port,
    /// IPPROTO number.
    pub protocol: u8,
    /// Always zero.
    pub zero: [u8; 5],
}
assert_packed!(Event = u64, u64, EventKind, u32, u32, u32, u32, u32, u32, u32, Address, Port, u8, [u8; 5]);

plain_bytes!(EventKind, Event);
