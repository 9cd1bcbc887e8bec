//! The builds of the agent that only tests run: the targets of upgrades, and the origins of downgrades.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf, command,
    workspace::{self, cargo},
};

/// One variant: features of `proxymatic-user`, and the build of its objects.
struct Variant {
    name: &'static str,
    features: &'static str,
    binaries: &'static [&'static str],
    object: &'static [&'static str],
}

const ALL: [Variant; 2] = [
    // Other map layouts, with the next ABI version.
    Variant {
        name: "next-abi",
        features: "proxymatic-user/next-abi",
        binaries: &["proxymatic"],
        object: &["--features", "proxymatic-common/next-abi"],
    },
    // The same map layouts, other instructions. `proxymatic-mortal` is in the same build.
    Variant {
        name: "other-build",
        features: "proxymatic-user/other-build,proxymatic-user/fault-injection",
        binaries: &["proxymatic", "proxymatic-mortal"],
        object: &["--config", "profile.release.package.proxymatic-ebpf.opt-level=2"],
    },
];

/// Builds all variants, as `proxymatic-NAME` beside the binaries that tests start. The plain agent must be built after
/// them: all three are the same binary to cargo.
pub(crate) fn build() -> Result<()> {
    for Variant { name, features, binaries, object } in ALL {
        build_ebpf::build(name, object)?;
        let mut build = cargo();
        // All packages, so that dependencies have the same features as in the build of the tests.
        build.args(["build", "--workspace", "--features", features]);
        build.args(binaries.iter().flat_map(|binary| ["--bin", binary]));
        command::run(&mut build)?;
        let room = workspace::target_dir().join("debug");
        let (from, to) = (room.join("proxymatic"), room.join(format!("proxymatic-{name}")));
        // A running program cannot be overwritten.
        let _ = fs::remove_file(&to);
        fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}
