//! cargo-deb, kept in the user's cache as bpf-linker is: a fixed version, whatever is on PATH.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow};

use crate::{command, workspace};

const VERSION: &str = "3.8.0";

/// Returns the program, which is built if it is missing.
pub(super) fn provide() -> Result<PathBuf> {
    let home = workspace::cache()?.join(format!("cargo-deb-{VERSION}"));
    let program = home.join("bin/cargo-deb");
    if command::ask(Command::new(&program).arg("--version")).is_none() {
        build(&home).with_context(|| format!("cannot build cargo-deb {VERSION} in {}", home.display()))?;
    }
    Ok(program)
}

/// In a folder beside the final place: an interrupted build leaves no program.
fn build(home: &Path) -> Result<()> {
    println!("building cargo-deb {VERSION}, once, a minute or two");
    let scratch = home.with_extension("building");
    command::run(&mut install(&scratch)).map_err(|error| anyhow!("{error}"))?;
    let _ = fs::remove_dir_all(scratch.join("target"));
    let _ = fs::remove_dir_all(home);
    fs::rename(&scratch, home).context("cannot move it to its place")
}

fn install(scratch: &Path) -> Command {
    let mut install = workspace::cargo();
    install
        .args(["install", "--quiet", "cargo-deb", "--version", VERSION, "--locked"])
        .arg("--root")
        .arg(scratch)
        .arg("--target-dir")
        .arg(scratch.join("target"));
    for name in ["CARGO_BUILD_TARGET", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        install.env_remove(name);
    }
    install
}
