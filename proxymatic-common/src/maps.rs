//! Every map, declared once: the eBPF object and the agent both take name, types and size from here. The version of
//! their layouts is here too.

use crate::{
    Address, Affinity, AffinityKey, Backend, BackendStats, Cell64, Class, Config, ConntrackLock, Counters, CtEntry,
    DirectPeer, FiveTuple, FragmentKey, FragmentPorts, Frontend, Interface, ListenerEntry, ListenerKey, Name,
    NetnsAddresses, ReplyPorts, Service, ServiceStats, Slot, SlotRange, Socket, SourceCgroup, SourceRangeKey,
};

/// The version of every layout in this crate. It is part of the pin path, so two versions never share a map.
pub const ABI_VERSION: u32 = if cfg!(feature = "next-abi") { 7 } else { 6 };

/// The kinds of maps in use, with the kernel's numbers (`enum bpf_map_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// BPF_MAP_TYPE_HASH.
    Hash = 1,
    /// BPF_MAP_TYPE_ARRAY.
    Array = 2,
    /// BPF_MAP_TYPE_PERCPU_ARRAY.
    PerCpuArray = 6,
    /// BPF_MAP_TYPE_LRU_HASH.
    LruHash = 9,
    /// BPF_MAP_TYPE_LPM_TRIE.
    LpmTrie = 11,
    /// BPF_MAP_TYPE_SK_STORAGE.
    SkStorage = 24,
    /// BPF_MAP_TYPE_RINGBUF. `MAX` is bytes.
    RingBuf = 27,
}

/// BPF_F_NO_PREALLOC: the kernel allocates memory for an entry when the entry is created.
pub const NO_PREALLOC: u32 = 1;
/// BPF_F_MMAPABLE: the agent reads and writes the entries as memory.
pub const MMAPABLE: u32 = 1024;

/// The declaration of one map.
pub trait MapDef {
    /// The map's name in the object, in bpffs and in commands.
    const NAME: &'static str;
    /// The map's kind.
    const KIND: Kind;
    /// The number of entries unless a flag changes it; 0 if the kernel sizes the map.
    const MAX: u32;
    /// BPF_F_* flags.
    const FLAGS: u32;
    /// The type of a key.
    type Key;
    /// The type of a value.
    type Value;
}

/// A type whose values are plain bytes.
#[cfg(feature = "user")]
pub use aya::Pod as Plain;

/// A type whose values are plain bytes.
#[cfg(not(feature = "user"))]
pub trait Plain {}
#[cfg(not(feature = "user"))]
impl<T> Plain for T {}

/// A hash map that the agent writes.
pub trait KeyedMap: MapDef<Key: Plain, Value: Plain> + 'static {}

/// Something to do with a hash map that the agent writes, of which only the name is known.
pub trait KeyedMapVisitor {
    /// The result.
    type Output;

    /// Does it with the map.
    fn visit<D: KeyedMap>(&self) -> Self::Output;
}

macro_rules! keyed_map {
    (Hash $name:ident) => {
        impl KeyedMap for $name {}
    };
    ($other:ident $name:ident) => {};
}

macro_rules! visit_keyed_map {
    ($visitor:ident, Hash $name:ident) => {
        Some($visitor.visit::<$name>())
    };
    ($visitor:ident, $other:ident $name:ident) => {
        None
    };
}

macro_rules! maps {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal, $kind:ident, $max:expr, $flags:expr, $key:ty => $value:ty;)+) => {
        $(
            $(#[doc = $doc])+
            #[derive(Clone, Copy, Debug)]
            pub struct $name;

            impl MapDef for $name {
                const NAME: &'static str = $text;
                const KIND: Kind = Kind::$kind;
                const MAX: u32 = $max;
                const FLAGS: u32 = $flags;
                type Key = $key;
                type Value = $value;
            }

            keyed_map!($kind $name);
        )+

        /// Does something with a hash map that the agent writes; `None` for any other map.
        pub fn visit_keyed<V: KeyedMapVisitor>(name: &str, visitor: &V) -> Option<V::Output> {
            match name {
                $($text => visit_keyed_map!(visitor, $kind $name),)+
                _ => None,
            }
        }

        /// All maps, as values.
        pub const ALL: &[MapSpec] = &[$(MapSpec {
            name: $text,
            kind: Kind::$kind,
            max: $max,
            flags: $flags,
            key: size_of::<$key>() as u32,
            value: size_of::<$value>() as u32,
        }),+];
    };
}

/// The declaration of one map as a value, to compare with the map in an object or in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// The map's name.
    pub name: &'static str,
    /// The map's kind.
    pub kind: Kind,
    /// The number of entries.
    pub max: u32,
    /// BPF_F_* flags.
    pub flags: u32,
    /// The size of a key in bytes.
    pub key: u32,
    /// The size of a value in bytes.
    pub value: u32,
}

maps! {
    /// The agent's settings for the hooks: one entry.
    ConfigMap = "CONFIG", Array, 1, MMAPABLE, u32 => Config;
    /// The service ports, one bit each. A word holds 64 ports; the words of UDP follow those of TCP. Hooks read this
    /// map first for every connection on the host, and for most connections they read nothing else.
    Ports = "PORTS", Array, 2_048, MMAPABLE, u32 => Cell64;
    /// Address to address class. A new address needs one write, whatever the number of services.
    Addresses = "ADDRESSES", Hash, 4_096, NO_PREALLOC, Address => Class;
    /// Destination (address class, port, protocol) to service id.
    Frontends = "FRONTENDS", Hash, 16_384, NO_PREALLOC, Frontend => u32;
    /// Service id to its slots. One store of the word publishes a new set of backends.
    SlotRanges = "SLOT_RANGES", Array, 16_384, MMAPABLE, u32 => SlotRange;
    /// Service id to settings.
    Services = "SERVICES", Array, 16_384, MMAPABLE, u32 => Service;
    /// Service id to the kernel's counters of the service.
    ServiceStatsMap = "SERVICE_STATS", Array, 16_384, MMAPABLE, u32 => ServiceStats;
    /// The slots of all services.
    Slots = "SLOTS", Array, 1_048_576, MMAPABLE, u32 => Slot;
    /// Backend id to backend.
    Backends = "BACKENDS", Array, 65_536, MMAPABLE, u32 => Backend;
    /// Backend id to the kernel's counters of the backend.
    BackendStatsMap = "BACKEND_STATS", Array, 65_536, MMAPABLE, u32 => BackendStats;
    /// Socket to its translations. The kernel never evicts an entry, and frees it with the socket.
    Sockets = "SOCKETS", SkStorage, 0, NO_PREALLOC, i32 => Socket;
    /// Service and client to backend. The kernel may evict an entry; the client's next connection then chooses a
    /// backend anew.
    Affinities = "AFFINITY", LruHash, 65_536, 0, AffinityKey => Affinity;
    /// Service and network prefix of clients that may connect.
    SourceRanges = "SOURCE_RANGES", LpmTrie, 65_536, NO_PREALLOC, SourceRangeKey => u32;
    /// Service and cgroup of clients that may connect.
    SourceCgroups = "SOURCE_CGROUPS", Hash, 16_384, NO_PREALLOC, SourceCgroup => u32;
    /// Cookie of a network namespace to the addresses of its programs, for the networks of allow lists. The agent's
    /// thread of namespaces writes it. A namespace that is missing here is in no network.
    NetnsAddressesMap = "NETNS_ADDRESSES", Hash, 16_384, NO_PREALLOC, u64 => NetnsAddresses;
    /// Cgroups whose programs the hooks leave alone, with all cgroups below.
    Excluded = "EXCLUDED", Hash, 1_024, NO_PREALLOC, u64 => u32;
    /// Listeners of the host on service ports, as far as a hook cannot look them up in the kernel. The hooks write an
    /// entry when a program binds; the agent adds what no hook saw, and removes what is gone.
    Listeners = "LISTENERS", Hash, 16_384, NO_PREALLOC, ListenerKey => ListenerEntry;
    /// Sockets of the host on service ports from which datagrams came to other network namespaces, with the time of the
    /// last datagram: nanoseconds of the monotonic clock.
    DirectPeers = "DIRECT_PEERS", LruHash, 16_384, 0, DirectPeer => u64;
    /// Records of [`crate::Event`], written as things happen.
    Events = "EVENTS", RingBuf, 262_144, 0, () => ();
    /// CPU number to counters by reason. The agent sets the number of possible CPUs.
    CountersMap = "COUNTERS", Array, 1_024, MMAPABLE, u32 => Counters;
    /// Conntrack entries of remote clients' connections, two for each connection, one for each direction. The kernel
    /// may evict entries, the longest unused first.
    Conntrack = "CONNTRACK", LruHash, 131_072, 0, FiveTuple => CtEntry;
    /// Conntrack entries of half-open connections. A map of its own, so that a SYN flood evicts no established
    /// connection.
    CtHalfOpen = "CT_HALF_OPEN", LruHash, 65_536, 0, FiveTuple => CtEntry;
    /// Locks for changes of both entries of a connection. The low bits of the start time pick the lock, so
    /// connections share locks.
    ConntrackLocks = "CONNTRACK_LOCKS", Array, 256, 0, u32 => ConntrackLock;
    /// The ports of fragmented packets: only the first fragment carries them.
    Fragments = "FRAGMENTS", LruHash, 8_192, 0, FragmentKey => FragmentPorts;
    /// Working memory of the packet hooks while they handle one packet, because it would not fit on their stack. The
    /// content means nothing afterwards.
    Scratches = "SCRATCH", PerCpuArray, 3, 0, u32 => [u64; 64];
    /// Interface index to what is behind the interface.
    Interfaces = "INTERFACES", Hash, 1_024, NO_PREALLOC, u32 => Interface;
    /// The ports of this host from which backends answer remote clients. Only hooks write this map.
    ReplyPortsMap = "REPLY_PORTS", Array, 2_048, 0, u32 => ReplyPorts;
    /// Service id to Marathon app id. Hooks do not read it; commands and adoption do.
    ServiceNames = "SERVICE_NAMES", Hash, 16_384, NO_PREALLOC, u32 => Name;
    /// Backend id to the generation of the backend that the operator drains. Commands write it, hooks do not. An entry
    /// outlives agents and ends with its backend.
    Drained = "DRAINED", Hash, 65_536, NO_PREALLOC, u32 => u32;
    /// Backend id to Mesos task id. Hooks do not read it; commands and adoption do.
    BackendNames = "BACKEND_NAMES", Hash, 65_536, NO_PREALLOC, u32 => Name;
}
