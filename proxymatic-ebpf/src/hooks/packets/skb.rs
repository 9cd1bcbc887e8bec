//! A packet as TC has it.

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
    Connections as _, Hook, Listener, Way,
    packet::{Answer, Change, LINK, Network, Packet, Sum},
};

use super::{super::caller, answer_packet};
use crate::maps::Maps;

/// The families of sockets.
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// BPF_F_IPV6 of bpf_l4_csum_replace: the pseudo header is that of IPv6. Known to Linux from 6.16 on, and to what has it as
/// a fix.
const BPF_F_IPV6: u64 = 1 << 7;

/// Whether a packet belongs to a VLAN, by a tag that lies beside it and not in it: that is another interface's.
#[inline(always)]
pub(super) fn is_tagged(skb: *mut __sk_buff) -> bool {
    // SAFETY: a field of the live context.
    unsafe { (&raw const (*skb).vlan_present).read_volatile() != 0 }
}

/// Whether a packet that comes belongs to another machine, as what a switch sends everywhere.
#[inline(always)]
pub(super) fn is_of_others(skb: *mut __sk_buff) -> bool {
    /// PACKET_OTHERHOST of linux/if_packet.h.
    const OTHER_HOST: u32 = 3;
    // SAFETY: a field of the live context.
    unsafe { (&raw const (*skb).pkt_type).read_volatile() == OTHER_HOST }
}

/// A way that was found.
#[repr(C)]
pub(crate) struct Found {
    pub(super) fib: bpf_fib_lookup,
    /// What the kernel said of it: BPF_FIB_LKUP_RET_*.
    said: u32,
}

impl Found {
    /// Puts a question: the way from one interface of a packet that becomes what `to` says. The last one is still in there.
    #[inline(always)]
    pub(super) fn ask(&mut self, here: u32, header: &Network, to: &FiveTuple, length: u16) {
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

/// A packet, with the way that was found for it.
pub(crate) struct Skb<'a> {
    skb: *mut __sk_buff,
    way: &'a mut Found,
    /// Whose notes belong to it.
    hook: u32,
}

impl<'a> Skb<'a> {
    #[inline(always)]
    pub(crate) fn new(skb: *mut __sk_buff, way: &'a mut Found, hook: u32) -> Self {
        Self { skb, way, hook }
    }

    /// The interface that the packet is at.
    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: a field of the live context.
        unsafe { (&raw const (*self.skb).ifindex).read_volatile() }
    }

    /// Sends the packet by the way that was found.
    #[inline(always)]
    pub(crate) fn leave(&mut self) -> i32 {
        if self.way.said == BPF_FIB_LKUP_RET_SUCCESS {
            if self.store(0, self.way.link()).is_none() {
                return TC_ACT_SHOT as i32;
            }
            // SAFETY: numbers.
            return unsafe { helper::bpf_redirect(self.way.fib.ifindex, 0) as i32 };
        }
        if self.way.said == BPF_FIB_LKUP_RET_NO_NEIGH {
            // SAFETY: integers, of which zero is a value.
            let mut next: bpf_redir_neigh = unsafe { mem::zeroed() };
            next.nh_family = u32::from(self.way.fib.family);
            // SAFETY: words, whatever they were written as; the larger covers the smaller.
            next.__bindgen_anon_1.ipv6_nh = unsafe { self.way.fib.__bindgen_anon_4.ipv6_dst };
            // SAFETY: the value lives.
            return unsafe {
                helper::bpf_redirect_neigh(self.way.fib.ifindex, &raw mut next, size_of::<bpf_redir_neigh>() as i32, 0)
            } as i32;
        }
        // The kernel was not asked for the way, since this interface does not forward: then there is only this one.
        // SAFETY: numbers.
        unsafe { helper::bpf_redirect_neigh(self.way.fib.ifindex, ptr::null_mut(), 0, 0) as i32 }
    }

    /// Sends the packet back by the interface that it came from.
    #[inline(always)]
    pub(crate) fn turn_back(&self) -> i32 {
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
    fn exceeds_mtu(number: u32) -> Way {
        Maps.interface(number).map_or(Way::None, |interface| Way::TooBig { by: number, most: interface.mtu })
    }
}

impl Packet for Skb<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        let mut bytes = MaybeUninit::<[u8; N]>::uninit();
        // SAFETY: the helper fills all of the array, or says that it did not.
        unsafe {
            let said = helper::bpf_skb_load_bytes(self.skb.cast(), at, bytes.as_mut_ptr().cast(), N as u32);
            if said == 0 { Some(bytes.assume_init()) } else { None }
        }
    }
    #[inline(always)]
    fn store<const N: usize>(&mut self, at: u32, bytes: [u8; N]) -> Option<()> {
        // SAFETY: the array lives.
        let said = unsafe { helper::bpf_skb_store_bytes(self.skb, at, bytes.as_ptr().cast(), N as u32, 0) };
        (said == 0).then_some(())
    }
    #[inline(always)]
    fn store_unsummed<const N: usize>(&mut self, at: u32, bytes: [u8; N]) -> Option<()> {
        let flags = BPF_F_RECOMPUTE_CSUM.into();
        // SAFETY: the array lives.
        let said = unsafe { helper::bpf_skb_store_bytes(self.skb, at, bytes.as_ptr().cast(), N as u32, flags) };
        (said == 0).then_some(())
    }
    #[inline(always)]
    fn mend_header(&mut self, at: u32, change: Change) -> Option<()> {
        // SAFETY: numbers.
        let said = unsafe { helper::bpf_l3_csum_replace(self.skb, at, 0, change.sum().into(), 0) };
        (said == 0).then_some(())
    }
    #[inline(always)]
    fn mend(&mut self, at: u32, change: Change, sum: Sum) -> Option<()> {
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

impl Hook for Skb<'_> {
    #[inline(always)]
    fn way(&mut self, header: &Network, to: &FiveTuple) -> Way {
        let here = self.interface();
        self.way.ask(here, header, to, 0);
        // SAFETY: the context and the value live.
        let found = unsafe {
            helper::bpf_fib_lookup(self.skb.cast(), &raw mut self.way.fib, size_of::<bpf_fib_lookup>() as i32, 0) as u32
        };
        self.way.said = found;
        let number = self.way.fib.ifindex;
        match found {
            BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FWD_DISABLED => {}
            BPF_FIB_LKUP_RET_FRAG_NEEDED => return Self::exceeds_mtu(number),
            _ => return Way::None,
        }
        // SAFETY: a field of the live context.
        let segment = unsafe { (&raw const (*self.skb).gso_size).read_volatile() };
        if segment != 0 && to.protocol == PROTOCOL_TCP {
            // Many segments in one, whose sizes the kernel does not look at here.
            let length = self.load::<1>(header.transport + 12).map_or(20, |it| u32::from(it[0] >> 4) * 4);
            if let Way::TooBig { most, .. } = Self::exceeds_mtu(number)
                && segment + length + header.transport - LINK > most
            {
                return Way::TooBig { by: number, most };
            }
        }
        Way::By(number)
    }
    #[inline(always)]
    fn answer(&mut self, _: &Network, error: Answer) -> bool {
        let most = match error {
            Answer::HopsExceeded => 0,
            Answer::TooBig(most) => most,
        };
        answer_packet(self.skb, self.hook, most) != 0
    }
    #[inline(always)]
    fn listener(&self, address: &Address, port: Port, protocol: u8) -> Listener {
        caller::listener(self.skb.cast(), address, port, protocol)
    }
}
