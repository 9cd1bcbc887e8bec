//! What Marathon said of networks before 1.5.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{PortMapping, labels, or_default};

/// The part of `container.docker` that said something of the network.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Docker {
    /// `HOST`, `BRIDGE`, `USER` or `NONE`.
    #[serde(default, deserialize_with = "or_default")]
    pub network: String,
    /// The ports of the container.
    #[serde(default, deserialize_with = "or_default")]
    pub port_mappings: Vec<PortMapping>,
}

/// `ipAddress`: each task has an address of its own.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpPerTask {
    /// The ports there.
    #[serde(default, deserialize_with = "or_default")]
    pub discovery: Discovery,
}

/// `ipAddress.discovery`.
#[derive(Debug, Default, Deserialize)]
pub struct Discovery {
    /// The ports at the task's address.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<DiscoveryPort>,
}

/// One entry of `ipAddress.discovery.ports`. Marathon assigns none of them a service port.
#[derive(Debug, Default, Deserialize)]
pub struct DiscoveryPort {
    /// The port.
    #[serde(default, deserialize_with = "or_default")]
    pub number: i64,
    /// `tcp` or `udp`.
    #[serde(default, deserialize_with = "or_default")]
    pub protocol: String,
    /// Its labels.
    #[serde(default, deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
}
