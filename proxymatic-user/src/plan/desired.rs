//! What the maps should say.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use proxymatic_common::SourceCode;

use crate::model::{Service, ServiceKey};

/// What the maps should say: always whole, never a difference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The addresses of this host on which programs may dial services. Loopback ones are not listed: the hooks know
    /// them by their bits.
    pub addresses: BTreeSet<IpAddr>,
    /// The services, and who told us of each.
    pub services: BTreeMap<ServiceKey, (SourceCode, Service)>,
}
