//! The packet generator of `cargo xtask bench remote`: writes frames and sends them by an interface, without a socket.
//!
//! One system call makes the kernel run the program many times, on frames of its own (BPF_F_TEST_XDP_LIVE_FRAMES).
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

    /// The smallest possible frame of each flow.
    #[map]
    static FRAMES: Array<Frame> = Array::with_max_entries(FLOWS, 0);
    /// The number of frames that were sent.
    #[map]
    static SENT: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

    type Frame = [u32; 15];
    const FLOWS: u32 = 16;

    #[xdp]
    fn xdp_pktgen(context: XdpContext) -> u32 {
        let Some(sent) = SENT.get_ptr_mut(0) else { return XDP_ABORTED };
        // SAFETY: a live element that only this CPU writes.
        let nth = unsafe { *sent };
        // SAFETY: the same.
        unsafe { *sent = nth.wrapping_add(1) };
        let Some(frame) = FRAMES.get(nth % FLOWS) else { return XDP_ABORTED };
        let start = context.data();
        if start + size_of::<Frame>() > context.data_end() {
            return XDP_ABORTED;
        }
        // The whole frame: the kernel reuses frames as their receiver left them.
        // SAFETY: compared with the end above; the kernel aligns these frames to four bytes.
        unsafe { ptr::with_exposed_provenance_mut::<Frame>(start).write(*frame) };
        // By the interface that the test run names as the ingress interface.
        XDP_TX
    }
}

proxymatic_ebpf::object!();
