//! `cargo xtask setup`: finds or installs the compiler of the eBPF objects and the programs for the demo and the tests.
//!
//! Either of two compilers is enough: rustup's nightly with rust-src, or the distribution's rustc with a compiled
//! `core` for BPF.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Error, Result};

mod cargo_deb;
mod compiler;
mod linker;
mod linker_version;
mod packages;

use compiler::Compiler;
use packages::Part;

/// A compiler and a linker for BPF that share one LLVM.
pub(crate) struct Toolchain {
    compiler: Compiler,
    linker: PathBuf,
}

impl Toolchain {
    /// Returns the start of a `cargo build` for BPF; the caller adds package and target.
    pub(crate) fn cargo_build(&self) -> Command {
        self.compiler.cargo_build(&self.linker)
    }

    /// The tool that strips debug information from an object, if it came with the compiler's LLVM.
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
        linker_version::VERSION,
        linker.display(),
    );
    Ok(())
}

/// Packages for building the workspace, besides Rust and the C compiler that links it.
pub(crate) fn build() -> Result<()> {
    packages::provide(Part::Build, None)
}

/// Programs that the demo and the tests run, and packages to build them.
pub(crate) fn tools() -> Result<()> {
    build()?;
    packages::provide(Part::Tools, None)
}

/// Programs of the registrator source's tests.
pub(crate) fn etcd() -> Result<()> {
    packages::provide(Part::Etcd, None)
}

/// Programs that the netns tier runs through service ports.
pub(crate) fn programs() -> Result<()> {
    packages::provide(Part::Programs, None)
}

/// Programs that the tests of the status endpoint run.
pub(crate) fn surface() -> Result<()> {
    packages::provide(Part::Surface, None)
}

/// Load generators of the benchmarks.
pub(crate) fn load() -> Result<()> {
    packages::provide(Part::Load, None)
}

/// Peers of the benchmarks.
pub(crate) fn peers() -> Result<()> {
    packages::provide(Part::Peers, None)
}

/// Programs of the tests with containers.
pub(crate) fn docker() -> Result<()> {
    packages::provide(Part::Docker, None)
}

/// Packages for building images.
pub(crate) fn image() -> Result<()> {
    build()?;
    packages::provide(Part::Image, None)
}

/// Programs that test the result of `cargo xtask dist`.
pub(crate) fn dist() -> Result<()> {
    packages::provide(Part::Dist, None)
}

/// cargo-deb, which makes the Debian package.
pub(crate) fn cargo_deb() -> Result<PathBuf> {
    cargo_deb::provide()
}

/// Peers of `bench remote`.
pub(crate) fn remote_peers() -> Result<()> {
    packages::provide(Part::RemotePeers, None)
}

/// Returns the compiler and the linker, which are installed if needed.
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
