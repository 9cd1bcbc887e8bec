//! A packet at a TC hook.

use core::{
    mem::{self, MaybeUninit},
    ptr,
};

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, BPF_FIB_LKUP_RET_FRAG_NEEDED,
        BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_SHOT,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, bpf_fib_lookup, bpf_redir_neigh,
    },
    helpers::generated as helper,
};
use proxymatic_common::{Address, FiveTuple, PROTOCOL_TCP, Port};
use proxymatic_ebpf::{
    Conntrack as _, Listener, PacketHook, Route,
    packet::{ChecksumDelta, ChecksumKind, ETH_HLEN, IcmpError, IpHeader, Packet},
};

use super::{packets, process_caller, scratch::FibResult};
use crate::maps::Maps;

/// BPF_F_IPV6 of bpf_l4_csum_replace: the pseudo header is that of IPv6. Known to Linux from 6.16 on, and to what has it as
/// a fix.
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
    skb: *mut __sk_buff,
    route: &'a mut FibResult,
    /// The index of the hook's scratch memory.
    hook: u32,
}

impl<'a> Skb<'a> {
    #[inline(always)]
    pub(crate) fn new(skb: *mut __sk_buff, route: &'a mut FibResult, hook: u32) -> Self {
        Self { skb, route, hook }
    }

    /// The interface that the packet is at.
    #[inline(always)]
    fn interface(&self) -> u32 {
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
            // SAFETY: integers, of which zero is a value.
            let mut next: bpf_redir_neigh = unsafe { mem::zeroed() };
            next.nh_family = u32::from(self.route.fib.family);
            // SAFETY: words, whatever they were written as; the larger covers the smaller.
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
        // The kernel was not asked for the way, since this interface does not forward: then there is only this one.
        // SAFETY: numbers.
        unsafe { helper::bpf_redirect_neigh(self.route.fib.ifindex, ptr::null_mut(), 0, 0) as i32 }
    }

    /// Sends the packet back by the interface that it came from.
    #[inline(always)]
    pub(crate) fn send_back(&self) -> i32 {
        // SAFETY: numbers.
        unsafe { helper::bpf_redirect(self.interface(), 0) as i32 }
    }

    /// Cuts off all but so many bytes.
    #[inline(always)]
    pub(super) fn cut(&mut self, length: u32) -> Option<()> {
        // SAFETY: numbers.
        (unsafe { helper::bpf_skb_change_tail(self.skb, length, 0) } == 0).then_some(())
    }

    /// Makes room for so many bytes between the link's header and that of the network.
    #[inline(always)]
    pub(super) fn grow(&mut self, by: u32) -> Option<()> {
        // SAFETY: numbers.
        (unsafe { helper::bpf_skb_adjust_room(self.skb, by as i32, BPF_ADJ_ROOM_MAC, 0) } == 0).then_some(())
    }

    /// The MTU of an interface that we know.
    #[inline(always)]
    fn exceeds_mtu(number: u32) -> Route {
        Maps.interface(number)
            .map_or(Route::None, |interface| Route::TooBig { out_ifindex: number, mtu: interface.mtu })
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper fills all of the array, or says that it did not.
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

impl PacketHook for Skb<'_> {
    #[inline(always)]
    fn fib_lookup(&mut self, header: &IpHeader, to: &FiveTuple) -> Route {
        let here = self.interface();
        self.route.prepare(here, header, to, 0);
        // SAFETY: the context and the value live.
        let found = unsafe {
            helper::bpf_fib_lookup(self.skb.cast(), &raw mut self.route.fib, size_of::<bpf_fib_lookup>() as i32, 0)
                as u32
        };
        self.route.status = found;
        let number = self.route.fib.ifindex;
        match found {
            BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FWD_DISABLED => {}
            BPF_FIB_LKUP_RET_FRAG_NEEDED => return Self::exceeds_mtu(number),
            _ => return Route::None,
        }
        // SAFETY: a field of the live context.
        let segment = unsafe { (&raw const (*self.skb).gso_size).read_volatile() };
        if segment != 0 && to.protocol == PROTOCOL_TCP {
            // Many segments in one, whose sizes the kernel does not look at here.
            let length = self.load::<1>(header.transport + 12).map_or(20, |it| u32::from(it[0] >> 4) * 4);
            if let Route::TooBig { mtu, .. } = Self::exceeds_mtu(number)
                && segment + length + header.transport - ETH_HLEN > mtu
            {
                return Route::TooBig { out_ifindex: number, mtu };
            }
        }
        Route::Via(number)
    }
    #[inline(always)]
    fn reply_icmp(&mut self, _: &IpHeader, error: IcmpError) -> bool {
        let mtu = match error {
            IcmpError::TtlExceeded => 0,
            IcmpError::TooBig(mtu) => mtu,
        };
        packets::reply_icmp(self.skb, self.hook, mtu) != 0
    }
    #[inline(always)]
    fn listener(&self, address: &Address, port: Port, protocol: u8) -> Listener {
        process_caller::listener(self.skb.cast(), address, port, protocol)
    }
}
