//! The identity of a client, as far as a hook knows it: the key for affinity and allow lists.

use crate::{Address, assert_packed, plain_bytes};

/// A client. A local client is identified by cgroup and network namespace, because it has no address yet when it
/// connects. A remote client is identified by its address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Client {
    /// The id of the cgroup; for a remote client the first half of its address.
    pub cgroup: u64,
    /// The cookie of the network namespace; for a remote client the second half of its address.
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
    pub _pad: u32,
    /// The client.
    pub client: Client,
}
assert_packed!(AffinityKey = u32, u32, Client);

/// The value of `AFFINITY`: the backend of a client's last connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// The id of the backend.
    pub backend: u32,
    /// The backend's generation.
    pub generation: u32,
    /// The time of the last use: nanoseconds of the monotonic clock.
    pub at: u64,
}
assert_packed!(Affinity = u32, u32, u64);

/// The part of a `SOURCE_RANGES` key after the prefix length.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRange {
    /// The id of the service.
    pub service: u32,
    /// An address of the network.
    pub address: Address,
}
assert_packed!(SourceRange = u32, Address);

/// A key of `SOURCE_RANGES`, a trie of prefixes. The prefix length includes the bits of the service id.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRangeKey {
    /// The number of significant bits: 32 for the service, and for IPv4 96 more before the bits of the address.
    pub prefix_len: u32,
    /// The bits themselves.
    pub network: SourceRange,
}
assert_packed!(SourceRangeKey = u32, SourceRange);

impl SourceRangeKey {
    /// Makes the key for the network `address`/`prefix` of a service. `prefix` is the written length: up to 32 for
    /// IPv4, up to 128 for IPv6.
    pub const fn new(service: u32, address: Address, prefix: u8) -> Self {
        let before = if address.is_v4() { 32 + 96 } else { 32 };
        Self { prefix_len: before + prefix as u32, network: SourceRange { service, address } }
    }

    /// Makes the key for the lookup of one address.
    #[inline(always)]
    pub const fn host(service: u32, address: Address) -> Self {
        Self { prefix_len: 32 + 128, network: SourceRange { service, address } }
    }
}

/// A key of `SOURCE_CGROUPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceCgroup {
    /// The id of the cgroup. The entry covers programs in this cgroup and below it.
    pub cgroup: u64,
    /// The id of the service.
    pub service: u32,
    /// Always zero.
    pub _pad: u32,
}
assert_packed!(SourceCgroup = u64, u32, u32);

/// The value of `NETNS_ADDRESSES`: the addresses from which programs of a network namespace connect.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetnsAddresses {
    /// The IPv4 address; [`Address::ZERO`] if the namespace has none.
    pub v4: Address,
    /// The IPv6 address; [`Address::ZERO`] if the namespace has none.
    pub v6: Address,
}
assert_packed!(NetnsAddresses = Address, Address);

plain_bytes!(Client, AffinityKey, Affinity, SourceRange, SourceRangeKey, SourceCgroup, NetnsAddresses);
