//! `cargo xtask setup`: finds or installs what compiles the eBPF objects and what the demo and the tests run.
//!
//! Two compilers will do: rustup's nightly with rust-src, or the distribution's rustc with a compiled `core` for BPF.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Error, Result};

mod cargo_deb;
mod compiler;
mod linker;
mod packages;

use compiler::Compiler;
use packages::Part;

/// A compiler and a linker for BPF that share one LLVM.
pub(crate) struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

impl Toolchain {
    /// The start of a `cargo build` for BPF: what is built, for which target, is the caller's.
    pub(crate) fn cargo_build(&self) -> Command {
        self.compiler.cargo_build(&self.linker)
    }

    /// What takes debug information out of an object, where it came with the compiler's LLVM.
    pub(crate) fn strip(&self) -> Option<PathBuf> {
        let strip = PathBuf::from(format!("/usr/lib/llvm-{}/bin/llvm-strip", self.compiler.rustc().llvm));
        strip.is_file().then_some(strip)
    }
}

pub(crate) fn run() -> Result<()> {
    tools()?;
    let Toolchain { compiler, linker } = toolchain()?;
    println!(
        "ready: {compiler}, LLVM {}, bpf-linker {} ({})",
        compiler.rustc().llvm,
        linker::VERSION,
        linker.display(),
    );
    Ok(())
}

/// What building the workspace takes, besides Rust and the C compiler that links it.
pub(crate) fn build() -> Result<()> {
    packages::provide(Part::Build, None)
}

/// The programs that the demo and the tests run, and what they are built with.
pub(crate) fn tools() -> Result<()> {
    build()?;
    packages::provide(Part::Tools, None)
}

/// What the tests of the registrator source run.
pub(crate) fn etcd() -> Result<()> {
    packages::provide(Part::Etcd, None)
}

/// What the netns tier runs through service ports.
pub(crate) fn programs() -> Result<()> {
    packages::provide(Part::Programs, None)
}

/// What looks at the status endpoint in the tests.
pub(crate) fn surface() -> Result<()> {
    packages::provide(Part::Surface, None)
}

/// What benchmarks make load with.
pub(crate) fn load() -> Result<()> {
    packages::provide(Part::Load, None)
}

/// What benchmarks compare this project with.
pub(crate) fn peers() -> Result<()> {
    packages::provide(Part::Peers, None)
}

/// What the tests with containers run.
pub(crate) fn docker() -> Result<()> {
    packages::provide(Part::Docker, None)
}

/// What images are made with and of, besides what is built.
pub(crate) fn image() -> Result<()> {
    build()?;
    packages::provide(Part::Image, None)
}

/// What `cargo xtask dist` is tested with.
pub(crate) fn dist() -> Result<()> {
    packages::provide(Part::Dist, None)
}

/// cargo-deb, which makes the Debian package.
pub(crate) fn cargo_deb() -> Result<PathBuf> {
    cargo_deb::provide()
}

/// What forwarding for other machines is measured against.
pub(crate) fn remote_peers() -> Result<()> {
    packages::provide(Part::RemotePeers, None)
}

/// The compiler and the linker, installed where need be.
pub(crate) fn toolchain() -> Result<Toolchain> {
    let compiler = find_or_install_compiler()?;
    let linker = linker::provide(&compiler)?;
    Ok(Toolchain { compiler, linker })
}

fn find_or_install_compiler() -> Result<Compiler> {
    compiler::find().or_else(|why| {
        packages::install(Part::Compiler, None).context(why)?;
        compiler::find().map_err(Error::msg)
    })
}
