//! The JSON of an app's ports.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::lenient::{labels, or_default};

/// One entry of `container.portMappings`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The port in the container; 0 if it is the same as the host port.
    #[serde(default, deserialize_with = "or_default")]
    pub container_port: i64,
    /// The port of the host; absent for none, 0 for any.
    #[serde(default)]
    pub host_port: Option<i64>,
    /// The service port; 0 if none was assigned.
    #[serde(default, deserialize_with = "or_default")]
    pub service_port: i64,
    /// `tcp`, `udp` or both with a comma between them.
    #[serde(default, deserialize_with = "or_default")]
    pub protocol: String,
    /// The container networks of the port; empty for all of them.
    #[serde(default, deserialize_with = "or_default")]
    pub network_names: Vec<String>,
    /// The labels of the port.
    #[serde(default, deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
}

/// One entry of `portDefinitions`.
#[derive(Debug, Default, Deserialize)]
pub struct PortDefinition {
    /// The service port; 0 if none was assigned.
    #[serde(default, deserialize_with = "or_default")]
    pub port: i64,
    /// `tcp`, `udp` or both with a comma between them.
    #[serde(default, deserialize_with = "or_default")]
    pub protocol: String,
    /// The labels of the port.
    #[serde(default, deserialize_with = "labels")]
    pub labels: BTreeMap<String, String>,
}
