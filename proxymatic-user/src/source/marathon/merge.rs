//! Puts the tasks of all apps that name one service port together, and says where that looks like a mistake.

mod owner;

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

pub(super) use self::owner::{Asked, Owner, asked};
use super::convert::Options;
use crate::model::{
    Backend, PREFIX, Service, ServiceKey, ServiceLabels, TaskState, TaskStatus, Warning, Weight, all_unreachable,
};

/// What makes a backend the same backend: its task, and where it listens.
pub(super) type Identity<'a> = (Cow<'a, str>, IpAddr, u16);

/// One app or pod that asks for a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortClaim<'a> {
    /// The app.
    pub(super) app: &'a str,
    /// Whether a label asks for it: then sharing it is meant.
    pub(super) by_label: bool,
    /// Whether its tasks have the very port on their hosts, by their definition.
    pub(super) on_its_hosts: bool,
}

/// One task behind a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) vitals: TaskStatus,
    pub(super) weight: Weight,
    pub(super) maxconn: u32,
}

/// Everything that was read so far, by service port and by what owns it.
#[derive(Debug, Default)]
pub(super) struct Merge<'a>(BTreeMap<(ServiceKey, Owner<'a>), ServiceBuilder<'a>>);

/// Most services are asked for by one app: lists take a tenth of what sets do for that, and clusters have many services.
#[derive(Debug, Default)]
struct ServiceBuilder<'a> {
    /// In order, each once.
    claims: Vec<PortClaim<'a>>,
    /// What each app asks of the service, by its present definition where that has the port. In order of apps.
    labels: Vec<(&'a str, ServiceLabels)>,
    replicas: BTreeMap<Identity<'a>, Member>,
}

impl<'a> Merge<'a> {
    /// Notes that an app asks for a service port. Of several definitions of an app, the labels of the first are followed.
    pub(super) fn claim(&mut self, key: ServiceKey, owner: Owner<'a>, claim: PortClaim<'a>, labels: &ServiceLabels) {
        let draft = self.0.entry((key, owner)).or_default();
        if let Err(at) = draft.claims.binary_search(&claim) {
            draft.claims.insert(at, claim);
        }
        if let Err(at) = draft.labels.binary_search_by_key(&claim.app, |(app, _)| app) {
            draft.labels.insert(at, (claim.app, labels.clone()));
        }
    }

    /// Puts a task behind a service port.
    pub(super) fn add(&mut self, key: ServiceKey, owner: Owner<'a>, identity: Identity<'a>, replica: Member) {
        self.0.entry((key, owner)).or_default().replicas.insert(identity, replica);
    }

    /// The services, now that every app is in.
    pub(super) fn services(
        self,
        rules: Options,
        warnings: &mut BTreeSet<Warning>,
    ) -> BTreeMap<ServiceKey, Arc<Service>> {
        let mut services = BTreeMap::new();
        let mut first: Option<(ServiceKey, Owner<'_>, ServiceBuilder<'_>)> = None;
        for ((key, owner), draft) in self.0 {
            // Owners of one service port follow each other: the first has it.
            if let Some((taken, by, winner)) = &first
                && *taken == key
            {
                warnings.extend(owner::conflict_warnings(key, owner, &draft, *by, winner));
                continue;
            }
            let (_, _, draft) = first.insert((key, owner, draft));
            if let Some(claim) = draft.claims.iter().find(|claim| claim.on_its_hosts && !rules.expose_host) {
                warnings.insert(Warning { app: claim.app.to_owned(), reason: not_exposed(key) });
                continue;
            }
            warnings.extend(conflict(key, &draft.claims));
            let name = match owner {
                Owner::Port => draft.claims.first().map_or_else(String::new, |claim| claim.app.to_owned()),
                Owner::Name(name) => format!("{name}:{}", key.port),
            };
            let (labels, differ) = draft.labels(key);
            warnings.extend(differ);
            services.insert(key, Service { name, backends: draft.backends(), settings: labels.settings() }.into());
        }
        services
    }
}

impl ServiceBuilder<'_> {
    /// What the apps ask of the service together: of two that want different things, the first in order of id has it.
    fn labels(&self, key: ServiceKey) -> (ServiceLabels, Vec<Warning>) {
        let mut labels = ServiceLabels::default();
        let mut warnings = Vec::new();
        for (nth, (app, wanted)) in self.labels.iter().enumerate() {
            let differ = labels.merge(wanted);
            if differ.is_empty() {
                continue;
            }
            let first = self.labels[..nth].iter().map(|(app, _)| *app).collect::<Vec<_>>().join(" and ");
            let reason = format!(
                "service port {key}: it asks for another {} than {first}, which comes first and is followed; give them \
                 the same labels",
                differ.join(" and ")
            );
            warnings.push(Warning { app: (*app).to_owned(), reason });
        }
        (labels, warnings)
    }

    fn backends(&self) -> Vec<Backend> {
        let all_unreachable = all_unreachable(self.replicas.values().map(|replica| replica.vitals.condition));
        let backend = |(identity, replica): (&Identity<'_>, &Member)| {
            let mut vitals = replica.vitals;
            if all_unreachable && vitals.condition == TaskState::Unreachable {
                vitals.condition = TaskState::Running;
            }
            let (task, address, port) = identity;
            let Member { weight, maxconn, .. } = *replica;
            let state = vitals.state(weight)?;
            Some(Backend { task: task.clone().into_owned(), address: *address, port: *port, weight, maxconn, state })
        };
        self.replicas.iter().filter_map(backend).collect()
    }
}

/// Apps that share a service port without having been told to, most likely by mistake.
fn conflict(key: ServiceKey, claims: &[PortClaim<'_>]) -> Option<Warning> {
    let unmeant: BTreeSet<_> = claims.iter().filter(|claim| !claim.by_label).map(|claim| claim.app).collect();
    let first = unmeant.first().filter(|_| unmeant.len() > 1)?;
    let all = unmeant.iter().copied().collect::<Vec<_>>().join(" and ");
    let remedy = format!("if that is meant, say so with the label {PREFIX}<index>.servicePort={}", key.port);
    let reason = format!("service port {key} is claimed by {all}; their tasks share it; {remedy}");
    Some(Warning { app: (*first).to_owned(), reason })
}

/// On its hosts such a service answers by itself; elsewhere nobody has asked for it.
fn not_exposed(key: ServiceKey) -> String {
    format!(
        "service port {key} is the port of its tasks on their own hosts, so it is left to them; \
         --expose-host serves it on every host"
    )
}
