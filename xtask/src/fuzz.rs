//! `cargo xtask fuzz TARGET`: coverage-guided fuzzing of input parsers and of plans. Needs a nightly compiler.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{command, workspace};

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Fuzz {
    /// The target: a file of fuzz/fuzz_targets without its ending.
    target: String,
    /// Duration in seconds.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
    /// Do not fuzz, but reduce the corpus to the smallest set with the same coverage.
    #[arg(long)]
    minimise: bool,
}

/// The version of cargo-fuzz that works here.
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
        let verb = if self.minimise { "cmin" } else { "run" };
        // Without sanitizer: the fuzzed code has no unsafe parts, and runs several times as fast.
        let mut fuzz = Command::new("rustup");
        fuzz.args(["run", "nightly", "cargo", "fuzz", verb, "--sanitizer", "none", &self.target]);
        if self.minimise {
            // Coverage is counted once per edge: the corpus has some hundred small files, not thousands.
            fuzz.args(["--", "-use_counters=0"]);
        } else {
            let dictionary = format!("-dict=fuzz/dictionaries/{}.dict", self.target);
            fuzz.args(["--", &format!("-max_total_time={}", self.seconds), &dictionary]);
        }
        command::run(fuzz.current_dir(workspace::root()))
    }
}
