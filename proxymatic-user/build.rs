//! Embeds the eBPF object that `cargo xtask build-ebpf` left. Without one it warns and still builds: the tests that
//! need no kernel must not need an eBPF toolchain, and `proxymatic run` says what to do. No cargo inside cargo.

use std::{env, fs, path::Path};

fn main() {
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let root = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let built = Path::new(&root).join("../target/bpf");
    for name in ["proxymatic-hooks.o", "proxymatic-probes.o", "proxymatic-stores.o"] {
        let from = built.join(name);
        println!("cargo::rerun-if-changed={}", from.display());
        let bytes = fs::read(&from).unwrap_or_default();
        if bytes.is_empty() {
            println!("cargo::warning=no {name}: this build cannot attach anything (cargo xtask build-ebpf makes it)");
        }
        fs::write(Path::new(&out).join(name), bytes).expect("OUT_DIR can be written");
    }
}
