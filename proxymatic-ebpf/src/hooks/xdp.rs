//! The XDP hook.

use core::ptr;

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup,
        xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    helpers::generated as helper,
    programs::XdpContext,
};
use proxymatic_common::{Address, FiveTuple, InterfaceKind, Port};
use proxymatic_ebpf::{
    Conntrack as _, Listener, PacketHook, Route,
    packet::{ChecksumDelta, ChecksumKind, ETH_HLEN, IcmpError, IpHeader, Packet},
    pipeline::Action,
};

use crate::{
    maps::{self, Maps},
    scratch::{FibResult, Scratch, XDP},
};

/// Runs the fast path on a packet that arrives at an interface.
#[inline(always)]
pub(crate) fn xdp_ingress(context: &XdpContext) -> u32 {
    let Some(Scratch { ctx, route }) = maps::scratch(XDP) else { return XDP_PASS };
    let mut frame = Frame::new(context, route);
    match proxymatic_ebpf::fast_path(&Maps, &mut frame, ctx) {
        Action::Forward => frame.redirect(),
        Action::Drop => XDP_DROP,
        Action::Pass | Action::Local | Action::ReplyIcmp => XDP_PASS,
    }
}

/// A packet, with the result of its route lookup.
pub(crate) struct Frame<'a> {
    context: *mut xdp_md,
    route: &'a mut FibResult,
}

impl<'a> Frame<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &XdpContext, route: &'a mut FibResult) -> Self {
        Self { context: context.ctx, route }
    }

    /// Sends the packet by the route that was found.
    #[inline(always)]
    pub(crate) fn redirect(&mut self) -> u32 {
        if self.store(0, self.route.link()).is_none() {
            return XDP_DROP;
        }
        if self.route.fib.ifindex == self.interface() {
            return XDP_TX;
        }
        // SAFETY: numbers.
        unsafe { helper::bpf_redirect(self.route.fib.ifindex, 0) as u32 }
    }

    /// Returns the index of the packet's interface.
    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: a field of the live context.
        unsafe { (&raw const (*self.context).ingress_ifindex).read_volatile() }
    }

    /// Returns a pointer to `N` bytes of the packet.
    #[inline(always)]
    fn bytes<const N: usize>(&self, at: u32) -> Option<*mut [u8; N]> {
        // SAFETY: fields of the live context.
        let (start, end) = unsafe {
            (
                (&raw const (*self.context).data).read_volatile() as usize,
                (&raw const (*self.context).data_end).read_volatile() as usize,
            )
        };
        let bytes = start + at as usize;
        if bytes + N > end { None } else { Some(ptr::with_exposed_provenance_mut(bytes)) }
    }
}

impl Packet for Frame<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, at: u32) -> Option<[u8; N]> {
        // SAFETY: compared with the end of the packet, as the verifier will check.
        self.bytes::<N>(at).map(|bytes| unsafe { bytes.read_unaligned() })
    }
    #[inline(always)]
    fn store<const N: usize>(&mut self, at: u32, new: [u8; N]) -> Option<()> {
        // SAFETY: the same.
        self.bytes::<N>(at).map(|bytes| unsafe { bytes.write_unaligned(new) })
    }
    #[inline(always)]
    fn store_without_checksum<const N: usize>(&mut self, at: u32, new: [u8; N]) -> Option<()> {
        self.store(at, new)
    }
    #[inline(always)]
    fn fix_ip_csum(&mut self, at: u32, change: ChecksumDelta) -> Option<()> {
        let before = u16::from_ne_bytes(self.load::<2>(at)?);
        self.store(at, change.applied(before).to_ne_bytes())
    }
    #[inline(always)]
    fn fix_l4_csum(&mut self, at: u32, change: ChecksumDelta, sum: ChecksumKind) -> Option<()> {
        let before = u16::from_ne_bytes(self.load::<2>(at)?);
        let after = change.applied(before);
        self.store(at, (if sum.udp && after == 0 { 0xffff } else { after }).to_ne_bytes())
    }
}

impl PacketHook for Frame<'_> {
    #[inline(always)]
    fn fib_lookup(&mut self, header: &IpHeader, to: &FiveTuple) -> Route {
        let here = self.interface();
        // SAFETY: fields of the live context.
        let length = unsafe {
            (&raw const (*self.context).data_end).read_volatile() - (&raw const (*self.context).data).read_volatile()
        };
        self.route.prepare(here, header, to, length.wrapping_sub(ETH_HLEN) as u16);
        // SAFETY: the context and the value live.
        let found = unsafe {
            let fib = &raw mut self.route.fib;
            helper::bpf_fib_lookup(self.context.cast(), fib, size_of::<bpf_fib_lookup>() as i32, 0) as u32
        };
        let number = self.route.fib.ifindex;
        if found != BPF_FIB_LKUP_RET_SUCCESS {
            return Route::None;
        }
        // An interface without XDP silently drops frames that XDP redirects to it.
        let accelerated = || Maps.interface(number).is_some_and(|it| it.kind.0 == InterfaceKind::ACCELERATED.0);
        if number == here || accelerated() { Route::Via(number) } else { Route::None }
    }
    #[inline(always)]
    fn reply_icmp(&mut self, _: &IpHeader, _: IcmpError) -> bool {
        // Packets that need an ICMP reply pass on to TC.
        false
    }
    #[inline(always)]
    fn listener(&self, _: (Address, Port), _: (&Address, Port), _: u8) -> Listener {
        // TC handles the first packet of a connection.
        Listener::None
    }
}
