//! The hooks on packets of an interface, and the stages of the pipeline as BPF subprograms.
//!
//! The verifier checks each subprogram once, and each has a stack of its own. Only a word and [`Scratch`] pass between them.

use aya_ebpf::{
    bindings::{
        __sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    programs::{TcContext, XdpContext},
};
use proxymatic_ebpf::{
    packet::{IcmpError, Parsed},
    pipeline::{self, Action, NextStage, Stages},
};

use super::{
    icmp,
    scratch::Scratch,
    tc::{self, Skb},
    xdp::Frame,
};
use crate::maps::{self, Maps};

/// The packet goes on through this host, to the TC programs of others if there are any.
const PASS: i32 = TC_ACT_UNSPEC;

/// The index of each hook's [`Scratch`].
const INGRESS: u32 = 0;
const EGRESS: u32 = 1;
const XDP: u32 = 2;

/// Runs the pipeline on a packet that arrives at an interface.
#[inline(always)]
pub(crate) fn ingress(context: &TcContext) -> i32 {
    let skb = context.skb.skb;
    if tc::is_tagged(skb) || tc::is_for_another_host(skb) {
        return PASS;
    }
    pipeline::run(&mut TcStages::<INGRESS, false> { skb })
}

/// Runs the pipeline on a packet that leaves by an interface.
#[inline(always)]
pub(crate) fn egress(context: &TcContext) -> i32 {
    let skb = context.skb.skb;
    if tc::is_tagged(skb) {
        return PASS;
    }
    pipeline::run(&mut TcStages::<EGRESS, true> { skb })
}

/// Runs the fast path on a packet that arrives at an interface.
#[inline(always)]
pub(crate) fn xdp_ingress(context: &XdpContext) -> u32 {
    let Some(Scratch { ctx, route }) = maps::scratch(XDP) else { return XDP_PASS };
    let mut frame = Frame::new(context, route);
    match pipeline::fast_path(&Maps, &mut frame, ctx) {
        Action::Forward => frame.redirect(),
        Action::Drop => XDP_DROP,
        Action::Pass | Action::Local | Action::ReplyIcmp => XDP_PASS,
    }
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
pub(super) extern "C" fn reply_icmp(skb: *mut __sk_buff, hook: u32, mtu: u32) -> u32 {
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
