//! The hooks on the packets of an interface.

use aya_ebpf::{
    bindings::{TC_ACT_OK, xdp_action::XDP_PASS},
    programs::{TcContext, XdpContext},
};

/// A packet comes from a network.
#[inline(always)]
pub(crate) fn arrive(_: &TcContext) -> i32 {
    TC_ACT_OK as i32
}

/// A packet leaves for a network.
#[inline(always)]
pub(crate) fn depart(_: &TcContext) -> i32 {
    TC_ACT_OK as i32
}

/// A packet comes from a network, before the kernel has made anything of it.
#[inline(always)]
pub(crate) fn accelerate(_: &XdpContext) -> u32 {
    XDP_PASS
}
