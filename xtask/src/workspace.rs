//! Paths of this checkout, and common parts of tasks: cargo, release binaries, root.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use crate::command;

/// The root of the checkout.
pub(crate) fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// The folder of cargo's builds for the host.
pub(crate) fn target_dir() -> PathBuf {
    let chosen = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    root().join(chosen)
}

/// Returns the cargo that runs this task, at the root of the checkout.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    // Variables that cargo has set for this task. Build scripts such as ring's rerun if these differ: without this,
    // each change between `cargo` and `cargo xtask` would build TLS and its dependents once more.
    for (name, _) in env::vars_os() {
        if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|of| name.as_encoded_bytes().starts_with(of.as_bytes())) {
            command.env_remove(name);
        }
    }
    command
}

/// Builds the release binaries of some packages and returns their folder.
pub(crate) fn build_release(packages: &[&str]) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--release", "--bins"]);
    for package in packages {
        build.args(["--package", package]);
    }
    command::run(&mut build)?;
    Ok(target_dir().join("release"))
}

/// Builds static release programs, given as packages and names, and returns their folder. On the machine that runs them
/// they need nothing but its kernel.
pub(crate) fn build_static(programs: &[(&str, &str)]) -> Result<PathBuf> {
    // The target is named although it is this machine's own; otherwise the flags would apply to build scripts and
    // macros, which cannot be static.
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let mut build = cargo();
    build.args(["build", "--release", "--locked", "--target", &target]);
    build.args(LEAN.into_iter().flat_map(|it| ["--config", it]));
    for (package, program) in programs {
        build.args(["--package", package, "--bin", program]);
    }
    // The same bytes, independent of the user and the folder of the build.
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let homes = home.iter().map(|home| (home.as_path(), "/cargo"));
    let remap = |(from, to): (&Path, &str)| format!("--remap-path-prefix={}={to}", from.display());
    let flags: Vec<_> = ["-Ctarget-feature=+crt-static".to_owned()]
        .into_iter()
        .chain(homes.chain([(root(), "/proxymatic")]).map(remap))
        .collect();
    build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    command::run(&mut build)?;
    let room = target_dir().join(target).join("release");
    // Once more in spite of the profile: a static program was seen with symbols, a third of its size.
    let built = programs.iter().map(|(_, program)| room.join(program));
    command::run(Command::new("strip").args(built))?;
    Ok(room)
}

/// Options that keep the image below 20 MB. A panic ends the agent in any case, and prints its file and line without
/// symbols; the fast path runs in the kernel, and is compiled separately.
const LEAN: [&str; 4] = [
    r#"profile.release.strip="symbols""#,
    r#"profile.release.panic="abort""#,
    r#"profile.release.opt-level="s""#,
    r#"profile.release.package."*".opt-level="z""#,
];

/// Returns the cache folder, which `cargo clean` does not remove.
pub(crate) fn cache() -> Result<PathBuf> {
    let base = cache_base(env::var_os("XDG_CACHE_HOME"), env::var_os("HOME"));
    let base = base.context("neither XDG_CACHE_HOME nor HOME is set: set one to a folder where tools can be kept")?;
    Ok(base.join("proxymatic"))
}

fn cache_base(xdg: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let set = |value: Option<OsString>| value.filter(|it| !it.is_empty()).map(PathBuf::from);
    set(xdg).or_else(|| Some(set(home)?.join(".cache")))
}

/// Whether this process has root's rights.
pub(crate) fn is_root() -> bool {
    // The owner of /proc/self is the effective user: no libc needed for one number.
    fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0)
}

/// Fails without root, and prints the command that has it.
pub(crate) fn need_root(task: &str) -> Result<()> {
    if !is_root() {
        bail!(
            "`cargo xtask {task}` needs root for its network namespaces and BPF maps: run `sudo -E env PATH=$PATH cargo xtask {task}`"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_folder_is_below_the_users_cache() {
        let base = |xdg: &str, home: &str| cache_base(Some(xdg.into()), Some(home.into()));
        assert_eq!(base("/x", "/h"), Some("/x".into()));
        assert_eq!(base("", "/h"), Some("/h/.cache".into()));
        assert_eq!(cache_base(None, None), None);
    }
}
