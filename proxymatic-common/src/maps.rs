//! Every map, declared once: the eBPF object and the agent both take name, types and size from here.

use crate::{
    Address, Affinity, AffinityKey, Backend, BackendStats, Cell64, Class, Config, ConntrackLock, Counters, CtEntry,
    FiveTuple, FragmentKey, FragmentPorts, Frontend, Interface, Name, ReplyPorts, Service, ServiceStats, Slot,
    SlotRange, Socket, SourceCgroup, SourceRangeKey,
};

/// The kinds of maps in use, by their kernel numbers (`enum bpf_map_type`).
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

/// BPF_F_NO_PREALLOC: entries take memory when they are made.
pub const NO_PREALLOC: u32 = 1;
/// BPF_F_MMAPABLE: the agent reads and writes the entries as memory.
pub const MMAPABLE: u32 = 1024;

/// One map.
pub trait MapDef {
    /// Its name in the object, in bpffs and in commands.
    const NAME: &'static str;
    /// Its kind.
    const KIND: Kind;
    /// How many entries it has unless a flag says otherwise; 0 where the kernel sizes it.
    const MAX: u32;
    /// BPF_F_* flags.
    const FLAGS: u32;
    /// What it is looked up by.
    type Key;
    /// What it holds.
    type Value;
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
        )+

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

/// One map as a value, to compare with what an object or the kernel has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapSpec {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Entries.
    pub max: u32,
    /// BPF_F_* flags.
    pub flags: u32,
    /// Bytes of a key.
    pub key: u32,
    /// Bytes of a value.
    pub value: u32,
}

maps! {
    /// What the agent tells the hooks: one entry.
    ConfigMap = "CONFIG", Array, 1, MMAPABLE, u32 => Config;
    /// Which ports are service ports, one bit each: a word holds 64, those of UDP follow those of TCP. What every
    /// connection on the host is asked first, so that most have to do with nothing else.
    Ports = "PORTS", Array, 2_048, MMAPABLE, u32 => Cell64;
    /// Address to class: an address that comes is one write, whatever the number of services.
    Addresses = "ADDRESSES", Hash, 4_096, NO_PREALLOC, Address => Class;
    /// What is dialled to service id.
    Frontends = "FRONTENDS", Hash, 16_384, NO_PREALLOC, Frontend => u32;
    /// Service id to its slots: the word that publishes.
    SlotRanges = "SLOT_RANGES", Array, 16_384, MMAPABLE, u32 => SlotRange;
    /// Service id to settings.
    Services = "SERVICES", Array, 16_384, MMAPABLE, u32 => Service;
    /// Service id to what the kernel counts of it.
    ServiceStatsMap = "SERVICE_STATS", Array, 16_384, MMAPABLE, u32 => ServiceStats;
    /// The slots of all services.
    Slots = "SLOTS", Array, 1_048_576, MMAPABLE, u32 => Slot;
    /// Backend id to backend.
    Backends = "BACKENDS", Array, 65_536, MMAPABLE, u32 => Backend;
    /// Backend id to what the kernel counts of it.
    BackendStatsMap = "BACKEND_STATS", Array, 65_536, MMAPABLE, u32 => BackendStats;
    /// Socket to its translation. Cannot be evicted, and dies with the socket.
    Sockets = "SOCKETS", SkStorage, 0, NO_PREALLOC, i32 => Socket;
    /// Service and client to backend. May be evicted: then the client is sent anew.
    Affinities = "AFFINITY", LruHash, 65_536, 0, AffinityKey => Affinity;
    /// Service and prefix: clients that may connect.
    SourceRanges = "SOURCE_RANGES", LpmTrie, 65_536, NO_PREALLOC, SourceRangeKey => u32;
    /// Service and cgroup: clients that may connect.
    SourceCgroups = "SOURCE_CGROUPS", Hash, 16_384, NO_PREALLOC, SourceCgroup => u32;
    /// Cgroups whose programs are left alone, with all below them.
    Excluded = "EXCLUDED", Hash, 1_024, NO_PREALLOC, u64 => u32;
    /// What happens, as it happens: records of [`crate::Event`].
    Events = "EVENTS", RingBuf, 262_144, 0, () => ();
    /// CPU to counters by reason. The agent sets the number of possible CPUs.
    CountersMap = "COUNTERS", Array, 1_024, MMAPABLE, u32 => Counters;
    /// Connections of clients on other machines that are open, or were a short while ago: two entries each, one for each
    /// direction. May be evicted, those first on which nothing is sent.
    Conntrack = "CONNTRACK", LruHash, 131_072, 0, FiveTuple => CtEntry;
    /// The same of those that are not open yet: apart, so that a flood of them evicts nothing else.
    CtHalfOpen = "CT_HALF_OPEN", LruHash, 65_536, 0, FiveTuple => CtEntry;
    /// Locks for changes of both halves of a connection, by the time at which it began: a connection has one of them,
    /// which it shares with others.
    ConntrackLocks = "CONNTRACK_LOCKS", Array, 256, 0, u32 => ConntrackLock;
    /// The ports of packets that come in fragments, of which only the first names them.
    Fragments = "FRAGMENTS", LruHash, 8_192, 0, FragmentKey => FragmentPorts;
    /// What hooks on packets keep in mind while they are at one: it would not fit their stack. Means nothing afterwards.
    Scratches = "SCRATCH", PerCpuArray, 3, 0, u32 => [u64; 64];
    /// Number of an interface to what is behind it.
    Interfaces = "INTERFACES", Hash, 1_024, NO_PREALLOC, u32 => Interface;
    /// From which ports of this host backends answer remote clients. Written by hooks only.
    ReplyPortsMap = "REPLY_PORTS", Array, 2_048, 0, u32 => ReplyPorts;
    /// Service id to Marathon app id. Not read by hooks: for commands and for adoption.
    ServiceNames = "SERVICE_NAMES", Hash, 16_384, NO_PREALLOC, u32 => Name;
    /// Backend id to the generation of it that the operator drains. Written by commands, not by hooks: a wish that outlives
    /// agents, and ends with its backend.
    Drained = "DRAINED", Hash, 65_536, NO_PREALLOC, u32 => u32;
    /// Backend id to Mesos task id. Not read by hooks: for commands and for adoption.
    BackendNames = "BACKEND_NAMES", Hash, 65_536, NO_PREALLOC, u32 => Name;
}
