//! Embeds the eBPF object that `cargo xtask build-ebpf` left. Without one it warns and still builds: the tests that
//! need no kernel must not need an eBPF toolchain, and `proxymatic run` says what to do. No cargo inside cargo.

use std::{env, fs, path::Path};

fn main() {
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let root = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    // Of the builds that only tests run, each has objects of its own: see Cargo.toml.
    let folders = [("CARGO_FEATURE_NEXT_ABI", "next-abi"), ("CARGO_FEATURE_OTHER_BUILD", "other-build")];
    let folder = folders.into_iter().find(|(feature, _)| env::var_os(feature).is_some()).map_or("", |(_, name)| name);
    let built = Path::new(&root).join("../target/bpf").join(folder);
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
