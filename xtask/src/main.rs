//! Development tasks: `cargo xtask TASK`. This file lists them; each has a module.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is this crate's job")]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod build_ebpf;
mod command;
mod demo;
mod dist;
mod docs;
mod fuzz;
mod image;
mod progress;
mod report;
mod run;
mod setup;
mod soak;
mod test;
mod tidy;
mod variants;
mod vm;
mod workspace;

/// Development tasks of proxymatic.
///
/// Exit codes: 0 done, 1 a check or a build failed, 2 not possible here (something is missing).
#[derive(Parser)]
#[command(bin_name = "cargo xtask", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Find or install the eBPF toolchain and the tools that the demo and the tests run.
    Setup,
    /// Compile the eBPF objects to target/bpf/*.o.
    BuildEbpf,
    /// Build everything and become `proxymatic run ARGS`.
    Run(run::Run),
    /// Build everything and become the demo (needs root).
    Demo(demo::Demo),
    /// Build everything and become the soak: random changes of a cluster under load (needs root).
    Soak(soak::Soak),
    /// Run the test tiers, all or those named, fast ones first.
    Test(test::Test),
    /// Run a benchmark: `bench services`, for example (needs root).
    Bench(bench::Bench),
    /// Make man pages and shell completions in target/docs.
    Docs,
    /// Build the container images from static binaries (needs Docker).
    Image(image::Image),
    /// Make the artifacts for distribution in target/dist: a static binary in an archive, and a Debian package.
    Dist,
    /// Fuzz input parsers and plans: `fuzz reading`, `fuzz plan` (needs a nightly compiler).
    Fuzz(fuzz::Fuzz),
    /// Check the rules of layout that a machine can check.
    Tidy {
        /// Rewrites what is generated: the "knows" column of ARCHITECTURE.md.
        #[arg(long)]
        fix: bool,
    },
    /// Run every test tier, as .ci/run does.
    Ci,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(if error.is::<command::Failed>() { 1 } else { 2 })
        }
    }
}

fn run(task: Task) -> Result<()> {
    match task {
        Task::Setup => setup::run(),
        Task::BuildEbpf => build_ebpf::run(),
        Task::Run(it) => it.run(),
        Task::Demo(it) => it.run(),
        Task::Soak(it) => it.run(),
        Task::Test(it) => it.run(),
        Task::Bench(it) => it.run(),
        Task::Docs => docs::run(),
        Task::Image(it) => it.run(),
        Task::Dist => dist::run(),
        Task::Fuzz(it) => it.run(),
        Task::Tidy { fix } => tidy::run(fix),
        Task::Ci => test::Test::default().run(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_line_is_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }
}
