//! Who dials, as far as a hook can tell: what affinity and allow lists go by.

use crate::{Address, assert_packed, plain_bytes};

/// A client. Programs on this host are told apart by cgroup and network namespace, since they have no address yet when
/// they dial; on other machines by address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// The id of the cgroup; the first half of a remote client's address.
    pub cgroup: u64,
    /// The cookie of the network namespace; the second half of a remote client's address.
    pub netns: u64,
}
assert_packed!(Client = u64, u64);

/// The key of `AFFINITY`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AffinityKey {
    /// The id of the service.
    pub service: u32,
    /// Always zero.
    pub zero: u32,
    /// Who dials.
    pub client: Client,
}
assert_packed!(AffinityKey = u32, u32, Client);

/// The value of `AFFINITY`: where a client was sent last.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// The id of the backend.
    pub backend: u32,
    /// The backend's generation.
    pub generation: u32,
    /// When it was used last: nanoseconds of the monotonic clock.
    pub at: u64,
}
assert_packed!(Affinity = u32, u32, u64);

/// What follows the length of the prefix in a key of `SOURCE_RANGES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRange {
    /// The id of the service.
    pub service: u32,
    /// An address of the network.
    pub address: Address,
}
assert_packed!(SourceRange = u32, Address);

/// A key of `SOURCE_RANGES`, a trie of prefixes: `bits` counts those of the service id too.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRangeKey {
    /// How many bits count: 32 of the service, 96 more before those of an IPv4 address.
    pub prefix_len: u32,
    /// What they are of.
    pub network: SourceRange,
}
assert_packed!(SourceRangeKey = u32, SourceRange);

impl SourceRangeKey {
    /// The network `address`/`prefix` of a service. `prefix` counts as it is written: to 32 in IPv4, to 128 in IPv6.
    pub const fn new(service: u32, address: Address, prefix: u8) -> Self {
        let before = if address.is_v4() { 32 + 96 } else { 32 };
        Self { prefix_len: before + prefix as u32, network: SourceRange { service, address } }
    }

    /// What is asked for one address.
    #[inline(always)]
    pub const fn host(service: u32, address: Address) -> Self {
        Self { prefix_len: 32 + 128, network: SourceRange { service, address } }
    }
}

/// A key of `SOURCE_CGROUPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceCgroup {
    /// The id of the cgroup: programs in it and below it are meant.
    pub cgroup: u64,
    /// The id of the service.
    pub service: u32,
    /// Always zero.
    pub zero: u32,
}
assert_packed!(SourceCgroup = u64, u32, u32);

plain_bytes!(Client, AffinityKey, Affinity, SourceRange, SourceRangeKey, SourceCgroup);
