//! The maps, as `proxymatic_common::maps` declares them, and what the decisions read from them.

use core::{ffi::c_void, intrinsics};

use aya_ebpf::{
    Global,
    btf_maps::{Array, HashMap, SkStorage},
    helpers::generated as helper,
    macros::btf_map,
};
use proxymatic_common::{
    Address, Backend, Cell64, Class, Config, Frontend, Head, Load, Reason, Slot, Socket,
    maps::{self as declared, MapDef},
};
use proxymatic_ebpf::Tables;

/// A map as it is declared; an array's key is always its index.
macro_rules! map {
    (Array $name:ident: $def:ident) => {
        #[btf_map]
        static $name: Array<
            <declared::$def as MapDef>::Value,
            { declared::$def::MAX as usize },
            { declared::$def::FLAGS as usize },
        > = Array::new();
    };
    (HashMap $name:ident: $def:ident) => {
        #[btf_map]
        static $name: HashMap<
            <declared::$def as MapDef>::Key,
            <declared::$def as MapDef>::Value,
            { declared::$def::MAX as usize },
            { declared::$def::FLAGS as usize },
        > = HashMap::new();
    };
}

map!(Array CONFIG: ConfigMap);
map!(HashMap ADDRESSES: Addresses);
map!(HashMap FRONTENDS: Frontends);
map!(Array HEADS: Heads);
map!(Array SERVICES: Services);
map!(Array SLOTS: Slots);
map!(Array BACKENDS: Backends);
map!(Array LOAD: Loads);
map!(Array COUNTERS: CountersMap);
map!(HashMap SERVICE_NAMES: ServiceNames);
map!(HashMap BACKEND_NAMES: BackendNames);
#[btf_map]
static SOCKETS: SkStorage<Socket> = SkStorage::new();

/// 1 where the kernel lets a connect hook choose its error. Read-only data that the loader sets: the verifier never
/// sees the branch that this kernel lacks.
#[unsafe(no_mangle)]
static HAS_RETVAL: Global<u32> = Global::new(1);

/// Whether a connect hook can choose the error it refuses with.
#[inline(always)]
pub(crate) fn has_retval() -> bool {
    HAS_RETVAL.load() != 0
}

/// The state of a socket, if there is any; made, zeroed, where `create` says so.
///
/// # Safety
/// `sk` must be null or a socket pointer of the hook's context, as the verifier will check.
#[inline(always)]
pub(crate) unsafe fn socket<'a>(sk: *mut c_void, create: bool) -> Option<&'a mut Socket> {
    if sk.is_null() {
        return None;
    }
    let flags = if create { aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE } else { 0 };
    // SAFETY: the helper gives a pointer to the value or null; the value lives as long as the socket.
    unsafe {
        let map = (&raw const SOCKETS).cast_mut().cast();
        helper::bpf_sk_storage_get(map, sk, core::ptr::null_mut(), flags.into()).cast::<Socket>().as_mut()
    }
}

/// The maps as seen from one run of a hook.
pub(crate) struct Maps {
    /// The hook's context, which some helpers want.
    pub(crate) context: *mut c_void,
}

impl Tables for Maps {
    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0)
    }
    #[inline(always)]
    fn netns(&self) -> u64 {
        // SAFETY: the context is the one the kernel gave this program.
        unsafe { helper::bpf_get_netns_cookie(self.context) }
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
    fn head(&self, service: u32) -> Head {
        // SAFETY: a live, aligned element; volatile so that it is one load.
        HEADS.get_ptr(service).map_or(Head::from_word(0), |word| unsafe { word.read_volatile() })
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
    fn load(&self, id: u32) -> Option<&Load> {
        LOAD.get(id)
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
    fn add(&self, cell: &Cell64) {
        // The result is not used, which makes it the plain XADD that 5.10 has.
        // SAFETY: the cell is in a map, aligned and live.
        unsafe {
            intrinsics::atomic_xadd::<u64, u64, { intrinsics::AtomicOrdering::Relaxed }>(cell.as_ptr(), 1);
        }
    }
    #[inline(always)]
    fn count(&self, reason: Reason) {
        // SAFETY: no arguments.
        let cpu = unsafe { helper::bpf_get_smp_processor_id() as u32 };
        if let Some(row) = COUNTERS.get(cpu) {
            // An atomic although the row is this CPU's: a hook may be interrupted by another on the same CPU.
            self.add(&row.of[reason as usize]);
        }
    }
}
