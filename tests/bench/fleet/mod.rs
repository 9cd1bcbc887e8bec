//! What one Marathon gets to do from a whole fleet of agents: measured of one, simulated for many.

mod observed;
mod report;

use std::time::{Duration, Instant};

use anyhow::Result;

pub(crate) use self::report::Report;
use crate::{machine::Machine, output::Output, peers::program};

/// Requests, bytes and events that Marathon's leader sees of 10 to 10,000 agents, at rest and while tasks are replaced.
#[derive(Debug, clap::Parser)]
pub(crate) struct Fleet {
    /// How many apps there are.
    #[arg(long, default_value_t = 1_000)]
    apps: u16,
    /// How many tasks each has.
    #[arg(long, default_value_t = 5)]
    tasks: u16,
    /// How many tasks of one app are replaced while it is watched.
    #[arg(long, default_value_t = 20)]
    replaced: u16,
    /// Milliseconds from one replacement to the next.
    #[arg(long, default_value_t = 1_000)]
    pause: u64,
    #[command(flatten)]
    output: Output,
}

/// What an agent does of itself, and what a change makes it do.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct Single {
    /// Requests of one full read.
    pub(crate) full_requests: f64,
    /// Bytes that come of it, with TCP and IP.
    pub(crate) full_bytes: f64,
    /// How long was watched, in seconds.
    pub(crate) seconds: f64,
    /// How many tasks were replaced meanwhile.
    pub(crate) replaced: f64,
    /// Requests meanwhile, full reads by the clock left out.
    pub(crate) requests: f64,
    /// Bytes that came meanwhile: answers and events.
    pub(crate) bytes: f64,
    /// Events that came meanwhile.
    pub(crate) events: f64,
    /// From the end of a task, as the source knows it, to the switch in the maps; milliseconds, the median.
    pub(crate) switch_ms: f64,
}

impl Fleet {
    /// The way that `all` wants it.
    pub(crate) fn new() -> Self {
        Self { apps: 1_000, tasks: 5, replaced: 20, pause: 1_000, output: Output::default() }
    }

    pub(crate) fn run(&self) -> Result<()> {
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
        let (machine, seconds) = (Machine::this(), begun.elapsed().as_secs_f64());
        Ok(Report { machine, seconds, apps: self.apps, tasks: self.tasks, marathon, etcd })
    }
}
