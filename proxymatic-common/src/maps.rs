//! Every map, declared once: the eBPF object and the agent both take name, types and size from here.

use crate::{Address, Backend, Class, Config, Counters, Frontend, Head, Load, Name, Service, Slot, Socket};

/// The kinds of maps in use, by their kernel numbers (`enum bpf_map_type`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// BPF_MAP_TYPE_HASH.
    Hash = 1,
    /// BPF_MAP_TYPE_ARRAY.
    Array = 2,
    /// BPF_MAP_TYPE_SK_STORAGE.
    SkStorage = 24,
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
        pub const ALL: &[Declared] = &[$(Declared {
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
pub struct Declared {
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
    /// Address to class: an address that comes is one write, whatever the number of services.
    Addresses = "ADDRESSES", Hash, 4_096, NO_PREALLOC, Address => Class;
    /// What is dialled to service id.
    Frontends = "FRONTENDS", Hash, 16_384, NO_PREALLOC, Frontend => u32;
    /// Service id to its slots: the word that publishes.
    Heads = "HEADS", Array, 16_384, MMAPABLE, u32 => Head;
    /// Service id to settings.
    Services = "SERVICES", Array, 16_384, MMAPABLE, u32 => Service;
    /// The slots of all services.
    Slots = "SLOTS", Array, 1_048_576, MMAPABLE, u32 => Slot;
    /// Backend id to backend.
    Backends = "BACKENDS", Array, 65_536, MMAPABLE, u32 => Backend;
    /// Backend id to what the kernel counts of it.
    Loads = "LOAD", Array, 65_536, MMAPABLE, u32 => Load;
    /// Socket to its translation. Cannot be evicted, and dies with the socket.
    Sockets = "SOCKETS", SkStorage, 0, NO_PREALLOC, i32 => Socket;
    /// CPU to counters by reason. The agent sets the number of possible CPUs.
    CountersMap = "COUNTERS", Array, 1_024, MMAPABLE, u32 => Counters;
    /// Service id to Marathon app id. Not read by hooks: for commands and for adoption.
    ServiceNames = "SERVICE_NAMES", Hash, 16_384, NO_PREALLOC, u32 => Name;
    /// Backend id to Mesos task id. Not read by hooks: for commands and for adoption.
    BackendNames = "BACKEND_NAMES", Hash, 65_536, NO_PREALLOC, u32 => Name;
}
