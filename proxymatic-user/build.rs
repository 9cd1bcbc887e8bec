//! Embeds the eBPF objects that `cargo xtask build-ebpf` built. If an object is missing, the build warns and continues,
//! because tests without a kernel must not need an eBPF toolchain. `proxymatic run` then names the remedy. This script
//! never calls cargo.

use std::{env, fs, path::Path};

fn main() {
    let out = env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let root = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    // Builds for tests only have objects of their own: see Cargo.toml.
    let folders = [("CARGO_FEATURE_NEXT_ABI", "next-abi"), ("CARGO_FEATURE_OTHER_BUILD", "other-build")];
    let folder = folders.into_iter().find(|(feature, _)| env::var_os(feature).is_some()).map_or("", |(_, name)| name);
    let built = Path::new(&root).join("../target/bpf").join(folder);
    for name in ["proxymatic-hooks.o", "proxymatic-feature-probes.o", "proxymatic-feature-probes-maps.o"] {
        if embed(&built.join(name), &Path::new(&out).join(name)) == 0 {
            println!("cargo::warning=no {name}: this build cannot attach anything (cargo xtask build-ebpf makes it)");
        }
    }
    // The hooks that log (`--bpf-log`). Builds for tests only have none, and report that if logging is requested.
    embed(&built.join("log/proxymatic-hooks.o"), &Path::new(&out).join("proxymatic-hooks-log.o"));
}

/// Copies an object and returns its size in bytes: 0 if it does not exist.
fn embed(from: &Path, to: &Path) -> usize {
    println!("cargo::rerun-if-changed={}", from.display());
    let bytes = fs::read(from).unwrap_or_default();
    fs::write(to, &bytes).expect("OUT_DIR can be written");
    bytes.len()
}
