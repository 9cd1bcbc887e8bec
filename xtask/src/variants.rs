//! The builds of the agent that only tests run: what it is upgraded to, and downgraded from.

use std::fs;

use anyhow::{Context as _, Result};

use crate::{
    build_ebpf, command,
    workspace::{self, cargo},
};

/// One of them: features of `proxymatic-user`, and how its objects are built.
struct Variant {
    name: &'static str,
    features: &'static str,
    binaries: &'static [&'static str],
    object: &'static [&'static str],
}

const ALL: [Variant; 2] = [
    // Other layouts, under the next version.
    Variant {
        name: "next-abi",
        features: "proxymatic-user/next-abi",
        binaries: &["proxymatic"],
        object: &["--features", "proxymatic-common/next-abi"],
    },
    // The same layouts, other instructions. `proxymatic-mortal` comes with it, which saves a build of its own.
    Variant {
        name: "other-build",
        features: "proxymatic-user/other-build,proxymatic-user/fault-injection",
        binaries: &["proxymatic", "proxymatic-mortal"],
        object: &["--config", "profile.release.package.proxymatic-ebpf.opt-level=2"],
    },
];

/// Builds all, as `proxymatic-NAME` beside the binaries that tests start. The plain one is to be built after them: all three
/// are the same binary to cargo.
pub(crate) fn build() -> Result<()> {
    for Variant { name, features, binaries, object } in ALL {
        build_ebpf::build(name, object)?;
        let mut build = cargo();
        // All packages, so that what they depend on has the features that it has in the build of the tests.
        build.args(["build", "--workspace", "--features", features]);
        build.args(binaries.iter().flat_map(|binary| ["--bin", binary]));
        command::run(&mut build)?;
        let room = workspace::target_dir().join("debug");
        let (from, to) = (room.join("proxymatic"), room.join(format!("proxymatic-{name}")));
        // A program that runs cannot be written to.
        let _ = fs::remove_file(&to);
        fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}
