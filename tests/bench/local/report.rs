//! The results of `local`: as a table, as JSON, as charts.

use std::{collections::BTreeMap, fmt, path::Path};

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::{Deserialize, Serialize};

use super::{
    measurement::{self, Metric, Part, Ratio, Row},
    targets,
};
use crate::{
    chart::{self, Bar, Panel},
    machine::Machine,
    output::{Measured, Target, list},
    peers::Shape,
};

/// A whole run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// The version of each program.
    pub(crate) versions: BTreeMap<String, String>,
    /// The peers that were not measured, with reasons.
    pub(crate) skipped: BTreeMap<String, String>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    pub(crate) parts: Vec<Part>,
}

impl Part {
    /// A table of these columns, each with the ratio to the limit.
    fn table(&self, columns: &[(Metric, &str)], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(std::iter::once("").chain(columns.iter().map(|(_, title)| *title)));
        for row in &self.rows {
            let cell = |(metric, _): &(Metric, &str)| {
                self.to_limit(row, *metric).map_or_else(|| "-".to_owned(), |it| said(*metric, it))
            };
            table.add_row(std::iter::once(row.name.clone()).chain(columns.iter().map(cell)));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        for line in table.lines() {
            writeln!(f, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn said(metric: Metric, Ratio { value, ratio, spread }: Ratio) -> String {
    let value = match metric {
        Metric::Bulk => format!("{value:.1}"),
        Metric::Crr | Metric::Rr | Metric::Udp | Metric::UdpUnconnected => format!("{:.1}k", value / 1000.0),
        Metric::Switches => return format!("{value:.2}"),
        Metric::Failed => return format!("{value:.0}"),
        // A metric of few samples, of which a ratio would claim more precision than there is.
        Metric::ConnectP99 | Metric::ConnectP999 => return format!("{value:.0}"),
        Metric::ConnectP50 | Metric::CpuUs => format!("{value:.1}"),
    };
    format!("{value} {ratio:.2}±{spread:.0}%")
}

impl Report {
    pub(crate) fn part(&self, services: u16, backends: u16) -> Option<&Part> {
        measurement::part(&self.parts, services, backends)
    }
}

impl Measured for Report {
    fn targets(&self) -> Vec<Target> {
        targets::targets(&self.parts)
    }

    /// One chart of rates, and one of the costs of a connect.
    fn draw(&self, folder: &Path) -> Result<()> {
        let Some(main) = self.part(1, 2) else { return Ok(()) };
        let panel = |part: &Part, metric: Metric, title: &str| {
            let bar = |row: &Row| {
                let it = part.to_limit(row, metric)?;
                let unit = said(metric, it);
                Some(Bar { name: row.name.clone(), value: it.value, said: unit })
            };
            Panel { title: title.to_owned(), bars: part.rows.iter().filter_map(bar).collect() }
        };
        let rates = [
            panel(main, Metric::Crr, "connections a second, one request each"),
            panel(main, Metric::Rr, "requests a second, connections that stay"),
            panel(main, Metric::Bulk, "one connection, Gbit/s"),
            panel(main, Metric::Udp, "datagrams answered a second, connected"),
            panel(main, Metric::UdpUnconnected, "datagrams answered a second, unconnected"),
            panel(main, Metric::CpuUs, "CPU time for one connection, µs (less is better)"),
        ];
        let title = format!("1 service, 2 backends; ratios to no forwarder; {} rounds", self.rounds);
        chart::bars(&folder.join("local.svg"), &title, &rates)?;
        let Some(many) = self.part(10_000, 2) else { return Ok(()) };
        let panels = [
            panel(many, Metric::Crr, "connections a second, one request each"),
            panel(many, Metric::ConnectP50, "connect(2), median µs (less is better)"),
        ];
        let title = format!("connects to all of 10,000 services; ratios to no forwarder; {} rounds", self.rounds);
        chart::bars(&folder.join("local-10000.svg"), &title, &panels)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        for (name, version) in &self.versions {
            writeln!(f, "  {name}: {version}")?;
        }
        writeln!(
            f,
            "medians of {} interleaved rounds; after each the ratio to no forwarder, and the half of what lies",
            self.rounds
        )?;
        writeln!(f, "between its quartiles; {:.0} s in all", self.seconds)?;
        for part in &self.parts {
            let Shape { services, backends } = part.shape;
            let many =
                if services == 1 { "1 service".to_owned() } else { format!("connects to all of {services} services") };
            writeln!(f, "\n{many}, {backends} backends")?;
            if part.has(Metric::Rr) {
                let columns = [
                    (Metric::Crr, "CRR/s"),
                    (Metric::Rr, "RR/s"),
                    (Metric::Bulk, "bulk Gbit/s"),
                    (Metric::Udp, "UDP/s"),
                    (Metric::UdpUnconnected, "UDP unconn/s"),
                ];
                part.table(&columns, f)?;
                writeln!(f)?;
            }
            let mut columns = vec![];
            if !part.has(Metric::Rr) {
                columns.push((Metric::Crr, "CRR/s"));
            }
            columns.extend([
                (Metric::ConnectP50, "connect µs"),
                (Metric::ConnectP99, "99 %"),
                (Metric::ConnectP999, "99.9 %"),
                (Metric::CpuUs, "CPU µs"),
                (Metric::Switches, "switches"),
            ]);
            if part
                .rows
                .iter()
                .any(|row| row.values.get(&Metric::Failed).is_some_and(|it| it.iter().sum::<f64>() > 0.0))
            {
                columns.push((Metric::Failed, "failed"));
            }
            part.table(&columns, f)?;
        }
        writeln!(
            f,
            "\nCPU and context switches: of client, forwarder and backend together, for one connection of CRR."
        )?;
        if !self.skipped.is_empty() {
            writeln!(f, "\nnot measured:")?;
        }
        for (name, why) in &self.skipped {
            writeln!(f, "  {name}: {why}")?;
        }
        list(&self.targets(), f)
    }
}
