//! The program `proxymatic-demo`: a Marathon cluster of three hosts on this machine, taken through the main features.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the demo is what it prints")]

mod acts;
mod cluster;
mod keep;
mod stage;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use proxymatic_tests::cleanup;
use proxymatic_tests::lab::Lab;

use crate::cluster::Cluster;
use crate::stage::Stage;

/// Shows what proxymatic does, on a cluster made of network namespaces. Needs root, changes nothing outside them.
///
/// Exit status: 0 all checks passed, 1 a check failed, 2 the demo could not run.
#[derive(Parser)]
struct Cli {
    /// Leave everything running at the end and print what to try, until Ctrl-C.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let begun = Instant::now();
    let mut stage = Stage::new();
    let lab = match Lab::start(3) {
        Ok(lab) => lab,
        Err(error) => {
            eprintln!("proxymatic-demo: {error:#}");
            return ExitCode::from(2);
        }
    };
    let mut cluster = Cluster::new(&lab);
    match perform(&mut cluster, &mut stage, cli.keep) {
        Ok(()) => {
            let seconds = begun.elapsed().as_secs_f64();
            println!("\ndemo: all {} checks passed in {seconds:.1} s", stage.checks());
            if cli.keep {
                keep::print(&cluster);
                cleanup::hold_until_signal();
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            stage.failed(&error, &cluster.agent_log());
            ExitCode::from(1)
        }
    }
}

fn perform(cluster: &mut Cluster<'_>, stage: &mut Stage, keep: bool) -> Result<()> {
    acts::the_cluster(cluster, stage)?;
    acts::fifty_connections(cluster, stage)?;
    acts::a_replica_is_killed_under_load(cluster, stage)?;
    acts::five_replicas(cluster, stage)?;
    acts::the_agent_crashes_under_load(cluster, stage)?;
    acts::what_an_operator_sees(cluster, stage)?;
    if keep { Ok(()) } else { acts::nothing_is_left(cluster, stage) }
}
