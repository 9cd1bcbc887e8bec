//! Random changes of a cluster under load: only failures that a replica's crash causes are allowed (see
//! `allowed_failures`).
//!
//! The seed determines the changes and their order. Their timing depends on the machine, so the same seed gives the
//! same history, but not the same packets.

mod actions;
mod allowed_failures;
mod cluster;
mod replicas;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use self::cluster::Cluster;
pub use self::report::Report;
use crate::lab::Lab;

/// The number of changes with the same clients. Then these clients end, their failures are judged, and new ones start.
const ROUND: usize = 8;

/// Options of a soak.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Determines the changes.
    pub seed: u64,
    /// New rounds begin until this time has passed.
    pub time: Duration,
    /// Called with a line about each round when it ends.
    pub say: fn(&str),
}

/// Changes a cluster of its own at random, and reports the clients' failures. Needs root.
///
/// # Errors
/// No lab can be made here.
pub fn run(options: &Options) -> Result<Report> {
    let lab = Lab::start(3)?;
    let mut report = Report::new(options.seed);
    if let Err(error) = changes(&lab, options, &mut report) {
        report.faults.push(format!("{error:#}"));
    }
    Ok(report)
}

fn changes(lab: &Lab, options: &Options, report: &mut Report) -> Result<()> {
    let mut cluster = Cluster::start(lab)?;
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let (begun, fill) = (Instant::now(), cluster.fill()?);
    report.memory(cluster.memory()?);
    while begun.elapsed() < options.time && report.faults.is_empty() {
        let clients = cluster.clients()?;
        for _ in 0..ROUND {
            let act = actions::draw(&mut rng, &cluster);
            report.begin(act.name());
            act.perform(&mut cluster, &mut rng, &clients, report).with_context(|| act.name())?;
            report.memory(cluster.memory()?);
        }
        clients.finish(&cluster.take_ended(), report)?;
        report.time = begun.elapsed();
        (options.say)(&report.line());
    }
    report.note("back to the beginning");
    actions::restore_replicas(&mut cluster, report)?;
    cluster.is_as_it_was(&fill)?;
    report.end(&fill, cluster.verdicts()?);
    report.time = begun.elapsed();
    Ok(())
}
