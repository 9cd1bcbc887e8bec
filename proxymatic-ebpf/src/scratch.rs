//! The per-CPU memory of hooks on packets, beyond their stack.

use aya_ebpf::bindings::bpf_fib_lookup;
use proxymatic_common::FiveTuple;
use proxymatic_ebpf::{PacketCtx, packet::IpHeader};

/// The families of sockets.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// The index of each hook's [`Scratch`].
pub(crate) const INGRESS: u32 = 0;
pub(crate) const EGRESS: u32 = 1;
pub(crate) const XDP: u32 = 2;

/// The state of the current packet.
#[repr(C)]
pub(crate) struct Scratch {
    pub(crate) ctx: PacketCtx,
    pub(crate) route: FibResult,
}

/// The arguments and the result of a route lookup.
#[repr(C)]
pub(crate) struct FibResult {
    pub(crate) fib: bpf_fib_lookup,
    /// What bpf_fib_lookup returned: BPF_FIB_LKUP_RET_*.
    pub(crate) status: u32,
}

impl FibResult {
    /// Sets the arguments of a lookup: the route from interface `here` for a packet that will be rewritten to `to`.
    /// Every field that the lookup reads is set, since the last lookup's result is still there.
    #[inline(always)]
    pub(crate) fn prepare(&mut self, here: u32, header: &IpHeader, to: &FiveTuple, length: u16) {
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

    /// Returns the Ethernet header of the lookup's result, without the ethertype.
    #[inline(always)]
    pub(crate) const fn link(&self) -> [u8; 12] {
        let (to, from) = (self.fib.dmac, self.fib.smac);
        [to[0], to[1], to[2], to[3], to[4], to[5], from[0], from[1], from[2], from[3], from[4], from[5]]
    }
}
