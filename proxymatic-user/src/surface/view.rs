//! Services and backends as rows.

use std::{collections::BTreeMap, net::IpAddr};

use proxymatic_common::{BackendState, Class, PROTOCOL_TCP, Policy};
use serde::Serialize;

use crate::{
    dataplane::{Error, kernel::Maps},
    plan::{BackendEntry, ServiceEntry, Tables},
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
    /// warming, active, draining or full.
    pub state: &'static str,
    /// Connections open now, from this host.
    pub active: u64,
    /// Connections opened, ever, from this host.
    pub total: u64,
    /// Connections that failed, ever; absent, since this version does not count them.
    pub failed: Option<u64>,
    /// The Mesos task, registrator's key, or the address itself.
    pub task: String,
}

/// All services that can be found, by port.
///
/// # Errors
/// The maps cannot be read.
pub fn services(maps: &Maps) -> Result<Vec<ServiceRow>, Error> {
    let counts = |id| maps.load(id).map_or((0, 0), |load| (load.active(), load.opened.get()));
    Ok(rows(&maps.tables()?, counts))
}

/// All services that can be found in tables, by port. `counts` gives a backend's connections: open, and ever opened.
pub(super) fn rows(tables: &Tables, counts: impl Fn(u32) -> (u64, u64)) -> Vec<ServiceRow> {
    let virtual_addresses: BTreeMap<_, IpAddr> =
        tables.addresses().iter().map(|(address, class)| (*class, (*address).into())).collect();
    let address = |class| if class == Class::HOST { None } else { virtual_addresses.get(&class).copied() };
    let entries = tables.frontends().iter().filter_map(|(frontend, id)| Some((frontend, tables.services().get(id)?)));
    let mut rows: Vec<_> = entries
        .map(|(frontend, entry)| ServiceRow {
            name: entry.name.clone(),
            protocol: if frontend.protocol == PROTOCOL_TCP { "tcp" } else { "udp" },
            address: address(frontend.class),
            port: frontend.port.get(),
            source: entry.settings.source.name(),
            policy: policy(entry.settings.policy),
            backends: backends(tables, entry, &counts),
        })
        .collect();
    rows.sort_by_key(|row| (row.address, row.port, row.protocol));
    rows
}

fn backends(tables: &Tables, service: &ServiceEntry, counts: impl Fn(u32) -> (u64, u64)) -> Vec<BackendRow> {
    let entries = service.backends.iter().filter_map(|id| Some((*id, tables.backends().get(id)?)));
    let known = entries.filter(|(_, entry)| entry.backend.state != BackendState::GONE);
    let mut rows: Vec<_> = known.map(|(id, entry)| backend(entry, counts(id))).collect();
    rows.sort_by(|a, b| (a.address, a.port, &a.task).cmp(&(b.address, b.port, &b.task)));
    rows
}

fn backend(entry: &BackendEntry, (active, total): (u64, u64)) -> BackendRow {
    let backend = &entry.backend;
    let full = backend.maxconn != 0 && active >= u64::from(backend.maxconn);
    BackendRow {
        address: backend.address.into(),
        port: backend.port.get(),
        weight: backend.weight,
        maxconn: backend.maxconn,
        state: if full && backend.state == BackendState::ACTIVE { "full" } else { backend.state.name() },
        active,
        total,
        failed: None,
        task: entry.task.clone(),
    }
}

const fn policy(policy: Policy) -> &'static str {
    match policy {
        Policy::LEASTCONN => "leastconn",
        _ => "unknown",
    }
}
