//! Measurements of the data plane, as commands: `cargo xtask bench NAME`. Ratios within one run, interleaved, medians.

#![expect(clippy::print_stdout, reason = "what was measured is this program's output")]

mod dial;
mod services;

use anyhow::Result;
use clap::Parser;

/// Measurements of the data plane.
#[derive(Debug, Parser)]
enum Bench {
    /// The mean run time of the connect program with one service and with many.
    Services(services::Services),
    /// What `services` runs on a host: connects in a loop.
    #[command(hide = true)]
    Dial(dial::Dial),
}

fn main() -> Result<()> {
    match Bench::parse() {
        Bench::Services(bench) => bench.run(),
        Bench::Dial(dial) => dial.run(),
    }
}
