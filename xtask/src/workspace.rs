//! Where things are in this checkout, and what every task asks of it: cargo, release binaries, root.

use std::{
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use crate::command;

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where cargo puts what it builds for the host.
pub(crate) fn target_dir() -> PathBuf {
    let chosen = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root().join(chosen)
}

/// The cargo that runs this task, at the root of the checkout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
}

/// Builds the release binaries of some packages and says where they are.
pub(crate) fn build_release(packages: &[&str]) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--bins"]);
    for package in packages {
        build.args(["--package", package]);
    }
    command::run(&mut build)?;
    Ok(target_dir().join("release"))
}

/// Builds, beside the release binaries, the agent that tests can tell to die before a write. The packages are those of the
/// root tiers, so that what they depend on has the same features and is built once.
pub(crate) fn build_mortal() -> Result<()> {
    let mut build = cargo();
    build.args(["build", "--release", "--bin", "proxymatic-mortal", "--features", "proxymatic-user/fault-injection"]);
    build.args(["--package", "proxymatic-user", "--package", "proxymatic-tests"]);
    command::run(&mut build)
}

/// Whether this process has root's rights.
pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user: no libc needed for one number.
    fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

/// Refuses to go on without root and says how to get it.
pub(crate) fn need_root(task: &str) -> Result<()> {
    if !is_root() {
        bail!(
            "`cargo xtask {task}` needs root for its network namespaces and BPF maps: run `sudo -E env PATH=$PATH cargo xtask {task}`"
        );
    }
    Ok(())
}
