//! Feature probes: small programs that load only if the kernel supports one feature each.
//!
//! Loading a program is reliable and the kernel's version is not, since distributions backport features. The probes
//! call helpers with the arguments that the hooks use, since newer kernels verify those too.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use core::ffi::c_void;

    use aya_ebpf::{
        bindings::{BPF_F_CURRENT_NETNS, BPF_SOCK_OPS_STATE_CB_FLAG, TC_ACT_OK, bpf_sock_tuple},
        helpers::generated::{
            bpf_get_current_ancestor_cgroup_id, bpf_get_current_cgroup_id, bpf_get_netns_cookie,
            bpf_ktime_get_coarse_ns, bpf_set_retval, bpf_setsockopt, bpf_sk_lookup_tcp, bpf_sk_lookup_udp,
            bpf_sk_release, bpf_skc_to_mptcp_sock,
        },
        macros::{cgroup_sock, cgroup_sock_addr, classifier, sock_ops},
        programs::{SockAddrContext, SockContext, SockOpsContext, TcContext},
    };

    /// Loads if a connect hook can set the error of a refusal.
    #[cgroup_sock_addr(connect4)]
    fn set_retval(_: SockAddrContext) -> i32 {
        // SAFETY: a helper call with a constant, no memory involved.
        unsafe { bpf_set_retval(-111) };
        0
    }

    /// Loads if a connect hook can read the time of the kernel's last tick.
    #[cgroup_sock_addr(connect4)]
    fn coarse(_: SockAddrContext) -> i32 {
        // SAFETY: no arguments.
        i32::from(unsafe { bpf_ktime_get_coarse_ns() } != 0)
    }

    /// Loads if a connect hook can look up the MPTCP socket of a subflow.
    #[cgroup_sock_addr(connect4)]
    fn mptcp(context: SockAddrContext) -> i32 {
        // SAFETY: the context lives, and its socket is checked for null.
        unsafe {
            let socket = (*context.sock_addr).__bindgen_anon_1.sk;
            i32::from(!socket.is_null() && !bpf_skc_to_mptcp_sock(socket.cast()).is_null())
        }
    }

    /// Loads if a connect hook can read the cookie of a network namespace.
    #[cgroup_sock_addr(connect4)]
    fn netns(context: SockAddrContext) -> i32 {
        // SAFETY: the context is the one the kernel gave this program.
        unsafe { i32::from(bpf_get_netns_cookie(context.sock_addr.cast()) != 0) }
    }

    /// Loads if a connect hook can look up listeners.
    #[cgroup_sock_addr(connect4)]
    fn listener(context: SockAddrContext) -> i32 {
        let context: *mut c_void = context.sock_addr.cast();
        let (length, here) = (12, BPF_F_CURRENT_NETNS as i64 as u64);
        // SAFETY: integers, of which zero is a value; the tuple lives, and what is found is released.
        unsafe {
            let mut wanted: bpf_sock_tuple = core::mem::zeroed();
            let tcp = bpf_sk_lookup_tcp(context, &raw mut wanted, length, here, 0);
            if !tcp.is_null() {
                bpf_sk_release(tcp.cast());
            }
            let udp = bpf_sk_lookup_udp(context, &raw mut wanted, length, here, 0);
            if !udp.is_null() {
                bpf_sk_release(udp.cast());
            }
        }
        1
    }

    /// Loads if a connect hook can read the cgroup of a process and its ancestors.
    #[cgroup_sock_addr(connect4)]
    fn cgroups(_: SockAddrContext) -> i32 {
        // SAFETY: numbers.
        unsafe { i32::from(bpf_get_current_cgroup_id() != bpf_get_current_ancestor_cgroup_id(1)) }
    }

    /// Loads if a connect hook can limit the retransmits of a SYN.
    #[cgroup_sock_addr(connect4)]
    fn syn_retries(context: SockAddrContext) -> i32 {
        let (sol_tcp, tcp_syncnt, mut retries) = (6, 7, 1_u32);
        // SAFETY: the context is the one the kernel gave this program, the value lives on the stack.
        unsafe { bpf_setsockopt(context.sock_addr.cast(), sol_tcp, tcp_syncnt, (&raw mut retries).cast(), 4) };
        1
    }

    /// Loads if the kernel has hooks on connect(2).
    #[cgroup_sock_addr(connect6)]
    fn connect6(_: SockAddrContext) -> i32 {
        1
    }

    /// Loads if the kernel has hooks on getpeername(2).
    #[cgroup_sock_addr(getpeername6)]
    fn peer_names(_: SockAddrContext) -> i32 {
        1
    }

    /// Loads if the kernel has hooks on sendmsg(2).
    #[cgroup_sock_addr(sendmsg6)]
    fn datagrams(_: SockAddrContext) -> i32 {
        1
    }

    /// Loads if the kernel has hooks on recvmsg(2).
    #[cgroup_sock_addr(recvmsg6)]
    fn recvmsg6(_: SockAddrContext) -> i32 {
        1
    }

    /// Loads if the kernel has a hook on the last close of a socket.
    #[cgroup_sock(sock_release)]
    fn sock_release(_: SockContext) -> i32 {
        1
    }

    /// Loads if the kernel has hooks after bind(2).
    #[cgroup_sock(post_bind6)]
    fn post_bind(_: SockContext) -> i32 {
        1
    }

    /// Loads if the kernel has sock_ops hooks that can enable more events.
    #[sock_ops]
    fn tcp_events(context: SockOpsContext) -> u32 {
        let _ = context.set_cb_flags((context.cb_flags() | BPF_SOCK_OPS_STATE_CB_FLAG) as i32);
        1
    }

    /// A TC program, to try links to interfaces.
    #[classifier]
    fn packets(_: TcContext) -> i32 {
        TC_ACT_OK as i32
    }
}

proxymatic_ebpf::object!();
