//! The program `proxymatic-soak`: a cluster on this machine, changed at random under load for a given time.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it has seen is its output")]

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Parser;
use proxymatic_tests::soak::{self, Options};

/// Changes a cluster of network namespaces at random while clients connect. Needs root, changes nothing outside of it.
///
/// Exit status: 0 no unexpected failure, 1 unexpected failures, 2 the soak could not run.
#[derive(Parser)]
struct Cli {
    /// Duration in minutes.
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Seed of the changes; random by default.
    #[arg(long)]
    seed: Option<u64>,
}

fn main() -> ExitCode {
    let Cli { minutes, seed } = Cli::parse();
    let seed =
        seed.unwrap_or_else(|| SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs());
    let Ok(time) = Duration::try_from_secs_f64(minutes * 60.0) else {
        eprintln!("proxymatic-soak: --minutes {minutes}: must be a number of minutes from 0 up");
        return ExitCode::from(2);
    };
    println!("seed {seed}");
    match soak::run(&Options { seed, time, say: |line| println!("{line}") }) {
        Ok(report) => {
            println!("{report}");
            ExitCode::from(u8::from(!report.faults.is_empty()))
        }
        Err(error) => {
            eprintln!("proxymatic-soak: {error:#}");
            ExitCode::from(2)
        }
    }
}
