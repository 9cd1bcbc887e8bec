//! Converts the bytes of a file to a snapshot: [`parse`] it, resolve its [names](Listing::host_names), and
//! [convert](Listing::convert) it. Pure.
//!
//! People write this file by hand: an error names its line, and no part of a file with an error is used.

mod host;
mod service;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use serde::Deserialize;

use self::{
    host::Host,
    service::{BackendToml, ProtocolToml, ServiceToml, WeightToml},
};
use crate::model::{Backend, Protocol, Service, ServiceKey, Settings, Snapshot, State, Warning, Weight};

/// The format of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

/// The content of a file. Its backends may be on hosts that are names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing(BTreeMap<ServiceKey, Listed>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    name: String,
    settings: Settings,
    /// The weight and maxconn of each backend, by its host and port.
    backends: BTreeMap<(Host, u16), (Weight, u32)>,
}

impl Listing {
    /// Returns the names of hosts that need an address.
    pub fn host_names(&self) -> impl Iterator<Item = &str> {
        self.0.values().flat_map(|service| service.backends.keys()).filter_map(|(host, _)| match host {
            Host::Address(_) => None,
            Host::Name(name) => Some(name.as_str()),
        })
    }

    /// Returns the snapshot for these addresses of hosts. The backends of a host with an error are left out, with a warning.
    pub fn convert(&self, hosts: &BTreeMap<String, Result<IpAddr, String>>) -> Snapshot {
        let (mut services, mut warnings) = (BTreeMap::new(), BTreeSet::new());
        for (key, Listed { name, settings, backends }) in &self.0 {
            let mut found = Vec::new();
            for ((host, port), (weight, maxconn)) in backends {
                let (task, address) = match host {
                    Host::Address(address) => (SocketAddr::new(*address, *port).to_string(), Ok(*address)),
                    Host::Name(host) => {
                        let unknown = || Err("it was not looked up".into());
                        let address = hosts.get(host).cloned().unwrap_or_else(unknown);
                        (
                            format!("{host}:{port}"),
                            address.map_err(|reason| format!("{host:?} has no address: {reason}")),
                        )
                    }
                };
                match address {
                    Ok(address) => {
                        let state = if weight.get() == 0 { State::Draining } else { State::Active };
                        let (address, port, weight, maxconn) = (address.to_canonical(), *port, *weight, *maxconn);
                        found.push(Backend { task, address, port, weight, maxconn, state });
                    }
                    Err(reason) => {
                        warnings.insert(Warning { app: name.clone(), reason: format!("backend {task}: {reason}") });
                    }
                }
            }
            let service = Service { name: name.clone(), owner: None, settings: settings.clone(), backends: found };
            services.insert(*key, service.into());
        }
        Snapshot { services, warnings: warnings.into_iter().collect() }
    }
}

/// Parses a file.
///
/// # Errors
/// The file has an error; the text is the rest of a sentence that begins with the name of the file.
pub fn parse(content: &[u8], format: Format) -> Result<Listing, String> {
    let text = std::str::from_utf8(content).map_err(|error| {
        let line = line_at(&content[..error.valid_up_to()]);
        format!("line {line}: is not text in UTF-8")
    })?;
    let document: Document = match format {
        Format::Toml => toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| line_at(&content[..span.start.min(content.len())]));
            at_line(line, error.message())
        })?,
        Format::Json => serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            at_line(Some(error.line()).filter(|line| *line > 0), message.strip_suffix(&place).unwrap_or(&message))
        })?,
    };
    let mut services = BTreeMap::<_, Listed>::new();
    for Entry { key, service } in document.services {
        if let Some(first) = services.get(&key) {
            return Err(format!(
                "has service port {key} twice, as {:?} and as {:?}; give one of them",
                first.name, service.name
            ));
        }
        services.insert(key, service);
    }
    Ok(Listing(services))
}

/// Returns the message with its line, if it is known.
fn at_line(line: Option<usize>, message: &str) -> String {
    let message = message.trim().replace('\n', ", ");
    match line {
        Some(line) => format!("line {line}: {message}"),
        None => format!("cannot be used: {message}"),
    }
}

/// Returns the number of the line that follows these bytes.
fn line_at(before: &[u8]) -> usize {
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The list is required. A file without services has an empty list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    services: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(try_from = "ServiceToml")]
struct Entry {
    key: ServiceKey,
    service: Listed,
}

impl TryFrom<ServiceToml> for Entry {
    type Error = String;

    fn try_from(service: ServiceToml) -> Result<Self, String> {
        let ServiceToml { name, port, address, protocol, settings, backends } = service;
        let settings = settings.settings();
        if name.is_empty() {
            return Err("a service needs a name".into());
        }
        let protocol = match protocol {
            ProtocolToml::Tcp => Protocol::Tcp,
            ProtocolToml::Udp => Protocol::Udp,
        };
        let key = match (port, address) {
            (Some(port), None) => ServiceKey::host(port.get(), protocol),
            (None, Some(at)) if at.port() != 0 => {
                ServiceKey { address: Some(at.ip().to_canonical()), port: at.port(), protocol }
            }
            (None, Some(_)) => return Err(format!("service {name:?}: port 0 cannot be connected to")),
            (None, None) | (Some(_), Some(_)) => {
                return Err(format!(
                    "service {name:?} needs either a port, on every address of the host, or an address with a port, \
                     such as \"198.51.100.7:80\""
                ));
            }
        };
        let mut unique = BTreeMap::new();
        for BackendToml { address, port, weight: WeightToml(weight), maxconn } in backends {
            if unique.insert((address.clone(), port.get()), (weight, maxconn)).is_some() {
                let at = match address {
                    Host::Address(address) => SocketAddr::new(address, port.get()).to_string(),
                    Host::Name(host) => format!("{host}:{port}"),
                };
                return Err(format!("service {name:?} has backend {at} twice; give it once, with a weight"));
            }
        }
        Ok(Self { key, service: Listed { name, settings, backends: unique } })
    }
}

#[cfg(test)]
mod tests;
