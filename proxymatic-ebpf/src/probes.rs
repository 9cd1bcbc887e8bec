//! Tiny programs that find out what a kernel has, one question each. They load where the answer is yes.
//!
//! Asked by loading, never by version, since distributions backport; and with the arguments that the hooks use, since
//! newer kernels verify those too.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        helpers::generated::{bpf_ktime_get_coarse_ns, bpf_set_retval, bpf_skc_to_mptcp_sock},
        macros::cgroup_sock_addr,
        programs::SockAddrContext,
    };

    /// Can a connect hook say which error it refuses with?
    #[cgroup_sock_addr(connect4)]
    fn set_retval(_: SockAddrContext) -> i32 {
        // SAFETY: a helper call with a constant, no memory involved.
        unsafe { bpf_set_retval(-111) };
        0
    }

    /// Does the kernel give the time of its last tick?
    #[cgroup_sock_addr(connect4)]
    fn coarse(_: SockAddrContext) -> i32 {
        // SAFETY: no arguments.
        i32::from(unsafe { bpf_ktime_get_coarse_ns() } != 0)
    }

    /// Can it tell which MPTCP socket a subflow belongs to?
    #[cgroup_sock_addr(connect4)]
    fn mptcp(context: SockAddrContext) -> i32 {
        // SAFETY: the context lives, and its socket is checked for null.
        unsafe {
            let socket = (*context.sock_addr).__bindgen_anon_1.sk;
            i32::from(!socket.is_null() && !bpf_skc_to_mptcp_sock(socket.cast()).is_null())
        }
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked: the verifier would refuse a program that can get here.
    loop {}
}

/// The kernel gives its helpers only to programs under a licence that goes with the GPL.
#[cfg(target_arch = "bpf")]
// SAFETY: the section is read by the loader, the name by nobody else.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(not(target_arch = "bpf"))]
fn main() {
    // Off the BPF target this binary is nothing: `cargo xtask build-ebpf` builds the object.
}
