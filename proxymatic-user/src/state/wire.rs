//! The serialized types of the state. They are separate from the model, so that the model may change and files of this
//! version stay readable: an unknown field is skipped, and a missing one has its default. Only what identifies a
//! service, a backend or a drain has no default.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    num::NonZeroU16,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{Drained, Saved, State};
use crate::{
    model::{self, SavedSettings, ServiceKey, Snapshot, Warning, Weight},
    source::SourceId,
};

/// The body of the file.
#[derive(Serialize, Deserialize)]
pub(super) struct Body {
    #[serde(default)]
    sources: BTreeMap<String, Source>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    drained: Vec<DrainedBackend>,
}

#[derive(Serialize, Deserialize)]
struct DrainedBackend {
    service: Key,
    task: String,
    address: IpAddr,
    port: NonZeroU16,
}

#[derive(Serialize, Deserialize)]
struct Key {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    port: NonZeroU16,
    protocol: Protocol,
}

#[derive(Serialize, Deserialize)]
struct Source {
    #[serde(default)]
    of: BTreeSet<String>,
    #[serde(default)]
    answered_ms: u64,
    #[serde(default)]
    services: Vec<Service>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[derive(Serialize, Deserialize)]
struct Service {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    port: NonZeroU16,
    protocol: Protocol,
    #[serde(default)]
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    #[serde(default)]
    settings: SavedSettings,
    #[serde(default)]
    backends: Vec<Backend>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Protocol {
    Tcp,
    Udp,
}

#[derive(Serialize, Deserialize)]
struct Backend {
    task: String,
    address: IpAddr,
    port: NonZeroU16,
    #[serde(default = "default_weight")]
    weight: u16,
    #[serde(default)]
    maxconn: u32,
    #[serde(default)]
    state: BackendState,
}

fn default_weight() -> u16 {
    Weight::default().get()
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BackendState {
    Warming,
    #[default]
    Active,
    Draining,
}

impl From<&State> for Body {
    fn from(state: &State) -> Self {
        let source = |(id, saved): (&SourceId, &Saved)| {
            let Saved { of, answered_ms, snapshot: Snapshot { services, warnings } } = saved;
            let services = services.iter().filter_map(|(key, service)| Service::new(*key, service)).collect();
            (id.to_string(), Source { of: of.clone(), answered_ms: *answered_ms, services, warnings: warnings.clone() })
        };
        Self {
            sources: state.sources.iter().map(source).collect(),
            drained: state.drained.iter().filter_map(DrainedBackend::new).collect(),
        }
    }
}

impl Body {
    /// Converts to a state; `Err` names what the model does not know.
    pub(super) fn read(self) -> Result<State, String> {
        let source = |(name, source): (String, Source)| {
            let id = SourceId::ALL.into_iter().find(|id| id.to_string() == name);
            let id = id.ok_or_else(|| format!("there is no source {name:?}"))?;
            let services = source.services.into_iter().map(Service::read).collect::<Result<_, _>>()?;
            let snapshot = Snapshot { services, warnings: source.warnings };
            Ok((id, Saved { of: source.of, answered_ms: source.answered_ms, snapshot }))
        };
        Ok(State {
            sources: self.sources.into_iter().map(source).collect::<Result<_, String>>()?,
            drained: self.drained.into_iter().map(DrainedBackend::read).collect(),
        })
    }
}

impl DrainedBackend {
    fn new(Drained { service, task, address, port }: &Drained) -> Option<Self> {
        Some(Self {
            service: Key::new(*service)?,
            task: task.clone(),
            address: *address,
            port: NonZeroU16::new(*port)?,
        })
    }

    fn read(self) -> Drained {
        let Self { service, task, address, port } = self;
        Drained { service: service.read(), task, address, port: port.get() }
    }
}

impl Key {
    /// `None` for port 0, which no source returns.
    fn new(key: ServiceKey) -> Option<Self> {
        let protocol = match key.protocol {
            model::Protocol::Tcp => Protocol::Tcp,
            model::Protocol::Udp => Protocol::Udp,
        };
        Some(Self { address: key.address, port: NonZeroU16::new(key.port)?, protocol })
    }

    const fn read(self) -> ServiceKey {
        let protocol = match self.protocol {
            Protocol::Tcp => model::Protocol::Tcp,
            Protocol::Udp => model::Protocol::Udp,
        };
        ServiceKey { address: self.address, port: self.port.get(), protocol }
    }
}

impl Service {
    /// `None` if [`Key::new`] returns `None`.
    fn new(key: ServiceKey, service: &model::Service) -> Option<Self> {
        // A restored service is used at once, new or not.
        let model::Service { name, owner, backends, settings, unchecked: _ } = service;
        let Key { address, port, protocol } = Key::new(key)?;
        Some(Self {
            address,
            port,
            protocol,
            name: name.clone(),
            owner: owner.clone(),
            settings: settings.into(),
            backends: backends.iter().filter_map(Backend::new).collect(),
        })
    }

    fn read(self) -> Result<(ServiceKey, Arc<model::Service>), String> {
        let key = Key { address: self.address, port: self.port, protocol: self.protocol }.read();
        let wrong = |reason: String| format!("service {key}: {reason}");
        let settings = self.settings.restore().map_err(wrong)?;
        let mut backends: Vec<_> =
            self.backends.into_iter().map(Backend::read).collect::<Result<_, _>>().map_err(wrong)?;
        // The model requires this order, and the file may have another one.
        backends.sort_by(|a, b| identity(a).cmp(&identity(b)));
        backends.dedup_by(|a, b| identity(a) == identity(b));
        let (name, owner) = (self.name, self.owner);
        Ok((key, Arc::new(model::Service { name, owner, backends, settings, ..model::Service::default() })))
    }
}

fn identity(backend: &model::Backend) -> (&str, IpAddr, u16) {
    (&backend.task, backend.address, backend.port)
}

impl Backend {
    fn new(backend: &model::Backend) -> Option<Self> {
        let model::Backend { task, address, port, weight, maxconn, state } = backend;
        Some(Self {
            task: task.clone(),
            address: *address,
            port: NonZeroU16::new(*port)?,
            weight: weight.get(),
            maxconn: *maxconn,
            state: match state {
                model::State::Warming => BackendState::Warming,
                model::State::Active => BackendState::Active,
                model::State::Draining => BackendState::Draining,
            },
        })
    }

    fn read(self) -> Result<model::Backend, String> {
        let Self { task, address, port, weight, maxconn, state } = self;
        let weight = Weight::new(weight).ok_or_else(|| format!("{task} has weight {weight}"))?;
        let state = match state {
            BackendState::Warming => model::State::Warming,
            BackendState::Active => model::State::Active,
            BackendState::Draining => model::State::Draining,
        };
        Ok(model::Backend { task, address, port: port.get(), weight, maxconn, state })
    }
}
