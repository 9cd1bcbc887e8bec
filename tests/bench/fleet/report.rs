//! From one agent to a fleet: agents do not communicate, so their requests add up.

use std::{fmt, path::Path};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::{observed::Single, operations::Operation};
use crate::{
    chart::{self, Line},
    machine::Machine,
    output::{Measured, Target},
};

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) seconds: f64,
    pub(crate) apps: u16,
    pub(crate) tasks: u16,
    pub(crate) marathon: Single,
    pub(crate) etcd: Option<Single>,
    /// What operators do; runs before this was measured have none.
    #[serde(default)]
    pub(crate) operations: Vec<Operation>,
}

/// Returns a table of what operations cost.
pub(super) fn operations(all: &[Operation]) -> String {
    let mut table = format!("\n{:<34}{:>10}{:>10}{:>12}\n", "for each agent", "requests", "listings", "kB");
    for Operation { what, requests, listings, bytes } in all {
        table += &format!("{what:<34}{requests:>10}{listings:>10}{:>12.1}\n", bytes / 1e3);
    }
    table
}

/// Numbers of agents.
const FLEETS: [u32; 4] = [10, 100, 1_000, 10_000];
/// The default of --refresh-interval, in seconds.
const REFRESH: f64 = 60.0;
/// Each interval is drawn from three quarters of the interval up to all of it: this factor on average.
const MEAN: f64 = 0.875;
/// A rate of full reads, per second for a whole fleet, that is negligible.
const FLAT: f64 = 1.5;

impl Single {
    /// Requests and megabytes per second of this many agents at rest.
    fn polls(&self, agents: f64, refresh: f64) -> (f64, f64) {
        let reads = agents / (refresh * MEAN);
        (reads * self.full_requests, reads * self.full_bytes / 1e6)
    }

    /// Requests, megabytes and events per second while one task is replaced each second.
    fn rolling(&self, agents: f64) -> (f64, f64, f64) {
        let each = agents / self.replaced;
        (each * self.requests, each * self.bytes / 1e6, each * self.events)
    }
}

/// The refresh interval at which a fleet reads everything no more often than a small one, from the default up to a day.
fn flat(agents: f64) -> f64 {
    ((agents / FLAT / MEAN / 60.0).ceil() * 60.0).clamp(REFRESH, 86_400.0)
}

impl Measured for Report {
    fn targets(&self) -> Vec<Target> {
        Vec::new()
    }

    fn draw(&self, folder: &Path) -> Result<()> {
        let line = |name: &str, of: &dyn Fn(f64) -> f64| Line {
            name: name.to_owned(),
            points: FLEETS.iter().map(|agents| (f64::from(*agents), of(f64::from(*agents)))).collect(),
        };
        let all = [
            line("full reads by the clock, default interval", &|agents| self.marathon.polls(agents, REFRESH).0),
            line("full reads by the clock, interval as advised", &|agents| self.marathon.polls(agents, flat(agents)).0),
            line("reads while one task is replaced each second", &|agents| self.marathon.rolling(agents).0),
        ];
        let title = "Requests a second at Marathon's leader, simulated from one agent";
        chart::lines(&folder.join("fleet.svg"), title, ["agents", "requests a second"], &all)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, seconds, apps, tasks, marathon, etcd, operations } = self;
        writeln!(f, "{machine}")?;
        writeln!(f, "measured: one agent, {apps} apps of {tasks} tasks; {seconds:.0} s in all")?;
        writeln!(
            f,
            "{:<10}{:>20}{:>30}{:>26}",
            "", "a full read", "for each task replaced", "end of a task to switch"
        )?;
        for (name, it) in [("Marathon", Some(marathon)), ("etcd", etcd.as_ref())] {
            let Some(it) = it else {
                writeln!(f, "{name:<10} not measured: etcd is not installed")?;
                continue;
            };
            let full = format!("{:.0} req, {:.2} MB", it.full_requests, it.full_bytes / 1e6);
            let each = format!(
                "{:.1} req, {:.1} kB, {:.0} events",
                it.requests / it.replaced,
                it.bytes / it.replaced / 1e3,
                it.events / it.replaced
            );
            writeln!(f, "{name:<10}{full:>20}{each:>30}{:>23.1} ms", it.switch_ms)?;
        }
        if !operations.is_empty() {
            f.write_str(&self::operations(operations))?;
        }
        writeln!(f, "\nsimulated: a second at Marathon's leader; one task is replaced each second")?;
        writeln!(
            f,
            "{:>7} |{:>11}{:>9} |{:>14}{:>9}{:>9} |{:>11}{:>9}{:>9}",
            "agents", "by clock", "MB", "to be flat", "req", "MB", "rolling", "MB", "events"
        )?;
        for agents in FLEETS {
            let n = f64::from(agents);
            let ((by_clock, bytes), (flat_requests, flat_bytes)) =
                (marathon.polls(n, REFRESH), marathon.polls(n, flat(n)));
            let (requests, rolled, events) = marathon.rolling(n);
            writeln!(
                f,
                "{agents:>7} |{by_clock:>7.1} req{bytes:>9.1} |{:>12.0} s{flat_requests:>9.1}{flat_bytes:>9.1} |\
                 {requests:>7.0} req{rolled:>9.1}{events:>9.0}",
                flat(n)
            )?;
        }
        writeln!(
            f,
            "\nby clock: full reads with --refresh-interval 60; to be flat: the one that keeps them at {FLAT} a second"
        )?;
        writeln!(
            f,
            "rolling: what each replaced task makes every agent ask for; no setting of an agent makes that less."
        )?;
        writeln!(
            f,
            "Where it is too much for one leader, registrator and etcd take over: each agent asks a member near it."
        )
    }
}
