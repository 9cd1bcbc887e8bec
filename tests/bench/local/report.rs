//! The results of `local`: as a table, as JSON, as charts.

use std::{collections::BTreeMap, fmt, path::Path};

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets::NOTHING};
use serde::{Deserialize, Serialize};

use super::targets;
use crate::{
    chart::{self, Bar, Panel},
    machine::Machine,
    output::{Measured, Target, list},
    peers::Shape,
    statistics::{median, percentile},
};

/// A metric that is measured once each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Metric {
    /// Connections per second, each with one request.
    Crr,
    /// Requests per second on persistent connections.
    Rr,
    /// Gigabits per second over one connection.
    Bulk,
    /// Answered datagrams per second, connected sockets.
    Udp,
    /// Answered datagrams per second, unconnected sockets.
    UdpUnconnected,
    /// Microseconds in connect(2), the median.
    ConnectP50,
    /// Microseconds in connect(2), the 99th percentile.
    ConnectP99,
    /// Microseconds in connect(2), the 99.9th percentile.
    ConnectP999,
    /// Microseconds of CPU time for one connection of `Crr`: client, forwarder, backend and kernel.
    CpuUs,
    /// Context switches for one connection of `Crr`.
    Switches,
    /// Connections of `Crr` that failed.
    Failed,
}

/// One peer's results.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    /// By metric, one value for each round.
    pub(crate) values: BTreeMap<Metric, Vec<f64>>,
}

/// All peers with one shape.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Part {
    pub(crate) shape: Shape,
    pub(crate) rows: Vec<Row>,
}

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

/// A value and its ratio to another row's: medians over the rounds, and half of the interquartile range, in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    pub(crate) value: f64,
    pub(crate) ratio: f64,
    pub(crate) spread: f64,
}

impl Part {
    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The ratio of two rows, round by round, so that variation between rounds cancels out.
    pub(crate) fn ratio(&self, name: &str, other: &str, metric: Metric) -> Option<Ratio> {
        let (own, other) = (self.row(name)?.values.get(&metric)?, self.row(other)?.values.get(&metric)?);
        let ratios: Vec<f64> = own.iter().zip(other).map(|(own, other)| own / other).collect();
        let ratio = median(&ratios);
        let spread = (percentile(&ratios, 75) - percentile(&ratios, 25)) / 2.0 / ratio * 100.0;
        Some(Ratio { value: median(own), ratio, spread })
    }

    /// The ratio of a row's metric to that without a forwarder.
    fn to_limit(&self, row: &Row, metric: Metric) -> Option<Ratio> {
        self.ratio(&row.name, LIMIT, metric)
    }

    fn has(&self, metric: Metric) -> bool {
        self.rows.iter().any(|row| row.values.contains_key(&metric))
    }

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

/// The row that the others are compared with.
pub(super) const LIMIT: &str = "no forwarder";

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
        self.parts.iter().find(|part| part.shape == Shape { services, backends })
    }
}

impl Measured for Report {
    fn targets(&self) -> Vec<Target> {
        targets::targets(self)
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
