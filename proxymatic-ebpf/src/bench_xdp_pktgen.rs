//! A program for `cargo xtask bench remote`: makes frames, which no socket has sent, and sends them by an interface.
//!
//! The kernel runs it on frames of its own, many times for one call (BPF_F_TEST_XDP_LIVE_FRAMES).
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod programs {
    use core::ptr;

    use aya_ebpf::{
        bindings::xdp_action::{XDP_ABORTED, XDP_TX},
        macros::{map, xdp},
        maps::{Array, PerCpuArray},
        programs::XdpContext,
    };

    /// What is sent: the smallest frame there is, once for each flow.
    #[map]
    static FRAMES: Array<Frame> = Array::with_max_entries(FLOWS, 0);
    /// How many were sent.
    #[map]
    static SENT: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

    type Frame = [u32; 15];
    const FLOWS: u32 = 16;

    #[xdp]
    fn xdp_pktgen(context: XdpContext) -> u32 {
        let Some(sent) = SENT.get_ptr_mut(0) else { return XDP_ABORTED };
        // SAFETY: a live element that only this processor writes.
        let nth = unsafe { *sent };
        // SAFETY: the same.
        unsafe { *sent = nth.wrapping_add(1) };
        let Some(frame) = FRAMES.get(nth % FLOWS) else { return XDP_ABORTED };
        let start = context.data();
        if start + size_of::<Frame>() > context.data_end() {
            return XDP_ABORTED;
        }
        // All of it: the kernel uses a frame again, as whoever it was sent to has left it.
        // SAFETY: compared with the end just now; the kernel lets these frames begin at a multiple of four.
        unsafe { ptr::with_exposed_provenance_mut::<Frame>(start).write(*frame) };
        // By the interface that the run names as the one where frames came in.
        XDP_TX
    }
}

proxymatic_ebpf::object!();
