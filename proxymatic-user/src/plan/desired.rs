//! What the maps should say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use proxymatic_common::SourceCode;

use super::Tables;
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
    pub silent: BTreeSet<SourceCode>,
}

impl Desired {
    /// Whether the service of an id stays because nobody who could has spoken of it yet.
    pub(super) fn keeps(&self, tables: &Tables, service: u32) -> bool {
        tables.services().get(&service).is_some_and(|entry| self.silent.contains(&entry.settings.source))
    }
}
