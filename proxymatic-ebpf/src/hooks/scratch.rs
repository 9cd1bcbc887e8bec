//! The per-CPU memory of hooks on packets, beyond their stack.

use aya_ebpf::bindings::bpf_fib_lookup;
use proxymatic_common::FiveTuple;
use proxymatic_ebpf::{PacketCtx, packet::IpHeader};

/// The families of sockets.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The state of the packet at hand.
#[repr(C)]
pub(crate) struct Scratch {
    pub(super) ctx: PacketCtx,
    pub(super) route: FibResult,
}

/// The arguments and the result of a route lookup.
#[repr(C)]
pub(crate) struct FibResult {
    pub(super) fib: bpf_fib_lookup,
    /// What bpf_fib_lookup returned: BPF_FIB_LKUP_RET_*.
    pub(super) status: u32,
}

impl FibResult {
    /// Puts a question: the way from one interface of a packet that becomes what `to` says. The last one is still in there.
    #[inline(always)]
    pub(super) fn prepare(&mut self, here: u32, header: &IpHeader, to: &FiveTuple, length: u16) {
        let fib = &mut self.fib;
        fib.l4_protocol = to.protocol;
        (fib.sport, fib.dport, fib.ifindex) = (0, 0, here);
        fib.__bindgen_anon_1.tot_len = length;
        fib.__bindgen_anon_2.rt_metric = 0;
        if header.v4 {
            fib.family = AF_INET;
            fib.__bindgen_anon_3.ipv4_src = to.source.v4_word();
            fib.__bindgen_anon_4.ipv4_dst = to.destination.v4_word();
        } else {
            fib.family = AF_INET6;
            fib.__bindgen_anon_3.ipv6_src = to.source.v6_words();
            fib.__bindgen_anon_4.ipv6_dst = to.destination.v6_words();
        }
    }

    /// The link's header that the kernel gave, but for the type.
    #[inline(always)]
    pub(super) const fn link(&self) -> [u8; 12] {
        let (to, from) = (self.fib.dmac, self.fib.smac);
        [to[0], to[1], to[2], to[3], to[4], to[5], from[0], from[1], from[2], from[3], from[4], from[5]]
    }
}
