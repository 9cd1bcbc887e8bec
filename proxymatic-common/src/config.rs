//! The agent's settings and status, for the hooks and for readers of the pins.

use crate::{assert_packed, bit_set, plain_bytes};

/// The network namespaces in which loopback addresses resolve to services.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loopback(pub u32);

impl Loopback {
    /// None.
    pub const NONE: Self = Self(0);
    /// Only the host's own.
    pub const HOST: Self = Self(1);
    /// All.
    pub const ALL: Self = Self(2);
}

/// The checks that hooks make: a set of bits.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookFlags(pub u32);

impl HookFlags {
    /// A listener in the socket's network namespace takes precedence over the service on its port.
    pub const LISTENERS: Self = Self(1);
    /// Hooks leave programs of the cgroups in `EXCLUDED` alone.
    pub const EXCLUDED: Self = Self(1 << 1);
    /// Only root may bind a service port; another program gets EADDRINUSE.
    pub const ROOT_WINS: Self = Self(1 << 2);
}

/// The agent's last published status.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentState(pub u32);

impl AgentState {
    /// No source has given a complete answer yet; hooks serve the state that was pinned before.
    pub const INITIALIZING: Self = Self(0);
    /// The maps follow the sources.
    pub const OK: Self = Self(1);
    /// The agent is about to exit; the data plane stays.
    pub const TERMINATING: Self = Self(2);

    /// Returns the word for the status endpoint, as in `meltwater/proxymatic`.
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
    /// The [`crate::ABI_VERSION`] of the agent that wrote the maps; 0 in maps that no agent has written yet.
    pub abi: u32,
    /// The network namespaces in which loopback addresses resolve to services.
    pub loopback: Loopback,
    /// The cookie of the host's network namespace.
    pub host_netns: u64,
    /// The id of the cgroup that the hooks are attached to: the inode number of its directory.
    pub cgroup: u64,
    /// The time of the agent's last loop iteration: nanoseconds of the monotonic clock.
    pub heartbeat: u64,
    /// The time when the sources' last complete answer was applied: nanoseconds of the monotonic clock; 0 for never.
    pub synced: u64,
    /// The agent's last published status.
    pub agent: AgentState,
    /// The agent's process id, in its own pid namespace.
    pub pid: u32,
    /// The agent's process id in the initial pid namespace. Hooks leave its sockets alone.
    pub agent_tgid: u32,
    /// Hooks leave sockets with this SO_MARK alone; 0 for none.
    pub bypass_mark: u32,
    /// The checks that hooks make.
    pub hook_flags: HookFlags,
    /// One in this many connections writes a record to `EVENTS`; 0 for none.
    pub event_sample_rate: u32,
    /// The first SNAT port for remote clients' connections. The SNAT ports are reserved: no socket of this host uses
    /// one.
    pub snat_first: u32,
    /// The last SNAT port; 0 if no interface is served.
    pub snat_last: u32,
    /// The first port that a program binds without CAP_NET_BIND_SERVICE (net.ipv4.ip_unprivileged_port_start).
    pub first_unprivileged_port: u32,
    /// Always zero.
    pub _pad: u32,
}
assert_packed!(
    Config = u32,
    Loopback,
    u64,
    u64,
    u64,
    u64,
    AgentState,
    u32,
    u32,
    u32,
    HookFlags,
    u32,
    u32,
    u32,
    u32,
    u32
);

bit_set!(HookFlags);
plain_bytes!(Loopback, HookFlags, AgentState, Config);
