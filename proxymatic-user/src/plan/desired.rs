//! The desired state: what the maps should hold.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use proxymatic_common::{Address, Class, SourceCode};

use super::MapState;
use crate::model::{Service, ServiceKey};

/// Services, each with the kind of its source.
pub type Services = BTreeMap<ServiceKey, (SourceCode, Arc<Service>)>;

/// The desired state of the maps: always complete, never a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The addresses of this host on which services are served. Loopback addresses are not listed: hooks recognize them
    /// by their bits.
    pub addresses: BTreeSet<IpAddr>,
    /// The services, each with the kind of its source.
    pub services: Services,
    /// Sources that have not answered yet. Their services in the maps stay as they are, unless `services` has them.
    pub unanswered: BTreeSet<SourceCode>,
    /// The limit of open connections from this host for a service without a maxconn of its own; 0 for none.
    pub max_connections: u32,
    /// The ids of the cgroups in allow lists, by path. A path that is missing here does not exist.
    pub cgroups: BTreeMap<String, u64>,
    /// The ids of cgroups whose programs the hooks leave alone.
    pub excluded: BTreeSet<u64>,
    /// The services that remote clients may use.
    pub exposed: Exposed,
    /// Ids of parked or full backends: not drawn as long as the service has better ones.
    pub parked: BTreeSet<u32>,
    /// Ids of backends that the operator drains, whatever the source's state for them is.
    pub drained: BTreeSet<u32>,
}

/// The services that remote clients may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exposed {
    /// None: no interface is served.
    #[default]
    None,
    /// Services with the setting `expose`.
    Labelled,
    /// All.
    All,
}

impl Exposed {
    /// Returns whether a service is exposed, given its own setting.
    pub(super) const fn has(self, expose: bool) -> bool {
        match self {
            Self::None => false,
            Self::Labelled => expose,
            Self::All => true,
        }
    }
}

impl Desired {
    /// Returns the state that the maps already hold, with other drained backends: for commands that work without an
    /// agent.
    pub fn from_maps(tables: &MapState, drained: BTreeSet<u32>) -> Self {
        let host = tables.addresses().iter().filter(|(_, class)| **class == Class::HOST);
        Self {
            addresses: host.map(|(address, _)| IpAddr::from(*address)).collect(),
            unanswered: tables.services().values().map(|entry| entry.settings.source).collect(),
            excluded: tables.excluded().clone(),
            drained,
            ..Self::default()
        }
    }

    /// Returns whether an address belongs to this host.
    pub(super) fn is_local(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses.contains(&address) || Address::from(address).is_loopback()
    }

    /// Returns whether everything except `services`, `unanswered` and `excluded` is equal: all else that the plan of
    /// one service depends on.
    pub(super) fn same_environment(&self, other: &Self) -> bool {
        let Self {
            addresses,
            services: _,
            unanswered: _,
            max_connections,
            cgroups,
            excluded: _,
            exposed,
            parked,
            drained,
        } = self;
        *max_connections == other.max_connections
            && *exposed == other.exposed
            && *addresses == other.addresses
            && *cgroups == other.cgroups
            && *parked == other.parked
            && *drained == other.drained
    }

    /// Returns whether the service with this id is retained because its source has not answered yet.
    pub(super) fn retains(&self, tables: &MapState, service: u32) -> bool {
        tables.services().get(&service).is_some_and(|entry| self.unanswered.contains(&entry.settings.source))
    }
}
