//! Metrics of backends: one series for each address and port, up to a limit.

use std::net::SocketAddr;

use crate::surface::{BackendRow, RoundTrips, ServiceRow};

/// The values of one backend, or of several together.
#[derive(Debug)]
pub(super) struct Series<'a> {
    pub(super) service: &'a ServiceRow,
    /// The address and port, or `other`.
    pub(super) backend: String,
    pub(super) active: u64,
    pub(super) total: u64,
    pub(super) established: u64,
    pub(super) failed: u64,
    pub(super) eligible: u64,
    /// The value of the slowest backend.
    pub(super) rtt_us: u64,
    pub(super) rtts: RoundTrips,
}

/// Returns all series, of which at most `most` belong to one address, and the number of backends without a series of
/// their own.
///
/// If two tasks share an address, because the first still drains, they share a series, since their labels are equal.
pub(super) fn series(rows: &[ServiceRow], most: usize) -> (Vec<Series<'_>>, usize) {
    let (mut series, mut own, mut folded) = (Vec::new(), 0, 0);
    for service in rows {
        let mut other = Vec::new();
        for same in service.backends.chunk_by(|a, b| (a.address, a.port) == (b.address, b.port)) {
            if own < most {
                own += 1;
                let name = SocketAddr::new(same[0].address, same[0].port).to_string();
                series.push(aggregate(service, name, same.iter()));
            } else {
                other.extend(same);
            }
        }
        if !other.is_empty() {
            folded += other.len();
            series.push(aggregate(service, "other".into(), other.into_iter()));
        }
    }
    (series, folded)
}

fn aggregate<'a>(
    service: &'a ServiceRow,
    backend: String,
    rows: impl Iterator<Item = &'a BackendRow> + Clone,
) -> Series<'a> {
    let sum = |of: fn(&BackendRow) -> u64| rows.clone().map(of).sum();
    Series {
        service,
        backend,
        active: sum(|row| row.active),
        total: sum(|row| row.total),
        established: sum(|row| row.established),
        failed: sum(|row| row.failed),
        eligible: sum(|row| u64::from(row.state == "active")),
        rtt_us: rows.clone().map(|row| row.rtt_us).max().unwrap_or(0),
        rtts: rows.fold(RoundTrips::default(), |all, row| all.merged(&row.rtts)),
    }
}
