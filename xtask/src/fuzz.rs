//! `cargo xtask fuzz TARGET`: coverage-guided fuzzing of what reads the outside world. Needs a nightly compiler.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{command, workspace};

/// Arguments of the task.
#[derive(clap::Args)]
pub(crate) struct Fuzz {
    /// What to fuzz: a file of fuzz/fuzz_targets without its ending.
    target: String,
    /// For how long.
    #[arg(long, default_value_t = 300)]
    seconds: u32,
    /// Do not fuzz, but keep of the corpus only the least that reaches as much.
    #[arg(long)]
    minimise: bool,
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
        let verb = if self.minimise { "cmin" } else { "run" };
        // Without sanitizer: nothing that is fuzzed is unsafe, and it runs several times as fast.
        let mut fuzz = Command::new("rustup");
        fuzz.args(["run", "nightly", "cargo", "fuzz", verb, "--sanitizer", "none", &self.target]);
        if self.minimise {
            // What is reached counts, not how often: some hundred small files are kept, not thousands.
            fuzz.args(["--", "-use_counters=0"]);
        } else {
            let dictionary = format!("-dict=fuzz/dictionaries/{}.dict", self.target);
            fuzz.args(["--", &format!("-max_total_time={}", self.seconds), &dictionary]);
        }
        command::run(fuzz.current_dir(workspace::root()))
    }
}
