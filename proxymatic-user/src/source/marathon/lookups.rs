//! The lookups that the conversion of a listing needs: earlier definitions and addresses of hosts.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU32,
    sync::Arc,
};

use super::{
    api::{App, Pod},
    claim_rules::ClaimRules,
    server_clock::ServerClock,
};
use crate::model::Snapshot;

/// One version of one definition: the id of the app or pod, and the version.
pub type AppVersion = (String, String);

/// The definitions of apps or pods that were looked up; an error is a sentence that says why there is none.
pub type Definitions<T> = BTreeMap<AppVersion, Result<Arc<T>, String>>;

/// What must be looked up before a listing can be converted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct RequiredLookups {
    /// Earlier definitions of apps that tasks still run.
    pub definitions: BTreeSet<AppVersion>,
    /// Earlier definitions of pods that instances still run.
    pub pods: BTreeSet<AppVersion>,
    /// Names of hosts that need an address.
    pub hosts: BTreeSet<String>,
}

/// The results of the lookups; an error is a sentence that says why there is no result.
#[derive(Debug, Default)]
pub struct Lookups {
    /// Earlier definitions of apps.
    pub definitions: Definitions<App>,
    /// Earlier definitions of pods.
    pub pods: Definitions<Pod>,
    /// The addresses of hosts.
    pub hosts: BTreeMap<String, Result<IpAddr, String>>,
    /// The name servers of this host.
    pub name_servers: BTreeSet<IpAddr>,
    /// The clock of Marathon; `None` if it is not known.
    pub clock: Option<ServerClock>,
    /// What this host serves already. The owners of its services stay.
    pub served: Snapshot,
    /// The time of the first version of each app or pod that was asked for, in milliseconds since 1970.
    pub first_versions: BTreeMap<String, Result<i64, String>>,
}

impl Lookups {
    /// Returns the address of a host, which is an IP address or a name that was looked up.
    pub(super) fn host(&self, host: &str) -> Result<IpAddr, String> {
        if host.is_empty() {
            return Err("its host is missing, so its address is not known".into());
        }
        if let Some(address) = parse_address(host) {
            return Ok(address);
        }
        match self.hosts.get(host) {
            Some(Ok(address)) => Ok(*address),
            Some(Err(reason)) => Err(format!("its host {host:?} has no known address: {reason}")),
            None => Err(format!("its host {host:?} was not looked up")),
        }
    }
}

/// The options of the operator that hold for all apps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The number of hosts that share a `maxconn`.
    pub group_size: NonZeroU32,
    /// Whether to serve a service port that equals the host port of its tasks.
    pub expose_host: bool,
    /// What apps may claim.
    pub claims: Arc<ClaimRules>,
}

impl From<NonZeroU32> for Options {
    fn from(group_size: NonZeroU32) -> Self {
        Self { group_size, expose_host: false, claims: Arc::default() }
    }
}

/// Returns the address that a host is written as; `None` if it is a name. IPv6 may stand in brackets.
pub(super) fn parse_address(host: &str) -> Option<IpAddr> {
    host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host).parse().ok()
}
