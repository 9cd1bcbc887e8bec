//! A packet at a TC hook, as an sk_buff.

use core::{
    mem::{self, MaybeUninit},
    ptr,
};

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, BPF_FIB_LKUP_RET_NO_NEIGH,
        BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_SHOT, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_redir_neigh,
    },
    helpers::generated as helper,
};
use proxymatic_ebpf::packet::{ChecksumDelta, ChecksumKind, Packet};

use crate::scratch::FibResult;

/// BPF_F_IPV6 of bpf_l4_csum_replace: the pseudo header is that of IPv6. Linux has it from 6.16 on, older kernels as a
/// fix.
const BPF_F_IPV6: u64 = 1 << 7;

/// Returns whether a packet has a VLAN tag outside of its data: it belongs to another interface.
#[inline(always)]
pub(super) fn is_tagged(skb: *mut __sk_buff) -> bool {
    // SAFETY: a field of the live context.
    unsafe { (&raw const (*skb).vlan_present).read_volatile() != 0 }
}

/// Returns whether an arriving packet is for another machine, for example one that a switch has flooded.
#[inline(always)]
pub(super) fn is_for_another_host(skb: *mut __sk_buff) -> bool {
    /// PACKET_OTHERHOST of linux/if_packet.h.
    const OTHER_HOST: u32 = 3;
    // SAFETY: a field of the live context.
    unsafe { (&raw const (*skb).pkt_type).read_volatile() == OTHER_HOST }
}

/// A packet, with the result of its route lookup.
pub(crate) struct Skb<'a> {
    pub(super) skb: *mut __sk_buff,
    pub(super) route: &'a mut FibResult,
    /// The index of the hook's scratch memory.
    pub(super) hook: u32,
}

impl<'a> Skb<'a> {
    #[inline(always)]
    pub(crate) fn new(skb: *mut __sk_buff, route: &'a mut FibResult, hook: u32) -> Self {
        Self { skb, route, hook }
    }

    /// Returns the index of the packet's interface.
    #[inline(always)]
    pub(super) fn interface(&self) -> u32 {
        // SAFETY: a field of the live context.
        unsafe { (&raw const (*self.skb).ifindex).read_volatile() }
    }

    /// Sends the packet by the route that was found.
    #[inline(always)]
    pub(crate) fn redirect(&mut self) -> i32 {
        if self.route.status == BPF_FIB_LKUP_RET_SUCCESS {
            if self.store(0, self.route.link()).is_none() {
                return TC_ACT_SHOT as i32;
            }
            // SAFETY: numbers.
            return unsafe { helper::bpf_redirect(self.route.fib.ifindex, 0) as i32 };
        }
        if self.route.status == BPF_FIB_LKUP_RET_NO_NEIGH {
            // SAFETY: integers, for which zero is valid.
            let mut next: bpf_redir_neigh = unsafe { mem::zeroed() };
            next.nh_family = u32::from(self.route.fib.family);
            // SAFETY: words, however they were written; the larger covers the smaller.
            next.__bindgen_anon_1.ipv6_nh = unsafe { self.route.fib.__bindgen_anon_4.ipv6_dst };
            // SAFETY: the value lives.
            return unsafe {
                helper::bpf_redirect_neigh(
                    self.route.fib.ifindex,
                    &raw mut next,
                    size_of::<bpf_redir_neigh>() as i32,
                    0,
                )
            } as i32;
        }
        // Forwarding is disabled on this interface, so the lookup ended early and left the index of this interface in
        // place.
        // SAFETY: numbers.
        unsafe { helper::bpf_redirect_neigh(self.route.fib.ifindex, ptr::null_mut(), 0, 0) as i32 }
    }

    /// Sends the packet back by the interface that it came from.
    #[inline(always)]
    pub(crate) fn send_back(&self) -> i32 {
        // SAFETY: numbers.
        unsafe { helper::bpf_redirect(self.interface(), 0) as i32 }
    }

    /// Cuts the packet to a length in bytes.
    #[inline(always)]
    pub(super) fn cut(&mut self, length: u32) -> Option<()> {
        // SAFETY: numbers.
        (unsafe { helper::bpf_skb_change_tail(self.skb, length, 0) } == 0).then_some(())
    }

    /// Inserts `by` bytes between the Ethernet header and the IP header.
    #[inline(always)]
    pub(super) fn grow(&mut self, by: u32) -> Option<()> {
        // SAFETY: numbers.
        (unsafe { helper::bpf_skb_adjust_room(self.skb, by as i32, BPF_ADJ_ROOM_MAC, 0) } == 0).then_some(())
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper fills the whole array, or returns an error.
        unsafe {
            let status = helper::bpf_skb_load_bytes(self.skb.cast(), at, bytes.as_mut_ptr().cast(), N as u32);
            if status == 0 { Some(bytes.assume_init()) } else { None }
        }
    }
    #[inline(always)]
    fn store<const N: usize>(&mut self, at: u32, bytes: [u8; N]) -> Option<()> {
        // SAFETY: the array lives.
        let status = unsafe { helper::bpf_skb_store_bytes(self.skb, at, bytes.as_ptr().cast(), N as u32, 0) };
        (status == 0).then_some(())
    }
    #[inline(always)]
    fn store_without_checksum<const N: usize>(&mut self, at: u32, bytes: [u8; N]) -> Option<()> {
        let flags = BPF_F_RECOMPUTE_CSUM.into();
        // SAFETY: the array lives.
        let status = unsafe { helper::bpf_skb_store_bytes(self.skb, at, bytes.as_ptr().cast(), N as u32, flags) };
        (status == 0).then_some(())
    }
    #[inline(always)]
    fn fix_ip_csum(&mut self, at: u32, change: ChecksumDelta) -> Option<()> {
        // SAFETY: numbers.
        let status = unsafe { helper::bpf_l3_csum_replace(self.skb, at, 0, change.sum().into(), 0) };
        (status == 0).then_some(())
    }
    #[inline(always)]
    fn fix_l4_csum(&mut self, at: u32, change: ChecksumDelta, sum: ChecksumKind) -> Option<()> {
        let mut flags = 0_u64;
        if sum.udp {
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        if sum.pseudo {
            flags |= u64::from(BPF_F_PSEUDO_HDR);
        }
        let change = u64::from(change.sum());
        // SAFETY: numbers.
        unsafe {
            if sum.pseudo && sum.v6 && helper::bpf_l4_csum_replace(self.skb, at, 0, change, flags | BPF_F_IPV6) == 0 {
                return Some(());
            }
            (helper::bpf_l4_csum_replace(self.skb, at, 0, change, flags) == 0).then_some(())
        }
    }
}
