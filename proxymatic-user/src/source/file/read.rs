//! From the bytes of a file to a snapshot. Pure. Somebody writes this file by hand: what is wrong in it is said with its
//! line, and nothing of it is used until it is right.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZeroU16,
};

use serde::Deserialize;

use crate::model::{Backend, Policy, Protocol, Service, ServiceKey, Snapshot, State, Weight};

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML.
    Toml,
    /// JSON.
    Json,
}

/// Everything a file says.
///
/// # Errors
/// It is not as it should be: the rest of a sentence that began with the name of the file.
pub fn read(content: &[u8], format: Format) -> Result<Snapshot, String> {
    let text = std::str::from_utf8(content).map_err(|error| {
        let line = line_at(&content[..error.valid_up_to()]);
        format!("line {line}: is not text in UTF-8")
    })?;
    let document: Document = match format {
        Format::Toml => toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| line_at(&content[..span.start.min(content.len())]));
            said(line, error.message())
        })?,
        Format::Json => serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            let place = format!(" at line {} column {}", error.line(), error.column());
            said(Some(error.line()).filter(|line| *line > 0), message.strip_suffix(&place).unwrap_or(&message))
        })?,
    };
    let mut services = BTreeMap::<_, Service>::new();
    for Entry { key, service } in document.services {
        if let Some(first) = services.get(&key) {
            return Err(format!(
                "has service port {key} twice, as {:?} and as {:?}; give one of them",
                first.name, service.name
            ));
        }
        services.insert(key, service);
    }
    Ok(Snapshot { services, complaints: Vec::new() })
}

fn said(line: Option<usize>, message: &str) -> String {
    let message = message.trim().replace('\n', ", ");
    match line {
        Some(line) => format!("line {line}: {message}"),
        None => format!("cannot be used: {message}"),
    }
}

fn line_at(before: &[u8]) -> usize {
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

/// Without the list a file says nothing; no services at all is an empty list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    services: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(try_from = "ServiceWords")]
struct Entry {
    key: ServiceKey,
    service: Service,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceWords {
    name: String,
    port: Option<NonZeroU16>,
    address: Option<SocketAddr>,
    #[serde(default)]
    protocol: ProtocolWord,
    #[serde(default)]
    policy: PolicyWord,
    backends: Vec<BackendWords>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BackendWords {
    address: IpAddr,
    port: NonZeroU16,
    #[serde(default)]
    weight: WeightWord,
    #[serde(default)]
    maxconn: u32,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(try_from = "u16")]
struct WeightWord(Weight);

impl TryFrom<u16> for WeightWord {
    type Error = String;

    fn try_from(number: u16) -> Result<Self, String> {
        Weight::new(number).map(Self).ok_or_else(|| format!("weight {number}: must be 0 to 1000"))
    }
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ProtocolWord {
    #[default]
    Tcp,
    Udp,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum PolicyWord {
    #[default]
    Leastconn,
}

impl TryFrom<ServiceWords> for Entry {
    type Error = String;

    fn try_from(words: ServiceWords) -> Result<Self, String> {
        let ServiceWords { name, port, address, protocol, policy, backends } = words;
        if name.is_empty() {
            return Err("a service needs a name".into());
        }
        let protocol = match protocol {
            ProtocolWord::Tcp => Protocol::Tcp,
            ProtocolWord::Udp => Protocol::Udp,
        };
        let key = match (port, address) {
            (Some(port), None) => ServiceKey::host(port.get(), protocol),
            (None, Some(at)) if at.port() != 0 => {
                ServiceKey { address: Some(at.ip().to_canonical()), port: at.port(), protocol }
            }
            (None, Some(_)) => return Err(format!("service {name:?}: port 0 cannot be dialled")),
            (None, None) | (Some(_), Some(_)) => {
                return Err(format!(
                    "service {name:?} needs either a port, on every address of the host, or an address with a port, \
                     such as \"198.51.100.7:80\""
                ));
            }
        };
        let policy = match policy {
            PolicyWord::Leastconn => Policy::Leastconn,
        };
        let mut unique = BTreeMap::new();
        for backend in backends.into_iter().map(Backend::from) {
            if let Some(twice) = unique.insert((backend.task.clone(), backend.address, backend.port), backend) {
                return Err(format!("service {name:?} has backend {} twice; give it once, with a weight", twice.task));
            }
        }
        Ok(Self { key, service: Service { name, policy, backends: unique.into_values().collect() } })
    }
}

impl From<BackendWords> for Backend {
    fn from(words: BackendWords) -> Self {
        let BackendWords { address, port, weight: WeightWord(weight), maxconn } = words;
        let address = address.to_canonical();
        let at = SocketAddr::new(address, port.get());
        let state = if weight.get() == 0 { State::Draining } else { State::Active };
        Self { task: at.to_string(), address, port: at.port(), weight, maxconn, state }
    }
}

#[cfg(test)]
mod tests;
