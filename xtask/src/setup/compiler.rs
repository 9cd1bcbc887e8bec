//! The Rust compiler for BPF: which one is suitable, judged by its version output, and how cargo uses it.

use std::{fmt, path::Path, process::Command};

use crate::{command, workspace};

use super::linker_version::{LLVM, VERSION};

/// The distribution's compiler: by path, because rustup's comes first in PATH.
pub(super) const DISTRIBUTION: &str = "/usr/bin/rustc";

/// Variables that are set for the host's build or left by `cargo run`, and wrong for BPF. LD_LIBRARY_PATH is among them
/// because a bpf-linker built for nightly opens the first libLLVM found there.
const HOST_ONLY: [&str; 11] = [
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WORKSPACE_WRAPPER",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

/// A compiler as it describes itself in `rustc -vV`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rustc {
    /// For example `1.97.0-nightly`.
    pub(super) release: String,
    /// Major version of the LLVM it emits bitcode for.
    pub(super) llvm: u32,
}

/// A compiler that can build for BPF.
#[derive(Debug, PartialEq)]
pub(crate) enum Compiler {
    /// rustup's nightly: `-Z build-std` compiles `core` from rust-src.
    Nightly(Rustc),
    /// The distribution's: `core` for BPF comes compiled.
    Distribution(Rustc),
}

impl Rustc {
    fn parse(verbose: &str) -> Option<Self> {
        let field = |name: &str| verbose.lines().find_map(|line| line.strip_prefix(name));
        Some(Self {
            release: field("release: ")?.to_owned(),
            llvm: field("LLVM version: ")?.split('.').next()?.parse().ok()?,
        })
    }

    fn is_at_least(&self, floor: &str) -> bool {
        minor(&self.release).is_some_and(|have| Some(have) >= minor(floor))
    }
}

impl Compiler {
    pub(super) fn rustc(&self) -> &Rustc {
        match self {
            Self::Nightly(rustc) | Self::Distribution(rustc) => rustc,
        }
    }

    /// Returns `cargo build` for BPF with this compiler and this linker.
    pub(super) fn cargo_build(&self, linker: &Path) -> Command {
        let mut build = match self {
            Self::Nightly(_) => {
                let mut build = rustup_nightly("cargo");
                build.args(["build", "-Z", "build-std=core"]);
                build
            }
            Self::Distribution(_) => {
                let mut build = workspace::cargo();
                build.arg("build");
                build
            }
        };
        for name in HOST_ONLY {
            build.env_remove(name);
        }
        let linker = format!("-Clinker={}", linker.display());
        let flags = ["-Cdebuginfo=2", "-Clink-arg=--btf", &linker];
        build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
        if let Self::Distribution(_) = self {
            // aya-ebpf needs the unstable feature `asm_experimental_arch`.
            build.env("RUSTC", DISTRIBUTION).env("RUSTC_BOOTSTRAP", "1");
        }
        build
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nightly(rustc) => write!(f, "rustc {} (rustup's nightly)", rustc.release),
            Self::Distribution(rustc) => write!(f, "rustc {} ({DISTRIBUTION})", rustc.release),
        }
    }
}

/// Returns the compiler for BPF, or the reason why there is none.
pub(super) fn find() -> Result<Compiler, String> {
    nightly().map(Compiler::Nightly).or_else(|no_nightly| {
        distribution().map(Compiler::Distribution).map_err(|no_distribution| no_compiler(&no_nightly, &no_distribution))
    })
}

fn no_compiler(no_nightly: &str, no_distribution: &str) -> String {
    format!(
        "no compiler for BPF: {no_distribution}, and {no_nightly} \
         (`rustup toolchain install nightly --component rust-src` would do too)"
    )
}

/// Returns rustup's nightly, or the reason why it is not suitable.
fn nightly() -> Result<Rustc, String> {
    let sysroot = command::ask(rustup_nightly("rustc").args(["--print", "sysroot"]));
    let has_core = sysroot.is_some_and(|it| Path::new(it.trim()).join("lib/rustlib/src/rust/library/core").is_dir());
    let verbose = command::ask(rustup_nightly("rustc").arg("-vV"));
    judge("rustup's nightly", verbose.as_deref(), has_core, "rust-src")
}

/// Returns the distribution's compiler, or the reason why it is not suitable.
fn distribution() -> Result<Rustc, String> {
    let has_core = Path::new("/usr/lib/rustlib/bpfel-unknown-none/lib").is_dir();
    let verbose = command::ask(Command::new(DISTRIBUTION).arg("-vV"));
    judge(DISTRIBUTION, verbose.as_deref(), has_core, "a compiled `core` for bpfel-unknown-none")
}

/// `rustup run` and not `+nightly`: it never installs a toolchain on its own.
fn rustup_nightly(program: &str) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", program]);
    command
}

fn judge(who: &str, verbose: Option<&str>, has_core: bool, core: &str) -> Result<Rustc, String> {
    let floor = env!("CARGO_PKG_RUST_VERSION");
    let rustc = verbose.and_then(Rustc::parse).ok_or_else(|| format!("{who} is not installed"))?;
    if !rustc.is_at_least(floor) {
        let have = &rustc.release;
        return Err(format!("{who} is {have}, older than the {floor} needed"));
    }
    if !has_core {
        return Err(format!("{who} lacks {core}"));
    }
    if !LLVM.contains(&rustc.llvm) {
        let (have, from, to) = (rustc.llvm, LLVM.start(), LLVM.end());
        return Err(format!("{who} has LLVM {have}, and bpf-linker {VERSION} knows {from} to {to}"));
    }
    Ok(rustc)
}

/// `1.96.0-nightly` is (1, 96).
fn minor(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split('.');
    let mut number = || parts.next()?.parse().ok();
    Some((number()?, number()?))
}

#[cfg(test)]
mod tests;
