//! The hooks on the packets of an interface.

mod answer;
mod frame;
mod skb;

use aya_ebpf::{
    bindings::{
        __sk_buff, TC_ACT_SHOT, TC_ACT_UNSPEC,
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    programs::{TcContext, XdpContext},
};
use proxymatic_ebpf::{
    Fate, Notes, Step,
    packet::{Answer, Parsed},
};

use self::{
    frame::Frame,
    skb::{Found, Skb},
};
use crate::maps::{self, Maps};

/// The packet goes on through this host: to the programs of others behind this one, if there are any.
const PASS: i32 = TC_ACT_UNSPEC;

/// What a hook has at hand of one packet, beyond its stack.
#[repr(C)]
pub(crate) struct Scratch {
    notes: Notes,
    way: Found,
}

/// Which notes are whose.
const ARRIVES: u32 = 0;
const DEPARTS: u32 = 1;
const ACCELERATES: u32 = 2;

/// A packet comes from a network.
#[inline(always)]
pub(crate) fn arrive(context: &TcContext) -> i32 {
    meet::<ARRIVES, false>(context.skb.skb)
}

/// A packet leaves for a network.
#[inline(always)]
pub(crate) fn depart(context: &TcContext) -> i32 {
    meet::<DEPARTS, true>(context.skb.skb)
}

// Each step of a packet is a function of its own: the verifier goes through each once, and each has a stack of its own.
// Nothing of the notes is held from one to the next.
#[inline(always)]
fn meet<const HOOK: u32, const DEPARTS: bool>(skb: *mut __sk_buff) -> i32 {
    if skb::is_tagged(skb) || (!DEPARTS && skb::is_of_others(skb)) {
        return PASS;
    }
    let parsed = read_packet(skb, HOOK);
    if parsed == OTHER {
        return PASS;
    }
    let mut step = if DEPARTS { meet_departing(skb, parsed) } else { meet_arriving(skb, parsed) };
    if step == EARLY {
        step = if DEPARTS { early_departing() } else { early_arriving() };
    }
    if !DEPARTS && step == BEGIN {
        if choose_backend(skb, HOOK) == 0 {
            return PASS;
        }
        step = connect_backend(skb, HOOK);
    }
    match step {
        SEND => send_packet(skb, HOOK) as i32,
        SEND_ERROR => send_error(skb, HOOK) as i32,
        fate => fate as i32,
    }
}

/// What a step gives, if not what the hook is to give: no TC_ACT_* is among these.
const EARLY: u32 = 100;
const BEGIN: u32 = 101;
const SEND: u32 = 102;
const SEND_ERROR: u32 = 103;

/// [`proxymatic_ebpf::meet`] as a function of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn meet_arriving(skb: *mut __sk_buff, parsed: u32) -> u32 {
    look::<ARRIVES, false>(skb, parsed)
}

/// The same of what leaves.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn meet_departing(skb: *mut __sk_buff, parsed: u32) -> u32 {
    look::<DEPARTS, true>(skb, parsed)
}

#[inline(always)]
fn look<const HOOK: u32, const DEPARTS: bool>(skb: *mut __sk_buff, parsed: u32) -> u32 {
    let parsed = match parsed {
        FLOW => Parsed::Flow,
        ERROR => Parsed::Error,
        _ => Parsed::Unreadable,
    };
    let Some(Scratch { notes, way }) = maps::scratch(HOOK) else { return PASS as u32 };
    let mut hook = Skb::new(skb, way, HOOK);
    next(proxymatic_ebpf::meet::<Maps, Skb<'_>, DEPARTS>(&Maps, &mut hook, parsed, notes))
}

/// [`proxymatic_ebpf::early`] as a function of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn early_arriving() -> u32 {
    let Some(Scratch { notes, .. }) = maps::scratch(ARRIVES) else { return PASS as u32 };
    next(proxymatic_ebpf::early::<Maps, false>(&Maps, notes))
}

/// The same of what leaves.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn early_departing() -> u32 {
    let Some(Scratch { notes, .. }) = maps::scratch(DEPARTS) else { return PASS as u32 };
    next(proxymatic_ebpf::early::<Maps, true>(&Maps, notes))
}

/// A step as a number.
#[inline(always)]
fn next(step: Step) -> u32 {
    match step {
        Step::Pass => PASS as u32,
        Step::Early => EARLY,
        Step::Begin => BEGIN,
        Step::Send => SEND,
        Step::SendError => SEND_ERROR,
    }
}

/// [`proxymatic_ebpf::send_error`] as a function of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn send_error(skb: *mut __sk_buff, hook: u32) -> u32 {
    let Some(Scratch { notes, way }) = maps::scratch(hook) else { return PASS as u32 };
    let mut skb = Skb::new(skb, way, hook);
    let fate = proxymatic_ebpf::send_error(&Maps, &mut skb, notes);
    finish(&mut skb, fate) as u32
}

/// [`proxymatic_ebpf::send`] as a function of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn send_packet(skb: *mut __sk_buff, hook: u32) -> u32 {
    let Some(Scratch { notes, way }) = maps::scratch(hook) else { return PASS as u32 };
    let mut skb = Skb::new(skb, way, hook);
    let fate = proxymatic_ebpf::send(&Maps, &mut skb, notes);
    finish(&mut skb, fate) as u32
}

/// What [`read_packet`] gives.
const OTHER: u32 = 0;
const FLOW: u32 = 1;
const ERROR: u32 = 2;
const UNREADABLE: u32 = 3;

/// [`proxymatic_ebpf::packet::read`] as a function of its own: the verifier goes through it once. `hook` says whose notes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_packet(skb: *mut __sk_buff, hook: u32) -> u32 {
    let Some(Scratch { notes, way }) = maps::scratch(hook) else { return 0 };
    match notes.read(&Skb::new(skb, way, hook)) {
        Parsed::Other => OTHER,
        Parsed::Flow => FLOW,
        Parsed::Error => ERROR,
        Parsed::Unreadable => UNREADABLE,
    }
}

/// [`proxymatic_ebpf::choose`] as a function of its own. Gives whether there is a backend.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn choose_backend(skb: *mut __sk_buff, hook: u32) -> u32 {
    let Some(Scratch { notes, way }) = maps::scratch(hook) else { return 0 };
    u32::from(proxymatic_ebpf::choose(&Maps, &Skb::new(skb, way, hook), notes))
}

/// [`proxymatic_ebpf::connect`] as a function of its own.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn connect_backend(skb: *mut __sk_buff, hook: u32) -> u32 {
    let Some(Scratch { notes, way }) = maps::scratch(hook) else { return PASS as u32 };
    if proxymatic_ebpf::connect(&Maps, &mut Skb::new(skb, way, hook), notes) { SEND } else { PASS as u32 }
}

/// [`answer::answer`] as a function of its own. `most` is the MTU; 0 where no hops are left.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn answer_packet(skb: *mut __sk_buff, hook: u32, most: u32) -> u32 {
    let Some(Scratch { notes, way }) = maps::scratch(hook) else { return 0 };
    let error = if most == 0 { Answer::HopsExceeded } else { Answer::TooBig(most) };
    u32::from(answer::answer(&mut Skb::new(skb, way, hook), notes.network(), error).is_some())
}

#[inline(always)]
fn finish(skb: &mut Skb<'_>, fate: Fate) -> i32 {
    match fate {
        Fate::Pass | Fate::Host => PASS,
        Fate::Out => skb.leave(),
        Fate::Back => skb.turn_back(),
        Fate::Drop => TC_ACT_SHOT as i32,
    }
}

/// A packet comes from a network, before the kernel has made anything of it.
#[inline(always)]
pub(crate) fn accelerate(context: &XdpContext) -> u32 {
    let Some(Scratch { notes, way }) = maps::scratch(ACCELERATES) else { return XDP_PASS };
    let mut frame = Frame::new(context, way);
    match proxymatic_ebpf::accelerate(&Maps, &mut frame, notes) {
        Fate::Out => frame.leave(),
        Fate::Drop => XDP_DROP,
        Fate::Pass | Fate::Host | Fate::Back => XDP_PASS,
    }
}
