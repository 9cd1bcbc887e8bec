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

/// Builds all, as `proxymatic-NAME` beside the release binaries. The plain one is to be built after them: all three are
/// the same binary to cargo.
pub(crate) fn build() -> Result<()> {
    for Variant { name, features, binaries, object } in ALL {
        build_ebpf::build(name, object)?;
        let mut build = cargo();
        build.args(["build", "--release", "--features", features]);
        // The packages that are built anyway: others would be other features of what they depend on.
        build.args(["--package", "proxymatic-user", "--package", "proxymatic-tests"]);
        // Nobody measures these.
        build.args(["--config", "profile.release.package.proxymatic-user.opt-level=1"]);
        build.args(binaries.iter().flat_map(|binary| ["--bin", binary]));
        command::run(&mut build)?;
        let room = workspace::target_dir().join("release");
        let (from, to) = (room.join("proxymatic"), room.join(format!("proxymatic-{name}")));
        // A program that runs cannot be written to.
        let _ = fs::remove_file(&to);
        fs::copy(&from, &to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    }
    Ok(())
}
