//! Feature probes that need maps. They are an object of their own, because a map that cannot be created keeps the whole
//! object from loading.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use core::{ffi::c_void, ptr};

    use aya_ebpf::{
        EbpfContext as _,
        bindings::BPF_SK_STORAGE_GET_F_CREATE,
        btf_maps::{RingBuf, SkStorage},
        helpers::generated::bpf_sk_storage_get,
        macros::{btf_map, cgroup_sock, cgroup_sock_addr, sock_ops},
        programs::{SockAddrContext, SockContext, SockOpsContext},
    };

    #[btf_map]
    static PROBE_RINGBUF: RingBuf<u64, 4096, 0> = RingBuf::new();
    #[btf_map]
    static PROBE_STORAGE: SkStorage<u64> = SkStorage::new();

    /// Loads if a hook can write to a ring buffer.
    #[cgroup_sock_addr(connect4)]
    fn ringbuf(_: SockAddrContext) -> i32 {
        let _ = PROBE_RINGBUF.output(1_u64, 0);
        1
    }

    /// Loads if a connect hook can create socket storage.
    #[cgroup_sock_addr(connect4)]
    fn sk_storage_connect(context: SockAddrContext) -> i32 {
        // SAFETY: a field of the live context.
        get_storage(unsafe { (*context.sock_addr).__bindgen_anon_1.sk }.cast(), BPF_SK_STORAGE_GET_F_CREATE)
    }

    /// Loads if a release hook can read socket storage.
    #[cgroup_sock(sock_release)]
    fn sk_storage_release(context: SockContext) -> i32 {
        get_storage(context.as_ptr(), 0)
    }

    /// Loads if a sock_ops hook can read socket storage.
    #[sock_ops]
    fn sk_storage_sockops(context: SockOpsContext) -> u32 {
        // SAFETY: a field of the live context.
        get_storage(unsafe { (*context.ops).__bindgen_anon_2.sk }.cast(), 0) as u32
    }

    #[inline(always)]
    fn get_storage(socket: *mut c_void, flags: u32) -> i32 {
        if !socket.is_null() {
            // SAFETY: the socket of this hook's own context, which is not null.
            unsafe {
                bpf_sk_storage_get((&raw const PROBE_STORAGE).cast_mut().cast(), socket, ptr::null_mut(), flags.into())
            };
        }
        1
    }
}

proxymatic_ebpf::object!();
