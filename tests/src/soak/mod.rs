//! Random changes of a cluster under load, for as long as one likes: nothing may fail but what a replica that was killed
//! without warning takes with it (`allowed_failures` says exactly what that is).
//!
//! The seed decides which changes come in which order. What happens within one is as fast as the machine is, so the same
//! seed gives the same history, not the same packets.

mod actions;
mod allowed_failures;
mod cluster;
mod replicas;
mod report;
mod rng;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

pub use self::report::Report;
use self::{cluster::Cluster, rng::Rng};
use crate::lab::Lab;

/// How many changes there are under the same clients. Then these end, what they saw is judged, and others begin.
const ROUND: usize = 8;

/// What to do.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Decides which changes there are.
    pub seed: u64,
    /// Rounds begin until this has passed.
    pub time: Duration,
    /// Takes a line about each round as it ends.
    pub say: fn(&str),
}

/// Changes a cluster of its own at random, and reports what clients saw. Needs root.
///
/// # Errors
/// There can be no lab here.
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
    let mut rng = Rng::new(options.seed);
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
    cluster.back_to_the_beginning(report)?;
    cluster.is_as_it_was(&fill)?;
    report.end(&fill, cluster.verdicts()?);
    report.time = begun.elapsed();
    Ok(())
}
