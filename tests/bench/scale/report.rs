//! The results of `scale`: as a table, as JSON, as a chart.

use std::{fmt, path::Path};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::sync::Synced;
use crate::{
    chart::{self, Line},
    machine::Machine,
    output::{Measured, Target, list},
};

/// One size.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Size {
    pub(crate) services: u16,
    pub(crate) backends: u32,
    pub(crate) synced: Synced,
    /// From the start of the agent to the last service in the maps, with the simulated Marathon's own time.
    pub(crate) agent_ms: f64,
    /// The simulated Marathon's own time for a listing.
    pub(crate) listing_ms: f64,
    /// From the bytes of an event to the switch.
    pub(crate) event_p50_ms: f64,
    pub(crate) event_p99_ms: f64,
    /// The agent's memory at the end, and its maximum.
    pub(crate) resident_mb: f64,
    pub(crate) highest_mb: f64,
}

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) seconds: f64,
    pub(crate) sizes: Vec<Size>,
}

impl Measured for Report {
    fn targets(&self) -> Vec<Target> {
        let Some(largest) = self.sizes.iter().find(|it| it.services == 20_000) else { return Vec::new() };
        let memory = largest.synced.highest_mb.max(largest.highest_mb);
        let target = |(what, value, most)| Target {
            what: format!("20,000 services: {what} <= {most}"),
            measured: Some((format!("{value:.0}"), value <= most)),
        };
        [("sync, ms", largest.synced.all_ms, 2_000.0), ("memory of either, MB", memory, 400.0)].map(target).into()
    }

    fn draw(&self, folder: &Path) -> Result<()> {
        let line = |name: &str, of: fn(&Size) -> f64| Line {
            name: name.to_owned(),
            points: self.sizes.iter().map(|size| (f64::from(size.services), of(size))).collect(),
        };
        let all = [
            line("full sync, bytes to maps: ms", |size| size.synced.all_ms),
            line("event to switch, median: ms", |size| size.event_p50_ms),
            line("event to switch, 99 %: ms", |size| size.event_p99_ms),
            line("memory of the agent at its highest: MB", |size| size.highest_mb),
        ];
        let title = "What the agent costs as the cluster grows; five backends a service";
        chart::lines(&folder.join("scale.svg"), title, ["services", "ms, or MB"], &all)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "sync: ms from Marathon's bytes in memory to maps that say it, by itself; memory of that, with the bytes"
        )?;
        writeln!(f, "event: ms from its bytes to the switch, while all is read again each second; the agent's memory")?;
        writeln!(f, "{:.0} s in all\n", self.seconds)?;
        writeln!(
            f,
            "{:>8}{:>9}{:>7} |{:>7}{:>6}{:>9}{:>7}{:>7} |{:>8}{:>8}{:>6}{:>9}",
            "services", "backends", "MB", "parse", "read", "publish", "sync", "MB", "event", "99 %", "MB", "highest"
        )?;
        for size in &self.sizes {
            let Size { services, backends, synced, event_p50_ms, event_p99_ms, resident_mb, highest_mb, .. } = size;
            let Synced { answer_mb, parse_ms, read_ms, publish_ms, all_ms, highest_mb: sync_mb } = synced;
            writeln!(
                f,
                "{services:>8}{backends:>9}{answer_mb:>7.1} |{parse_ms:>7.0}{read_ms:>6.0}{publish_ms:>9.0}{all_ms:>7.0}\
                 {sync_mb:>7.0} |{event_p50_ms:>8.2}{event_p99_ms:>8.2}{resident_mb:>6.0}{highest_mb:>9.0}"
            )?;
        }
        list(&self.targets(), f)
    }
}
