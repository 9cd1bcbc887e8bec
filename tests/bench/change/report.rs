//! The results of `change`: as a table, as JSON, as a chart.

use std::{collections::BTreeMap, fmt, path::Path};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::{
    chart::{self, Bar, Panel},
    machine::Machine,
    output::{Measured, Target, list},
    statistics::median,
};

/// Single changes: one value for each.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Changed {
    pub(crate) name: String,
    pub(crate) services: u16,
    /// From TASK_RUNNING to the first connection that the new task answers.
    pub(crate) start_ms: Vec<f64>,
    /// From TASK_KILLING to the last connection that the old task answers.
    pub(crate) end_ms: Vec<f64>,
}

/// Many changes in a row.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Rolled {
    pub(crate) name: String,
    pub(crate) services: u16,
    pub(crate) changes: usize,
    pub(crate) connections: usize,
    /// By error.
    pub(crate) failed: BTreeMap<String, usize>,
}

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) seconds: f64,
    /// From TASK_KILLING until a replica stops listening.
    pub(crate) grace_ms: u64,
    pub(crate) skipped: BTreeMap<String, String>,
    pub(crate) changed: Vec<Changed>,
    pub(crate) rolled: Vec<Rolled>,
}

const OURS: &str = "proxymatic";
const HAPROXY: &str = "haproxy";

impl Report {
    fn sizes(&self) -> Vec<u16> {
        let mut sizes: Vec<_> = self.changed.iter().map(|it| it.services).collect();
        sizes.dedup();
        sizes
    }

    fn of(&self, name: &str, services: u16) -> Option<&Changed> {
        self.changed.iter().find(|it| it.name == name && it.services == services)
    }
}

impl Measured for Report {
    fn targets(&self) -> Vec<Target> {
        let mut targets = Vec::new();
        if let (Some(own), Some(other)) = (self.of(OURS, 1_000), self.of(HAPROXY, 1_000)) {
            for (what, own, other) in
                [("a task ends", &own.end_ms, &other.end_ms), ("a task starts", &own.start_ms, &other.start_ms)]
            {
                let (own, other) = (median(own), median(other));
                let measured = Some((format!("{:.1} ({other:.1} ms / {own:.1} ms)", other / own), other / own >= 50.0));
                let what = format!("{what}, HAProxy / proxymatic, 1,000 services >= 50");
                targets.push(Target { what, measured });
            }
        }
        let failed: usize = self.rolled.iter().filter(|it| it.name == OURS).flat_map(|it| it.failed.values()).sum();
        let what = "failed connections of proxymatic = 0".to_owned();
        targets.push(Target { what, measured: Some((failed.to_string(), failed == 0)) });
        targets
    }

    fn draw(&self, folder: &Path) -> Result<()> {
        let mut panels = Vec::new();
        for services in self.sizes() {
            for (title, of) in [
                (
                    "a task starts: ms to its first connection",
                    (|it: &Changed| median(&it.start_ms)) as fn(&Changed) -> f64,
                ),
                ("a task ends: ms to its last connection", |it: &Changed| median(&it.end_ms)),
            ] {
                let own = self.changed.iter().filter(|it| it.services == services && of(it).is_finite());
                let bar =
                    |it: &Changed| Bar { name: it.name.clone(), value: of(it), said: format!("{:.1} ms", of(it)) };
                panels.push(Panel { title: format!("{services} services; {title}"), bars: own.map(bar).collect() });
            }
        }
        chart::bars(&folder.join("change.svg"), "From an event of Marathon to the connections", &panels)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "under load; medians (longest) of {} changes; {:.0} s in all",
            self.changed.first().map_or(0, |it| it.start_ms.len()),
            self.seconds
        )?;
        writeln!(f, "start: ms from TASK_RUNNING to the first connection that the new task answers")?;
        writeln!(f, "end: ms from TASK_KILLING to the last connection that the old task answers")?;
        writeln!(
            f,
            "failed: of the connections during replacements in a row; a replica listens {} ms longer\n",
            self.grace_ms
        )?;
        writeln!(f, "{:>8}  {:<12}{:>18}{:>18}{:>26}", "services", "", "start", "end", "failed")?;
        for (single, many) in self.changed.iter().zip(&self.rolled) {
            let longest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
            let both = |values: &[f64]| match values {
                [] => "-".to_owned(),
                _ => format!("{:.1} ({:.0})", median(values), longest(values)),
            };
            let failed = many.failed.values().sum::<usize>();
            writeln!(
                f,
                "{:>8}  {:<12}{:>18}{:>18}{:>26}",
                single.services,
                single.name,
                both(&single.start_ms),
                both(&single.end_ms),
                format!("{failed} of {}, {} changes", many.connections, many.changes)
            )?;
            for (error, times) in &many.failed {
                writeln!(f, "{:>22}{times} x {error}", "")?;
            }
        }
        for (name, why) in &self.skipped {
            writeln!(f, "not measured: {name} {why}")?;
        }
        list(&self.targets(), f)
    }
}
