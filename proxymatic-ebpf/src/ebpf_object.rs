//! The panic handler and the licence that every eBPF object needs.

/// Defines the licence and the panic handler of an eBPF object, and an empty `main` on other targets.
#[macro_export]
macro_rules! object {
    () => {
        #[cfg(target_arch = "bpf")]
        #[panic_handler]
        fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
            // Never linked: the verifier would reject a program that can panic.
            loop {}
        }

        /// The kernel allows its helpers only for programs with a GPL-compatible licence.
        #[cfg(target_arch = "bpf")]
        // SAFETY: only the loader reads the section, and nothing else has the name.
        #[unsafe(link_section = "license")]
        #[unsafe(no_mangle)]
        static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

        #[cfg(not(target_arch = "bpf"))]
        fn main() {
            // Only the BPF target has a program here: `cargo xtask build-ebpf` builds the object.
        }
    };
}
