//! What the agent tells the hooks, and those who look at the pins, of itself.

use crate::{assert_packed, bit_set, plain_bytes};

/// From which network namespaces the loopback addresses lead to services.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loopback(pub u32);

impl Loopback {
    /// From none.
    pub const NONE: Self = Self(0);
    /// From the host's own.
    pub const HOST: Self = Self(1);
    /// From every one.
    pub const ALL: Self = Self(2);
}

/// What the hooks are to look at: a set of bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookFlags(pub u32);

impl HookFlags {
    /// A listener in the socket's namespace comes before the service of its port.
    pub const LISTENERS: Self = Self(1);
    /// Programs of the cgroups in `EXCLUDED` are left alone.
    pub const EXCLUDED: Self = Self(1 << 1);
}

/// What the agent last said of itself.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentState(pub u32);

impl AgentState {
    /// No source has given a complete answer yet; what was pinned before is served.
    pub const INITIALIZING: Self = Self(0);
    /// The tables follow the sources.
    pub const OK: Self = Self(1);
    /// The agent is about to leave; the data plane stays.
    pub const TERMINATING: Self = Self(2);

    /// The word of the status endpoint of `meltwater/proxymatic`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::INITIALIZING => "INITIALIZING",
            Self::OK => "OK",
            Self::TERMINATING => "TERMINATING",
            _ => "UNKNOWN",
        }
    }
}

/// The one entry of `CONFIG`. All zero until an agent has written it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// [`crate::ABI_VERSION`] of who wrote the maps; 0 in maps that nobody has written yet.
    pub abi: u32,
    /// From where loopback addresses lead to services.
    pub loopback: Loopback,
    /// The cookie of the host's network namespace.
    pub host_netns: u64,
    /// The id of the cgroup that the hooks are attached to: the inode number of its directory.
    pub cgroup: u64,
    /// When the agent last went round its loop: nanoseconds of the monotonic clock.
    pub heartbeat: u64,
    /// When the last complete answer of the sources was applied: nanoseconds of the monotonic clock; 0 for never.
    pub synced: u64,
    /// What the agent last said of itself.
    pub agent: AgentState,
    /// The agent's process id, in its own pid namespace.
    pub pid: u32,
    /// The agent's process id in the initial pid namespace, whose sockets are left alone; 0 where it is not known.
    pub agent_tgid: u32,
    /// Sockets with this SO_MARK are left alone; 0 for none.
    pub bypass_mark: u32,
    /// What the hooks are to look at.
    pub hook_flags: HookFlags,
    /// One of so many connections is told in `EVENTS`; 0 for none.
    pub event_sample_rate: u32,
    /// The first of the source ports that connections of clients on other machines get on their way to a backend. These
    /// ports are reserved: no socket of this host has one.
    pub snat_first: u32,
    /// The last of them; 0 where no interface is served.
    pub snat_last: u32,
}
assert_packed!(Config = u32, Loopback, u64, u64, u64, u64, AgentState, u32, u32, u32, HookFlags, u32, u32, u32);

bit_set!(HookFlags);
plain_bytes!(Loopback, HookFlags, AgentState, Config);
