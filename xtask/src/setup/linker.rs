//! bpf-linker, built for the compiler's LLVM and kept in the user's cache, where `cargo clean` does not reach.
//!
//! One on PATH is never used: with another LLVM it fails on the compiler's bitcode, or miscompiles it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, anyhow};

use crate::{command, workspace};

use super::{
    compiler::Compiler,
    linker_version::VERSION,
    packages::{self, Part},
};

/// Returns the linker for this compiler, which is built if it is missing or does not start.
pub(super) fn provide(compiler: &Compiler) -> Result<PathBuf> {
    let home = workspace::cache()?.join(format!("bpf-linker-{VERSION}-{}", feature(compiler)));
    let linker = home.join("bin/bpf-linker");
    if !starts(&linker) {
        build(compiler, &home, &linker)
            .with_context(|| format!("cannot build bpf-linker {VERSION} in {}", home.display()))?;
    }
    Ok(linker)
}

/// Builds in a folder beside the final place and moves the finished program: an interrupted build leaves no linker.
fn build(compiler: &Compiler, home: &Path, linker: &Path) -> Result<()> {
    if let Compiler::Distribution(rustc) = compiler {
        packages::provide(Part::Linker, Some(rustc.llvm))?;
    }
    fs::create_dir_all(home.join("bin"))?;
    let lock = File::create(home.join("lock"))?;
    lock.lock()?;
    if starts(linker) {
        // Another task has built it in the meantime.
        return Ok(());
    }
    let scratch = home.join("building");
    remove(&scratch)?;
    println!("building bpf-linker {VERSION}, once, a minute or two");
    command::run(&mut install(compiler, &scratch)).map_err(|error| anyhow!("{error}"))?;
    fs::rename(scratch.join("bin/bpf-linker"), linker)?;
    remove(&scratch)
}

fn install(compiler: &Compiler, scratch: &Path) -> Command {
    let mut install = workspace::cargo();
    install
        // Quiet, because cargo would advise to add the scratch folder to PATH.
        .args(["install", "--quiet", "bpf-linker", "--version", VERSION, "--locked"])
        .args(["--no-default-features", "--features", &feature(compiler)])
        .arg("--root")
        .arg(scratch)
        .arg("--target-dir")
        .arg(scratch.join("target"));
    if let Compiler::Distribution(rustc) = compiler {
        install.env("LLVM_PREFIX", format!("/usr/lib/llvm-{}", rustc.llvm));
    }
    for name in ["CARGO_BUILD_TARGET", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        install.env_remove(name);
    }
    install
}

/// `rust-llvm-NN` opens the LLVM of nightly; `llvm-NN` is linked with the distribution's.
fn feature(compiler: &Compiler) -> String {
    match compiler {
        Compiler::Nightly(rustc) => format!("rust-llvm-{}", rustc.llvm),
        Compiler::Distribution(rustc) => format!("llvm-{}", rustc.llvm),
    }
}

/// False also if the program exists but its libLLVM does not.
fn starts(linker: &Path) -> bool {
    command::ask(Command::new(linker).arg("--version")).is_some()
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setup::compiler::Rustc;

    fn rustc(llvm: u32) -> Rustc {
        Rustc { release: "1.97.0".into(), llvm }
    }

    #[test]
    fn nightly_linker_loads_the_llvm_of_nightly() {
        let install = install(&Compiler::Nightly(rustc(21)), Path::new("/c"));
        assert!(command::show(&install).contains("--features rust-llvm-21 "));
        assert!(install.get_envs().all(|(name, _)| name != "LLVM_PREFIX"));
    }

    #[test]
    fn distribution_linker_uses_the_distribution_llvm() {
        let install = install(&Compiler::Distribution(rustc(22)), Path::new("/c"));
        assert!(command::show(&install).contains("--features llvm-22 "));
        let prefix = install.get_envs().find(|(name, _)| *name == "LLVM_PREFIX");
        assert_eq!(prefix.and_then(|it| it.1), Some("/usr/lib/llvm-22".as_ref()));
    }
}
