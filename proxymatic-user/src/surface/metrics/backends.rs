//! Backends as series: one for each address and port, and no more than there may be.

use std::net::SocketAddr;

use crate::surface::{BackendRow, RoundTrips, ServiceRow};

/// What is told of one backend, or of several together.
#[derive(Debug)]
pub(super) struct Series<'a> {
    pub(super) service: &'a ServiceRow,
    /// Its address and port, or `other`.
    pub(super) backend: String,
    pub(super) active: u64,
    pub(super) total: u64,
    pub(super) established: u64,
    pub(super) failed: u64,
    pub(super) eligible: u64,
    /// Of the slowest.
    pub(super) rtt_us: u64,
    pub(super) rtts: RoundTrips,
}

/// All series, of which at most so many are of one address; and how many backends have none of their own.
///
/// Two tasks may have had one address after another, of which the first drains: they are one series, since their labels
/// are the same.
pub(super) fn series(rows: &[ServiceRow], most: usize) -> (Vec<Series<'_>>, usize) {
    let (mut series, mut own, mut folded) = (Vec::new(), 0, 0);
    for service in rows {
        let mut other = Vec::new();
        for same in service.backends.chunk_by(|a, b| (a.address, a.port) == (b.address, b.port)) {
            if own < most {
                own += 1;
                let name = SocketAddr::new(same[0].address, same[0].port).to_string();
                series.push(together(service, name, same.iter()));
            } else {
                other.extend(same);
            }
        }
        if !other.is_empty() {
            folded += other.len();
            series.push(together(service, "other".into(), other.into_iter()));
        }
    }
    (series, folded)
}

fn together<'a>(
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
        rtts: rows.fold(RoundTrips::default(), |all, row| all.and(&row.rtts)),
    }
}
