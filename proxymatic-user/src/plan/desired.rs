//! What the maps should say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use proxymatic_common::{Address, Class, SourceCode};

use super::MapState;
use crate::model::{Service, ServiceKey};

/// Services, and who told us of each.
pub type Services = BTreeMap<ServiceKey, (SourceCode, Arc<Service>)>;

/// What the maps should say: always whole, never a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The addresses of this host on which programs may dial services. Loopback ones are not listed: the hooks know
    /// them by their bits.
    pub addresses: BTreeSet<IpAddr>,
    /// The services, and who told us of each.
    pub services: Services,
    /// Sources that have not said anything yet: their services that the maps hold stay as they are, unless `services`
    /// has them.
    pub unanswered: BTreeSet<SourceCode>,
    /// The most connections open from this host at once to a service that does not say so itself; 0 for no bound.
    pub max_connections: u32,
    /// The ids of the cgroups that allow lists name, by path. One that is not here does not exist.
    pub cgroups: BTreeMap<String, u64>,
    /// The ids of cgroups whose programs are left alone.
    pub excluded: BTreeSet<u64>,
    /// Which services clients on other machines are served with.
    pub exposed: Exposed,
    /// Ids of backends that are ejected for long, or full: not to be drawn while there are better ones.
    pub parked: BTreeSet<u32>,
    /// Ids of backends that the operator drains, whatever their source says.
    pub drained: BTreeSet<u32>,
}

/// Which services clients on other machines are served with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Exposed {
    /// None: there is no interface by which such clients could come.
    #[default]
    None,
    /// Those that say so themselves.
    Labelled,
    /// All.
    All,
}

impl Exposed {
    /// Whether a service is among them, by what it says itself.
    pub(super) const fn has(self, expose: bool) -> bool {
        match self {
            Self::None => false,
            Self::Labelled => expose,
            Self::All => true,
        }
    }
}

impl Desired {
    /// What the maps say, but for who is drained: for commands that work without an agent.
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

    /// Whether an address is one of this host.
    pub(super) fn is_local(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.addresses.contains(&address) || Address::from(address).is_loopback()
    }

    /// Whether all that services depend on, besides what they are themselves, is the same.
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

    /// Whether the service of an id stays because nobody who could has spoken of it yet.
    pub(super) fn keeps(&self, tables: &MapState, service: u32) -> bool {
        tables.services().get(&service).is_some_and(|entry| self.unanswered.contains(&entry.settings.source))
    }
}
