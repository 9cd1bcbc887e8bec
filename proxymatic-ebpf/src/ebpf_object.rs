//! What every eBPF object has beside its programs.

/// Ends a binary that is an eBPF object: its licence, and what stands where a program would end by a panic.
#[macro_export]
macro_rules! object {
    () => {
        #[cfg(target_arch = "bpf")]
        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
            // Never linked: the verifier would refuse a program that can get here.
            loop {}
        }

        /// The kernel gives its helpers only to programs under a licence that goes with the GPL.
        #[cfg(target_arch = "bpf")]
        // SAFETY: the section is read by the loader, the name by nobody else.
        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

        #[cfg(not(target_arch = "bpf"))]
        fn main() {
            // Off the BPF target this binary is nothing: `cargo xtask build-ebpf` builds the object.
        }
    };
}
