//! The BPF maps, as `proxymatic_common::maps` declares them, and the data plane's traits on them.

use core::{ffi::c_void, intrinsics};

use aya_ebpf::{
    Global,
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf, SkStorage, lpm_trie::Key},
    helpers::generated as helper,
    macros::btf_map,
};
use proxymatic_common::{
    Address, Affinity, AffinityKey, Backend, BackendStats, Cell64, Class, Config, CtEntry, CtEntryAtomic, DirectPeer,
    Event, FiveTuple, FragmentKey, FragmentPorts, Frontend, Interface, ListenerEntry, ListenerKey, NetnsAddresses,
    Port, PortBit, Reason, Service, ServiceStats, Slot, SlotRange, Socket, SourceCgroup, SourceRange, SourceRangeKey,
    maps::{self as declared, MapDef},
};
use proxymatic_ebpf::{
    Conntrack, CtTable, EjectionShares, Environment, NetnsMatch, SelectParams, SlotScore, Subprograms, Tables,
};

use crate::scratch::Scratch;

/// Defines a map as it is declared. The key of an array is its index.
macro_rules! map {
    (Array $name:ident: $def:ident) => {
        #[btf_map]
        static $name: Array<
            <declared::$def as MapDef>::Value,
            { declared::$def::MAX as usize },
            { declared::$def::FLAGS as usize },
        > = Array::new();
    };
    ($kind:ident $name:ident: $def:ident) => {
        #[btf_map]
        static $name: $kind<
            <declared::$def as MapDef>::Key,
            <declared::$def as MapDef>::Value,
            { declared::$def::MAX as usize },
            { declared::$def::FLAGS as usize },
        > = $kind::new();
    };
}

map!(Array CONFIG: ConfigMap);
map!(Array PORTS: Ports);
map!(HashMap ADDRESSES: Addresses);
map!(HashMap FRONTENDS: Frontends);
map!(Array SLOT_RANGES: SlotRanges);
map!(Array SERVICES: Services);
map!(Array SERVICE_STATS: ServiceStatsMap);
map!(Array SLOTS: Slots);
map!(Array BACKENDS: Backends);
map!(Array BACKEND_STATS: BackendStatsMap);
map!(Array COUNTERS: CountersMap);
map!(HashMap SERVICE_NAMES: ServiceNames);
map!(HashMap DRAINED: Drained);
map!(HashMap BACKEND_NAMES: BackendNames);
map!(HashMap SOURCE_CGROUPS: SourceCgroups);
map!(HashMap EXCLUDED: Excluded);
map!(HashMap NETNS_ADDRESSES: NetnsAddressesMap);
map!(HashMap LISTENERS: Listeners);
map!(LruHashMap DIRECT_PEERS: DirectPeers);
map!(LruHashMap AFFINITY: Affinities);
map!(LruHashMap CONNTRACK: Conntrack);
map!(LruHashMap CT_HALF_OPEN: CtHalfOpen);
map!(Array CONNTRACK_LOCKS: ConntrackLocks);
map!(LruHashMap FRAGMENTS: Fragments);
map!(HashMap INTERFACES: Interfaces);
map!(Array REPLY_PORTS: ReplyPortsMap);
#[btf_map]
static SCRATCH: PerCpuArray<
    <declared::Scratches as MapDef>::Value,
    { declared::Scratches::MAX as usize },
    { declared::Scratches::FLAGS as usize },
> = PerCpuArray::new();
#[btf_map]
static SOURCE_RANGES: LpmTrie<
    SourceRange,
    u32,
    { declared::SourceRanges::MAX as usize },
    { declared::SourceRanges::FLAGS as usize },
> = LpmTrie::new();
#[btf_map]
static EVENTS: RingBuf<Event, { declared::Events::MAX as usize }, { declared::Events::FLAGS as usize }> =
    RingBuf::new();
#[btf_map]
static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// 1 if the kernel lets a connect hook set its error. The loader sets this read-only value, so the verifier never
/// checks the branch that this kernel does not support.
#[unsafe(no_mangle)]
static HAS_RETVAL: Global<u32> = Global::new(1);

/// Returns whether a connect hook can set the error of a refusal.
#[inline(always)]
pub(crate) fn has_retval() -> bool {
    HAS_RETVAL.load() != 0
}

/// 1 if the kernel can return the MPTCP socket of a subflow. As above.
#[unsafe(no_mangle)]
static HAS_MPTCP: Global<u32> = Global::new(1);

/// 1 if the kernel can return the time of its last tick. As above.
#[unsafe(no_mangle)]
static HAS_COARSE: Global<u32> = Global::new(1);

/// Returns the socket that the program has. For a subflow of MPTCP that is the MPTCP socket: the program never closes
/// the subflow itself, so no hook would count its close.
///
/// # Safety
/// `sk` must be null or a socket pointer of the hook's context, as the verifier will check.
#[inline(always)]
pub(crate) unsafe fn mptcp_parent(sk: *mut c_void) -> *mut c_void {
    if sk.is_null() || HAS_MPTCP.load() == 0 {
        return sk;
    }
    // SAFETY: the helper returns the socket or null.
    let own: *mut c_void = unsafe { helper::bpf_skc_to_mptcp_sock(sk) }.cast();
    if own.is_null() { sk } else { own }
}

/// Returns the storage of a socket. If there is none and `create` is set, creates it with all bytes zero.
///
/// # Safety
/// `sk` must be null, a socket pointer of the hook's context, or [`mptcp_parent`] of that, as the verifier will check.
#[inline(always)]
pub(crate) unsafe fn socket<'a>(sk: *mut c_void, create: bool) -> Option<&'a mut Socket> {
    if sk.is_null() {
        return None;
    }
    let flags = if create { aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE } else { 0 };
    // SAFETY: the helper returns a pointer to the value or null; the value lives as long as the socket.
    unsafe {
        let map = (&raw const SOCKETS).cast_mut().cast();
        helper::bpf_sk_storage_get(map, sk, core::ptr::null_mut(), flags.into()).cast::<Socket>().as_mut()
    }
}

/// [`proxymatic_ebpf::select`] as a subprogram, which the verifier checks once and not at each call. Returns the id of
/// a backend in the lower half and the number of a reason in the upper half. The highest bit is set for a refusal.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn select_backend(service: u32, params: u32, hash: u64) -> u64 {
    match proxymatic_ebpf::select(&Maps, service, SelectParams::from_word(params), hash) {
        Ok((id, reason)) => u64::from(reason as u32) << 32 | u64::from(id),
        Err(reason) => REFUSED | u64::from(reason as u32) << 32,
    }
}

/// [`proxymatic_ebpf::score_slot`] as a subprogram.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn score_slot_at(index: u32, params: u32) -> u64 {
    proxymatic_ebpf::score_slot(&Maps, index, SelectParams::from_word(params)).word()
}

/// [`proxymatic_ebpf::slot_share`] as a subprogram.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn share_at(index: u32, id: u32, now: u64) -> u64 {
    proxymatic_ebpf::slot_share(&Maps, index, id, now).0
}

/// [`proxymatic_ebpf::netns_match`] as a subprogram.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn match_netns(service: u32, netns: u64) -> u64 {
    proxymatic_ebpf::netns_match(&Maps, service, netns) as u64
}

/// [`proxymatic_ebpf::eject`] as a subprogram.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn eject_backend(service: u32, id: u32) -> u64 {
    proxymatic_ebpf::eject(&Maps, service, id)
}

/// The bit of a refusal in the result of [`select_backend`].
const REFUSED: u64 = 1 << 63;

/// Returns the scratch memory of a hook on packets. Each hook has its own, and no other packet interrupts the hook on
/// its CPU, because these hooks run with softirqs disabled.
#[inline(always)]
pub(crate) fn scratch<'a>(hook: u32) -> Option<&'a mut Scratch> {
    const { assert!(size_of::<Scratch>() <= size_of::<<declared::Scratches as MapDef>::Value>()) };
    // SAFETY: plain values, for which zero is valid; only this CPU writes them; aligned as words.
    SCRATCH.get_ptr_mut(hook).map(|scratch| unsafe { &mut *scratch.cast() })
}

/// The maps.
pub(crate) struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0)
    }
    #[inline(always)]
    fn ports(&self, word: u32) -> u64 {
        PORTS.get(word).map_or(0, Cell64::get)
    }
    #[inline(always)]
    fn service(&self, id: u32) -> Option<&Service> {
        SERVICES.get(id)
    }
    #[inline(always)]
    fn service_stats(&self, id: u32) -> Option<&ServiceStats> {
        SERVICE_STATS.get(id)
    }
    #[inline(always)]
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        // SAFETY: two words, copied at once; a copy that is torn by a reuse of the element fails the check of
        // generations.
        unsafe { AFFINITY.get(key).copied() }
    }
    #[inline(always)]
    fn save_affinity(&self, key: &AffinityKey, affinity: &Affinity) {
        // Without memory, the client's next connection is balanced anew.
        let _ = AFFINITY.insert(key, affinity, 0);
    }
    #[inline(always)]
    fn source_allowed(&self, key: &SourceRangeKey) -> bool {
        SOURCE_RANGES.get(&Key::new(key.prefix_len, key.network)).is_some()
    }
    #[inline(always)]
    fn netns_addresses(&self, netns: u64) -> Option<NetnsAddresses> {
        // SAFETY: plain bytes, copied. An entry that is replaced meanwhile stays memory of the map.
        unsafe { NETNS_ADDRESSES.get(&netns).copied() }
    }
    #[inline(always)]
    fn cgroup_allowed(&self, key: &SourceCgroup) -> bool {
        // SAFETY: the value is not read.
        unsafe { SOURCE_CGROUPS.get(key).is_some() }
    }
    #[inline(always)]
    fn cgroup_excluded(&self, cgroup: u64) -> bool {
        // SAFETY: the value is not read.
        unsafe { EXCLUDED.get(&cgroup).is_some() }
    }
    #[inline(always)]
    fn listener(&self, key: &ListenerKey) -> Option<ListenerEntry> {
        // SAFETY: two words, copied at once.
        unsafe { LISTENERS.get(key).copied() }
    }
    #[inline(always)]
    fn save_listener(&self, key: &ListenerKey, entry: &ListenerEntry) {
        let _ = LISTENERS.insert(key, entry, 0);
    }
    #[inline(always)]
    fn direct_peer(&self, peer: &DirectPeer) -> Option<u64> {
        // SAFETY: a word, copied at once.
        unsafe { DIRECT_PEERS.get(peer).copied() }
    }
    #[inline(always)]
    fn save_direct_peer(&self, peer: &DirectPeer, at: u64) {
        let _ = DIRECT_PEERS.insert(peer, &at, 0);
    }
    #[inline(always)]
    fn class(&self, address: &Address) -> Option<Class> {
        // SAFETY: a word, copied at once.
        unsafe { ADDRESSES.get(address).copied() }
    }
    #[inline(always)]
    fn frontend(&self, frontend: &Frontend) -> Option<u32> {
        // SAFETY: a word, copied at once.
        unsafe { FRONTENDS.get(frontend).copied() }
    }
    #[inline(always)]
    fn slot_range(&self, service: u32) -> SlotRange {
        // SAFETY: a live, aligned element; volatile so that it is one load.
        SLOT_RANGES.get_ptr(service).map_or(SlotRange::from_word(0), |word| unsafe { word.read_volatile() })
    }
    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        // SAFETY: a live, aligned element; volatile so that it is one load.
        SLOTS.get_ptr(index).map(|word| unsafe { word.read_volatile() })
    }
    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        BACKENDS.get(id)
    }
    #[inline(always)]
    fn backend_stats(&self, id: u32) -> Option<&BackendStats> {
        BACKEND_STATS.get(id)
    }
    #[inline(always)]
    fn add(&self, cell: &Cell64, by: u64) {
        // The result is unused, so LLVM emits the plain XADD that Linux 5.10 has.
        // SAFETY: the cell is in a map, aligned and live.
        unsafe {
            intrinsics::atomic_xadd::<u64, u64, { intrinsics::AtomicOrdering::Relaxed }>(cell.as_ptr(), by);
        }
    }
    #[inline(always)]
    fn count(&self, reason: Reason) {
        // SAFETY: no arguments.
        let cpu = unsafe { helper::bpf_get_smp_processor_id() as u32 };
        if let Some(row) = COUNTERS.get(cpu) {
            // Atomic although the row belongs to this CPU: another hook may interrupt this one on the same CPU.
            // The verifier must see the bound if the reason comes from memory, and LLVM would remove it.
            self.inc(&row.by_reason[core::hint::black_box(reason as u32) as usize & (row.by_reason.len() - 1)]);
        }
    }
}

impl Subprograms for Maps {
    #[inline(always)]
    fn select(&self, service: u32, params: SelectParams, hash: u64) -> Result<(u32, Reason), Reason> {
        let found = select_backend(service, params.word(), hash);
        // The subprogram returns numbers of reasons only, which the verifier cannot know.
        let reason = Reason::from_number((found >> 32) as u32 & 0xff).unwrap_or(Reason::NoBackend);
        if found & REFUSED == 0 { Ok((found as u32, reason)) } else { Err(reason) }
    }
    #[inline(always)]
    fn score_slot(&self, index: u32, params: SelectParams) -> SlotScore {
        SlotScore::from_word(score_slot_at(index, params.word()))
    }
    #[inline(always)]
    fn slot_share(&self, index: u32, id: u32, now: u64) -> EjectionShares {
        EjectionShares(share_at(index, id, now))
    }
    #[inline(always)]
    fn netns_match(&self, service: u32, netns: u64) -> NetnsMatch {
        match match_netns(service, netns) {
            found if found == NetnsMatch::Listed as u64 => NetnsMatch::Listed,
            found if found == NetnsMatch::Unlisted as u64 => NetnsMatch::Unlisted,
            _ => NetnsMatch::Unknown,
        }
    }
    #[inline(always)]
    fn eject(&self, service: u32, id: u32) -> u64 {
        eject_backend(service, id)
    }
}

impl Environment for Maps {
    #[inline(always)]
    fn emit(&self, event: &Event) -> bool {
        EVENTS.output(*event, 0).is_ok()
    }
    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: no arguments.
        unsafe { helper::bpf_get_prandom_u32() as u32 }
    }
    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: no arguments.
        unsafe { helper::bpf_ktime_get_ns() }
    }
    #[inline(always)]
    fn coarse_now(&self) -> u64 {
        if HAS_COARSE.load() == 0 {
            return self.now();
        }
        // SAFETY: no arguments.
        unsafe { helper::bpf_ktime_get_coarse_ns() }
    }
}

impl Conntrack for Maps {
    #[inline(always)]
    fn established_entry(&self, key: &FiveTuple) -> Option<&CtEntryAtomic> {
        // SAFETY: the same layout, with cells for the words that change. An evicted entry stays memory of the map; if
        // it is reused meanwhile, one packet is misdirected.
        CONNTRACK.get_ptr(key).map(|entry| unsafe { &*entry.cast() })
    }
    #[inline(always)]
    fn half_open(&self, key: &FiveTuple) -> Option<&CtEntryAtomic> {
        // SAFETY: the same.
        CT_HALF_OPEN.get_ptr(key).map(|entry| unsafe { &*entry.cast() })
    }
    #[inline(always)]
    fn insert(&self, table: CtTable, key: &FiveTuple, entry: &CtEntry, only_new: bool) -> bool {
        let flags = if only_new { BPF_NOEXIST } else { BPF_ANY };
        match table {
            CtTable::HalfOpen => CT_HALF_OPEN.insert(key, entry, flags.into()).is_ok(),
            CtTable::Established => CONNTRACK.insert(key, entry, flags.into()).is_ok(),
        }
    }
    #[inline(always)]
    fn remove(&self, table: CtTable, key: &FiveTuple) -> bool {
        match table {
            CtTable::HalfOpen => CT_HALF_OPEN.remove(key).is_ok(),
            CtTable::Established => CONNTRACK.remove(key).is_ok(),
        }
    }
    #[inline(always)]
    fn with_lock<R>(&self, start: u64, change: impl FnOnce() -> R) -> Option<R> {
        // Nanoseconds, so the low bits differ even for connections that begin right after each other.
        let lock: *mut aya_ebpf::bindings::bpf_spin_lock =
            CONNTRACK_LOCKS.get_ptr_mut(start as u32 & (declared::ConntrackLocks::MAX - 1))?.cast();
        // SAFETY: a live element of the map, which consists of the lock; the only path releases it.
        unsafe {
            helper::bpf_spin_lock(lock);
            let changed = change();
            helper::bpf_spin_unlock(lock);
            Some(changed)
        }
    }
    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentPorts> {
        // SAFETY: two words, copied at once.
        unsafe { FRAGMENTS.get(key).copied() }
    }
    #[inline(always)]
    fn save_fragment(&self, key: &FragmentKey, ports: &FragmentPorts) {
        // Without memory, the later fragments pass unchanged.
        let _ = FRAGMENTS.insert(key, ports, 0);
    }
    #[inline(always)]
    fn interface(&self, number: u32) -> Option<&Interface> {
        // SAFETY: only the agent writes it.
        unsafe { INTERFACES.get(number) }
    }
    #[inline(always)]
    fn is_local_reply_port(&self, port: Port, protocol: u8) -> bool {
        let Some(bit) = PortBit::of(port, protocol) else { return false };
        let Some(bytes) = REPLY_PORTS.get(bit.word) else { return false };
        bytes[(port.get() & 63) as usize] != 0
    }
    #[inline(always)]
    fn mark_local_reply_port(&self, port: Port, protocol: u8) {
        let Some(bytes) = PortBit::of(port, protocol).and_then(|bit| REPLY_PORTS.get_ptr_mut(bit.word)) else {
            return;
        };
        // SAFETY: one byte of a live element; all writers write the same value.
        unsafe { (&raw mut (*bytes)[(port.get() & 63) as usize]).write_volatile(1) };
    }
}
