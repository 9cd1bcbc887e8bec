//! Services and backends as rows.

use std::{collections::BTreeMap, net::IpAddr};

use proxymatic_common::{BackendState, Cell64, Class, PROTOCOL_TCP, SourceCode};
use serde::Serialize;

use crate::{
    dataplane::{Error, kernel::Maps},
    plan::{BackendEntry, MapState, ServiceEntry},
};

/// A service, as `service show` prints it. The JSON is a contract: see docs/cli.md.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceRow {
    /// The Marathon app id, the folder in registrator's etcd, or the name in the file.
    pub name: String,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// What is dialled; absent for every address of the host.
    pub address: Option<IpAddr>,
    /// The service port.
    pub port: u16,
    /// Who told us of it.
    pub source: &'static str,
    /// How a backend is chosen.
    pub policy: &'static str,
    /// Its replicas.
    pub backends: Vec<BackendRow>,
    /// What is counted of it; for metrics, not in the JSON.
    #[serde(skip)]
    pub counts: ServiceCounts,
}

/// What is counted of a service, whatever becomes of its backends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ServiceCounts {
    /// Connections open now, from this host.
    pub open: u64,
    /// Connections opened, ever, from this host.
    pub opened: u64,
    /// Refusals, ever, by [`proxymatic_common::Reason::refusal`].
    pub refused: [u64; 8],
}

/// A replica, as `service show` and `backend show` print it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackendRow {
    /// Where it listens.
    pub address: IpAddr,
    /// The port it listens on.
    pub port: u16,
    /// Its share of new connections, 0 to 1000.
    pub weight: u32,
    /// The most connections open from this host; 0 for no bound.
    pub maxconn: u32,
    /// warming, active, draining, ejected or full.
    pub state: &'static str,
    /// Connections open now, from this host.
    pub active: u64,
    /// Connections opened, ever, from this host.
    pub total: u64,
    /// TCP connections from this host that it refused or did not answer, ever.
    pub failed: u64,
    /// The Mesos task, registrator's key, or the address itself.
    pub task: String,
    /// TCP connections that it answered, ever; for metrics, not in the JSON.
    #[serde(skip)]
    pub established: u64,
    /// Round trip time as the policy `latency` sees it, in microseconds; 0 for none measured yet. Not in the JSON.
    #[serde(skip)]
    pub rtt_us: u64,
    /// How many handshakes took how long; for metrics, not in the JSON.
    #[serde(skip)]
    pub rtts: RoundTrips,
}

/// How many handshakes with a backend took how long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoundTrips {
    /// By [`proxymatic_common::RTT_STEPS_US`]; the last for what took longer than all.
    pub steps: [u64; 7],
    /// All of them together, in microseconds.
    pub sum_us: u64,
}

impl RoundTrips {
    /// How many there were.
    pub fn count(&self) -> u64 {
        self.steps.iter().sum()
    }

    /// With those of another backend.
    pub(super) fn and(mut self, other: &Self) -> Self {
        self.steps.iter_mut().zip(other.steps).for_each(|(step, more)| *step += more);
        self.sum_us += other.sum_us;
        self
    }
}

/// What is counted of a backend.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    active: u64,
    total: u64,
    failed: u64,
    established: u64,
    rtt_us: u64,
    rtts: RoundTrips,
    ejected: bool,
}

/// All services that can be found, by port.
///
/// # Errors
/// The maps cannot be read.
pub fn services(maps: &Maps) -> Result<Vec<ServiceRow>, Error> {
    Ok(rows(&maps.tables()?, Some(maps)))
}

/// All services that can be found in tables, by port, with what the maps count of them; with zeros where there are none.
pub(super) fn rows(tables: &MapState, maps: Option<&Maps>) -> Vec<ServiceRow> {
    let virtual_addresses: BTreeMap<_, IpAddr> =
        tables.addresses().iter().map(|(address, class)| (*class, (*address).into())).collect();
    let address = |class| if class == Class::HOST { None } else { virtual_addresses.get(&class).copied() };
    let entries =
        tables.frontends().iter().filter_map(|(frontend, id)| Some((frontend, id, tables.services().get(id)?)));
    // Nobody's but the agent's: what it tests itself with.
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
            counts: maps.map_or_else(ServiceCounts::default, |maps| of_service(maps, *id)),
        })
        .collect();
    rows.sort_by_key(|row| (row.address, row.port, row.protocol));
    rows
}

fn of_service(maps: &Maps, id: u32) -> ServiceCounts {
    maps.service_load(id).map_or_else(ServiceCounts::default, |load| ServiceCounts {
        open: load.active(),
        opened: load.opened.get(),
        refused: load.refused.each_ref().map(Cell64::get),
    })
}

fn of_backend(maps: &Maps, id: u32) -> Counted {
    maps.load(id).map_or_else(Counted::default, |load| Counted {
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
    let counts = |id| maps.map_or_else(Counted::default, |maps| of_backend(maps, id));
    let mut rows: Vec<_> = known.map(|(id, entry)| backend(entry, counts(id))).collect();
    rows.sort_by(|a, b| (a.address, a.port, &a.task).cmp(&(b.address, b.port, &b.task)));
    rows
}

fn backend(entry: &BackendEntry, counted: Counted) -> BackendRow {
    let backend = &entry.backend;
    let Counted { active, total, failed, established, rtt_us, rtts, ejected } = counted;
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
    fn the_state_is_what_keeps_connections_away() {
        let full = Counted { active: 5, ..Counted::default() };
        let ejected = Counted { ejected: true, ..full };
        for (state, counted, shown) in [
            (BackendState::WARMING, ejected, "warming"),
            (BackendState::ACTIVE, Counted::default(), "active"),
            (BackendState::ACTIVE, full, "full"),
            (BackendState::ACTIVE, ejected, "ejected"),
            (BackendState::DRAINING, ejected, "draining"),
        ] {
            let of = Backend { state, maxconn: 5, ..Backend::free(1) };
            assert_eq!(backend(&BackendEntry { backend: of, task: String::new() }, counted).state, shown);
        }
    }
}
