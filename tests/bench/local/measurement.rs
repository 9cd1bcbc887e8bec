//! The measured values: metrics, rows, parts, and ratios between rows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    peers::Shape,
    statistics::{median, percentile},
};

/// The row that the others are compared with.
pub(super) const LIMIT: &str = "no forwarder";

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

/// A value and its ratio to another row's: medians over the rounds, and half of the interquartile range, in percent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ratio {
    pub(crate) value: f64,
    pub(crate) ratio: f64,
    pub(crate) spread: f64,
}

impl Part {
    /// Returns the row of this name.
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
    pub(super) fn to_limit(&self, row: &Row, metric: Metric) -> Option<Ratio> {
        self.ratio(&row.name, LIMIT, metric)
    }

    /// Whether a row has this metric.
    pub(super) fn has(&self, metric: Metric) -> bool {
        self.rows.iter().any(|row| row.values.contains_key(&metric))
    }
}

/// Returns the part with this shape.
pub(super) fn part(parts: &[Part], services: u16, backends: u16) -> Option<&Part> {
    parts.iter().find(|part| part.shape == Shape { services, backends })
}
