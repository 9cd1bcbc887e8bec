//! The JSON of networks before Marathon 1.5.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{
    lenient::{labels, or_default},
    port::PortMapping,
};

/// The fields of `container.docker` that describe the network.
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
    /// The ports at that address.
    #[serde(default, deserialize_with = "or_default")]
    pub discovery: Discovery,
}

/// `ipAddress.discovery`.
#[derive(Debug, Default, Deserialize)]
pub struct Discovery {
    /// The ports at the address of the task.
    #[serde(default, deserialize_with = "or_default")]
    pub ports: Vec<DiscoveryPort>,
}

/// One entry of `ipAddress.discovery.ports`. Marathon assigns it no service port.
#[derive(Debug, Default, Deserialize)]
pub struct DiscoveryPort {
    /// The port.
    #[serde(default, deserialize_with = "or_default")]
    pub number: i64,
    /// `tcp` or `udp`.
    #[serde(default, deserialize_with = "or_default")]
    pub protocol: String,
    /// The labels of the port.
    #[serde(default, deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
}
