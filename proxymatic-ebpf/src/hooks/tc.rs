//! The TC hooks, and the stages of the pipeline as BPF subprograms.
//!
//! The verifier checks each subprogram once, and each has a stack of its own. Only a word and [`Scratch`] pass between
//! them.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
        BPF_FIB_LKUP_RET_SUCCESS, TC_ACT_SHOT, TC_ACT_UNSPEC, bpf_fib_lookup,
    },
    helpers::generated as helper,
    programs::TcContext,
};
use proxymatic_common::{Address, FiveTuple, PROTOCOL_TCP, Port};
use proxymatic_ebpf::{
    Conntrack as _, Listener, PacketHook, Route,
    packet::{ETH_HLEN, IcmpError, IpHeader, Packet as _, Parsed},
    pipeline::{self, Action, NextStage, Stages},
};

use super::{
    icmp, process_caller,
    skb::{self, Skb},
};
use crate::{
    maps::{self, Maps},
    scratch::{EGRESS, INGRESS, Scratch},
};

/// The packet goes on through this host, to the TC programs of others if there are any.
const PASS: i32 = TC_ACT_UNSPEC;

/// Runs the pipeline on a packet that arrives at an interface.
#[inline(always)]
pub(crate) fn ingress(context: &TcContext) -> i32 {
    let packet = context.skb.skb;
    if skb::is_tagged(packet) || skb::is_for_another_host(packet) {
        return PASS;
    }
    pipeline::run(&mut TcStages::<INGRESS, false> { skb: packet })
}

/// Runs the pipeline on a packet that leaves by an interface.
#[inline(always)]
pub(crate) fn egress(context: &TcContext) -> i32 {
    let packet = context.skb.skb;
    if skb::is_tagged(packet) {
        return PASS;
    }
    pipeline::run(&mut TcStages::<EGRESS, true> { skb: packet })
}

/// One packet at a TC hook, whose stages are calls of subprograms.
struct TcStages<const HOOK: u32, const IS_EGRESS: bool> {
    skb: *mut __sk_buff,
}

impl<const HOOK: u32, const IS_EGRESS: bool> Stages for TcStages<HOOK, IS_EGRESS> {
    type Verdict = i32;
    const PASS: i32 = PASS;
    const EGRESS: bool = IS_EGRESS;

    #[inline(always)]
    fn parse(&mut self) -> Parsed {
        Parsed::from_word(parse_packet(self.skb, HOOK))
    }
    #[inline(always)]
    fn classify(&mut self, parsed: Parsed) -> NextStage {
        let (skb, parsed) = (self.skb, parsed.word());
        NextStage::from_word(if IS_EGRESS { classify_egress(skb, parsed) } else { classify_ingress(skb, parsed) })
    }
    #[inline(always)]
    fn handle_half_open(&mut self) -> NextStage {
        NextStage::from_word(if IS_EGRESS { half_open_egress() } else { half_open_ingress() })
    }
    #[inline(always)]
    fn select_backend(&mut self) -> NextStage {
        NextStage::from_word(select_packet_backend(self.skb, HOOK))
    }
    #[inline(always)]
    fn create_entries(&mut self) -> NextStage {
        NextStage::from_word(create_entries(self.skb, HOOK))
    }
    #[inline(always)]
    fn forward(&mut self) -> i32 {
        forward_packet(self.skb, HOOK) as i32
    }
    #[inline(always)]
    fn forward_icmp_error(&mut self) -> i32 {
        forward_icmp_error(self.skb, HOOK) as i32
    }
}

/// Returns a [`Parsed`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn parse_packet(skb: *mut __sk_buff, hook: u32) -> u32 {
    let Some(Scratch { ctx, route }) = maps::scratch(hook) else { return Parsed::Other.word() };
    ctx.parse(&Skb::new(skb, route, hook)).word()
}

/// Returns a [`NextStage`], as the subprograms below do.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn classify_ingress(skb: *mut __sk_buff, parsed: u32) -> u32 {
    let Some(Scratch { ctx, route }) = maps::scratch(INGRESS) else { return NextStage::Pass.word() };
    let (mut skb, parsed) = (Skb::new(skb, route, INGRESS), Parsed::from_word(parsed));
    pipeline::classify::<Maps, Skb<'_>, false>(&Maps, &mut skb, parsed, ctx).word()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn classify_egress(skb: *mut __sk_buff, parsed: u32) -> u32 {
    let Some(Scratch { ctx, route }) = maps::scratch(EGRESS) else { return NextStage::Pass.word() };
    let (mut skb, parsed) = (Skb::new(skb, route, EGRESS), Parsed::from_word(parsed));
    pipeline::classify::<Maps, Skb<'_>, true>(&Maps, &mut skb, parsed, ctx).word()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn half_open_ingress() -> u32 {
    let Some(Scratch { ctx, .. }) = maps::scratch(INGRESS) else { return NextStage::Pass.word() };
    pipeline::handle_half_open::<Maps, false>(&Maps, ctx).word()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn half_open_egress() -> u32 {
    let Some(Scratch { ctx, .. }) = maps::scratch(EGRESS) else { return NextStage::Pass.word() };
    pipeline::handle_half_open::<Maps, true>(&Maps, ctx).word()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn select_packet_backend(skb: *mut __sk_buff, hook: u32) -> u32 {
    let Some(Scratch { ctx, route }) = maps::scratch(hook) else { return NextStage::Pass.word() };
    pipeline::select_backend(&Maps, &Skb::new(skb, route, hook), ctx).word()
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn create_entries(skb: *mut __sk_buff, hook: u32) -> u32 {
    let Some(Scratch { ctx, route }) = maps::scratch(hook) else { return NextStage::Pass.word() };
    pipeline::create_entries(&Maps, &mut Skb::new(skb, route, hook), ctx).word()
}

/// Returns a TC_ACT_*, as the next subprogram does.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn forward_packet(skb: *mut __sk_buff, hook: u32) -> u32 {
    let Some(Scratch { ctx, route }) = maps::scratch(hook) else { return PASS as u32 };
    let mut skb = Skb::new(skb, route, hook);
    let action = pipeline::forward(&Maps, &mut skb, ctx);
    carry_out(&mut skb, action) as u32
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn forward_icmp_error(skb: *mut __sk_buff, hook: u32) -> u32 {
    let Some(Scratch { ctx, route }) = maps::scratch(hook) else { return PASS as u32 };
    let mut skb = Skb::new(skb, route, hook);
    let action = pipeline::forward_icmp_error(&Maps, &mut skb, ctx);
    carry_out(&mut skb, action) as u32
}

/// Returns 1 if the packet has become an ICMP error, else 0. `mtu` is 0 if the TTL is exceeded.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn reply_icmp(skb: *mut __sk_buff, hook: u32, mtu: u32) -> u32 {
    let Some(Scratch { ctx, route }) = maps::scratch(hook) else { return 0 };
    let error = if mtu == 0 { IcmpError::TtlExceeded } else { IcmpError::TooBig(mtu) };
    u32::from(icmp::turn_into_error(&mut Skb::new(skb, route, hook), ctx.ip_header(), error).is_some())
}

#[inline(always)]
fn carry_out(skb: &mut Skb<'_>, action: Action) -> i32 {
    match action {
        Action::Pass | Action::Local => PASS,
        Action::Forward => skb.redirect(),
        Action::ReplyIcmp => skb.send_back(),
        Action::Drop => TC_ACT_SHOT as i32,
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
            BPF_FIB_LKUP_RET_FRAG_NEEDED => return exceeds_mtu(number),
            _ => return Route::None,
        }
        // SAFETY: a field of the live context.
        let segment = unsafe { (&raw const (*self.skb).gso_size).read_volatile() };
        if segment != 0 && to.protocol == PROTOCOL_TCP {
            // The packet holds many segments, whose sizes bpf_fib_lookup does not check.
            let length = self.load::<1>(header.transport + 12).map_or(20, |it| u32::from(it[0] >> 4) * 4);
            if let Route::TooBig { mtu, .. } = exceeds_mtu(number)
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
        reply_icmp(self.skb, self.hook, mtu) != 0
    }
    #[inline(always)]
    fn listener(&self, from: (Address, Port), to: (&Address, Port), protocol: u8) -> Listener {
        process_caller::listener(self.skb.cast(), from, to, protocol)
    }
}

/// Returns the route for a packet that exceeds the MTU of an interface; no route if the interface is unknown.
#[inline(always)]
fn exceeds_mtu(number: u32) -> Route {
    Maps.interface(number).map_or(Route::None, |interface| Route::TooBig { out_ifindex: number, mtu: interface.mtu })
}
