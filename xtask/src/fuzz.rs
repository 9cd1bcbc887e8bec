//! `cargo xtask fuzz TARGET`: coverage-guided fuzzing of what reads the outside world. Needs a nightly compiler.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command;

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Fuzz {
    /// What to fuzz: a file of fuzz/fuzz_targets without its ending.
    target: String,
    /// For how long.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
}

/// The version that is known to work here.
const CARGO_FUZZ: &str = "0.13.2";

impl Fuzz {
    pub(crate) fn run(&self) -> Result<()> {
        if command::ask(Command::new("rustup").args(["run", "nightly", "rustc", "--version"])).is_none() {
            bail!("fuzzing needs a nightly compiler and there is none; run: rustup toolchain install nightly");
        }
        if command::ask(Command::new("cargo-fuzz").arg("--version")).is_none() {
            eprintln!("installing cargo-fuzz {CARGO_FUZZ}");
            command::run(Command::new("cargo").args(["install", "--locked", "cargo-fuzz", "--version", CARGO_FUZZ]))?;
        }
        let most = format!("-max_total_time={}", self.seconds);
        // Without sanitizer: nothing that is fuzzed is unsafe, and it runs several times as fast.
        let arguments = ["run", "nightly", "cargo", "fuzz", "run", "--sanitizer", "none", &self.target, "--", &most];
        command::run(Command::new("rustup").args(arguments))
    }
}
