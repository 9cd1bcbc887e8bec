//! The load that a fleet of agents puts on one Marathon: measured with one agent, computed for many.

mod observed;
mod operations;
mod report;

use std::time::{Duration, Instant};

use anyhow::Result;

pub(crate) use self::report::Report;
use crate::{machine::Machine, output::Output, programs::program};

/// Requests, bytes and events that Marathon's leader sees of 10 to 10,000 agents, at rest and while tasks are replaced.
#[derive(Debug, clap::Parser)]
pub(crate) struct Fleet {
    /// Number of apps.
    #[arg(long, default_value_t = 1_000)]
    apps: u16,
    /// Number of tasks of each.
    #[arg(long, default_value_t = 5)]
    tasks: u16,
    /// Number of tasks of one app that are replaced during the measurement.
    #[arg(long, default_value_t = 20)]
    replaced: u16,
    /// Milliseconds between two replacements.
    #[arg(long, default_value_t = 1_000)]
    pause: u64,
    /// Measure only what operators do: an agent of any version, by PROXYMATIC_BIN_DIR.
    #[arg(long)]
    operations: bool,
    #[command(flatten)]
    output: Output,
}

impl Fleet {
    /// The options of `all`.
    pub(crate) fn new() -> Self {
        Self { apps: 1_000, tasks: 5, replaced: 20, pause: 1_000, operations: false, output: Output::default() }
    }

    pub(crate) fn run(&self) -> Result<()> {
        if self.operations {
            print!("{}", report::operations(&operations::measure()?));
            return Ok(());
        }
        self.output.put(&self.measure()?)
    }

    pub(crate) fn measure(&self) -> Result<Report> {
        let begun = Instant::now();
        let size = observed::Size {
            apps: self.apps,
            tasks: self.tasks,
            replaced: self.replaced,
            pause: Duration::from_millis(self.pause),
        };
        let marathon = observed::marathon(&size)?;
        let etcd = program("etcd").is_ok().then(|| observed::etcd(&size)).transpose()?;
        let operations = operations::measure()?;
        let (machine, seconds) = (Machine::this(), begun.elapsed().as_secs_f64());
        Ok(Report { machine, seconds, apps: self.apps, tasks: self.tasks, marathon, etcd, operations })
    }
}
