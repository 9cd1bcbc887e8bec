//! Services and backends as rows.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use proxymatic_common::{BackendState, Cell64, Class, PROTOCOL_TCP, SourceCode};
use serde::Serialize;

use super::AwaitedBackend;
use crate::{
    dataplane::{Error, kernel::Maps},
    plan::{BackendEntry, MapState, ServiceEntry},
};

/// The state of a backend that is not used yet.
pub const WARMING: &str = "warming";

/// A service, as `service show` prints it. The JSON is a contract: see docs/cli.md.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceRow {
    /// The Marathon app id, the folder in registrator's etcd, or the name in the file.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The virtual address; `None` for every address of the host.
    pub address: Option<IpAddr>,
    /// The service port.
    pub port: u16,
    /// The kind of source.
    pub source: &'static str,
    /// The rule that picks a backend.
    pub policy: &'static str,
    /// The backends.
    pub backends: Vec<BackendRow>,
    /// The counters; for metrics, not in the JSON.
    #[serde(skip)]
    pub counts: ServiceCounts,
}

/// The counters of a service, which do not depend on its backends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServiceCounts {
    /// Open connections from this host.
    pub open: u64,
    /// Connections opened from this host so far.
    pub opened: u64,
    /// Refusals so far, indexed by [`proxymatic_common::Reason::refusal`].
    pub refused: [u64; 8],
}

/// A backend, as `service show` and `backend show` print it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendRow {
    /// The address on which the backend listens.
    pub address: IpAddr,
    /// The port on which the backend listens.
    pub port: u16,
    /// The share of new connections, 0 to 1000.
    pub weight: u32,
    /// The limit of open connections from this host; 0 for none.
    pub maxconn: u32,
    /// warming, active, draining, ejected or full.
    pub state: &'static str,
    /// Open connections from this host.
    pub active: u64,
    /// Connections opened from this host so far.
    pub total: u64,
    /// TCP connections from this host that the backend refused or did not answer so far.
    pub failed: u64,
    /// The Mesos task id, registrator's key, or the address itself.
    pub task: String,
    /// Why a new backend is not used yet; absent for all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// TCP connections that the backend answered so far; for metrics, not in the JSON.
    #[serde(skip)]
    pub established: u64,
    /// Round trip time as the policy `latency` measures it, in microseconds; 0 for none measured yet. Not in the JSON.
    #[serde(skip)]
    pub rtt_us: u64,
    /// The histogram of handshake times; for metrics, not in the JSON.
    #[serde(skip)]
    pub rtts: RoundTrips,
}

/// A histogram of the handshake times of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoundTrips {
    /// The count of each bucket of [`proxymatic_common::RTT_STEPS_US`]; the last one is for slower handshakes.
    pub steps: [u64; 7],
    /// The sum of all handshake times, in microseconds.
    pub sum_us: u64,
}

impl RoundTrips {
    /// Returns the number of handshakes.
    pub fn count(&self) -> u64 {
        self.steps.iter().sum()
    }

    /// Adds the histogram of another backend.
    pub(super) fn merged(mut self, other: &Self) -> Self {
        self.steps.iter_mut().zip(other.steps).for_each(|(step, more)| *step += more);
        self.sum_us += other.sum_us;
        self
    }
}

/// The counters of a backend.
#[derive(Clone, Copy, Debug, Default)]
struct BackendCounts {
    active: u64,
    total: u64,
    failed: u64,
    established: u64,
    rtt_us: u64,
    rtts: RoundTrips,
    ejected: bool,
}

/// Returns all published services, by port.
///
/// # Errors
/// The maps cannot be read.
pub fn services(maps: &Maps) -> Result<Vec<ServiceRow>, Error> {
    Ok(rows(&maps.tables()?, Some(maps)))
}

/// Returns all published services of a map state, by port, with the counters in the maps; without maps all counters are
/// 0.
pub(super) fn rows(tables: &MapState, maps: Option<&Maps>) -> Vec<ServiceRow> {
    let virtual_addresses: BTreeMap<_, IpAddr> =
        tables.addresses().iter().map(|(address, class)| (*class, (*address).into())).collect();
    let address = |class| if class == Class::HOST { None } else { virtual_addresses.get(&class).copied() };
    let entries =
        tables.frontends().iter().filter_map(|(frontend, id)| Some((frontend, id, tables.services().get(id)?)));
    // The self-test's own services are internal to the agent.
    let entries = entries.filter(|(_, _, entry)| entry.settings.source != SourceCode::SELF);
    let mut rows: Vec<_> = entries
        .map(|(frontend, id, entry)| ServiceRow {
            name: entry.name.clone(),
            protocol: if frontend.protocol == PROTOCOL_TCP { "tcp" } else { "udp" },
            address: address(frontend.class),
            port: frontend.port.get(),
            source: entry.settings.source.name(),
            policy: entry.settings.policy.name(),
            backends: backends(tables, entry, maps),
            counts: maps.map_or_else(ServiceCounts::default, |maps| service_counts(maps, *id)),
        })
        .collect();
    rows.sort_by_key(|row| (row.address, row.port, row.protocol));
    rows
}

/// Adds to new backends why the agent does not use them yet.
pub fn add_reasons(rows: &mut [ServiceRow], awaited: &[AwaitedBackend]) {
    for backend in rows.iter_mut().flat_map(|row| &mut row.backends).filter(|it| it.state == WARMING) {
        let at = SocketAddr::new(backend.address, backend.port);
        let reason = awaited.iter().find(|it| it.backend == at && it.task == backend.task);
        backend.reason = reason.map(|it| it.reason.clone());
    }
}

fn service_counts(maps: &Maps, id: u32) -> ServiceCounts {
    maps.service_load(id).map_or_else(ServiceCounts::default, |load| ServiceCounts {
        open: load.active(),
        opened: load.opened.get(),
        refused: load.refused.each_ref().map(Cell64::get),
    })
}

fn backend_counts(maps: &Maps, id: u32) -> BackendCounts {
    maps.load(id).map_or_else(BackendCounts::default, |load| BackendCounts {
        active: load.active(),
        total: load.opened.get(),
        failed: load.failed.get(),
        established: load.established.get(),
        rtt_us: load.rtt_us.get(),
        rtts: RoundTrips { steps: load.rtts.each_ref().map(Cell64::get), sum_us: load.rtt_sum_us.get() },
        ejected: maps.ejected(id),
    })
}

fn backends(tables: &MapState, service: &ServiceEntry, maps: Option<&Maps>) -> Vec<BackendRow> {
    let entries = service.backends.iter().filter_map(|id| Some((*id, tables.backends().get(id)?)));
    let known = entries.filter(|(_, entry)| entry.backend.state != BackendState::GONE);
    let counts = |id| maps.map_or_else(BackendCounts::default, |maps| backend_counts(maps, id));
    let mut rows: Vec<_> = known.map(|(id, entry)| backend(entry, counts(id))).collect();
    rows.sort_by(|a, b| (a.address, a.port, &a.task).cmp(&(b.address, b.port, &b.task)));
    rows
}

fn backend(entry: &BackendEntry, counts: BackendCounts) -> BackendRow {
    let backend = &entry.backend;
    let BackendCounts { active, total, failed, established, rtt_us, rtts, ejected } = counts;
    let full = backend.maxconn != 0 && active >= u64::from(backend.maxconn);
    BackendRow {
        address: backend.address.into(),
        port: backend.port.get(),
        weight: backend.weight,
        maxconn: backend.maxconn,
        state: match backend.state {
            BackendState::ACTIVE if ejected => "ejected",
            BackendState::ACTIVE if full => "full",
            state => state.name(),
        },
        active,
        total,
        failed,
        task: entry.task.clone(),
        reason: None,
        established,
        rtt_us,
        rtts,
    }
}

#[cfg(test)]
mod tests {
    use proxymatic_common::Backend;

    use super::*;

    #[test]
    fn shown_state_is_what_keeps_connections_away() {
        let full = BackendCounts { active: 5, ..BackendCounts::default() };
        let ejected = BackendCounts { ejected: true, ..full };
        for (state, counted, shown) in [
            (BackendState::WARMING, ejected, "warming"),
            (BackendState::ACTIVE, BackendCounts::default(), "active"),
            (BackendState::ACTIVE, full, "full"),
            (BackendState::ACTIVE, ejected, "ejected"),
            (BackendState::DRAINING, ejected, "draining"),
        ] {
            let of = Backend { state, maxconn: 5, ..Backend::free(1) };
            assert_eq!(backend(&BackendEntry { backend: of, task: String::new() }, counted).state, shown);
        }
    }
}
