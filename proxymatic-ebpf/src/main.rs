//! The eBPF object: the list of hooks. The library decides, `maps` has the data, `hooks` connects both to the kernel.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(core_intrinsics))]
#![cfg_attr(target_arch = "bpf", expect(internal_features, reason = "the xadd intrinsic is the only atomic on BPF"))]

#[cfg(target_arch = "bpf")]
mod hooks;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod scratch;

/// The hooks. A function must not have the name of its ELF section or of a helper.
#[cfg(target_arch = "bpf")]
mod programs {
    use aya_ebpf::{
        macros::{cgroup_sock, cgroup_sock_addr, classifier, sock_ops, xdp},
        programs::{SockAddrContext, SockContext, SockOpsContext, TcContext, XdpContext},
    };
    use proxymatic_common::Families;

    use crate::hooks::{self, V4, V6};

    #[cgroup_sock_addr(connect4)]
    fn connect4(context: SockAddrContext) -> i32 {
        hooks::connect::<V4>(&context)
    }

    #[cgroup_sock_addr(connect6)]
    fn connect6(context: SockAddrContext) -> i32 {
        hooks::connect::<V6>(&context)
    }

    #[cgroup_sock_addr(sendmsg4)]
    fn sendmsg4(context: SockAddrContext) -> i32 {
        hooks::send::<V4>(&context, Families::V4)
    }

    #[cgroup_sock_addr(sendmsg6)]
    fn sendmsg6(context: SockAddrContext) -> i32 {
        hooks::send::<V6>(&context, Families::V6)
    }

    #[cgroup_sock_addr(recvmsg4)]
    fn recvmsg4(context: SockAddrContext) -> i32 {
        hooks::receive::<V4>(&context)
    }

    #[cgroup_sock_addr(recvmsg6)]
    fn recvmsg6(context: SockAddrContext) -> i32 {
        hooks::receive::<V6>(&context)
    }

    #[cgroup_sock_addr(getpeername4)]
    fn getpeername4(context: SockAddrContext) -> i32 {
        hooks::peername::<V4>(&context)
    }

    #[cgroup_sock_addr(getpeername6)]
    fn getpeername6(context: SockAddrContext) -> i32 {
        hooks::peername::<V6>(&context)
    }

    #[cgroup_sock(post_bind4)]
    fn post_bind4(context: SockContext) -> i32 {
        hooks::bind::<V4>(&context)
    }

    #[cgroup_sock(post_bind6)]
    fn post_bind6(context: SockContext) -> i32 {
        hooks::bind::<V6>(&context)
    }

    #[cgroup_sock(sock_release)]
    fn sock_release(context: SockContext) -> i32 {
        hooks::release(&context)
    }

    #[sock_ops]
    fn tcp_states(context: SockOpsContext) -> u32 {
        hooks::on_tcp_event(&context)
    }

    #[classifier]
    fn tc_ingress(context: TcContext) -> i32 {
        hooks::ingress(&context)
    }

    #[classifier]
    fn tc_egress(context: TcContext) -> i32 {
        hooks::egress(&context)
    }

    #[xdp]
    fn xdp_ingress(context: XdpContext) -> u32 {
        hooks::xdp_ingress(&context)
    }
}

proxymatic_ebpf::object!();
