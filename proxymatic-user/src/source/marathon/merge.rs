//! Merges the tasks of all apps and pods that claim one service port, and warns of what looks like a mistake.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::claim::{Owner, PortClaim, ServiceClaim};
use crate::model::{
    Backend, GivenSettings, PREFIX, Service, ServiceKey, Start, TaskState, TaskStatus, Warning, Weight, all_unreachable,
};

/// The identity of a backend: its task, and the address and port at which it listens.
pub(super) type Identity<'a> = (Cow<'a, str>, IpAddr, u16);

/// One task behind a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) status: TaskStatus,
    pub(super) weight: Weight,
    pub(super) maxconn: u32,
    /// When the task started, if no check speaks for it and it may be new.
    pub(super) unchecked: Option<Start>,
}

/// The services that were read so far, by service port and owner.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    /// Whether to serve ports that tasks have on their own hosts.
    expose_host: bool,
    services: BTreeMap<(ServiceKey, Owner<'a>), ServiceBuilder<'a>>,
}

/// The claims and members of one service.
///
/// One app claims most services. Lists take a tenth of the memory of sets for that, and clusters have many services.
#[derive(Debug, Default)]
struct ServiceBuilder<'a> {
    /// In order, without duplicates.
    claims: Vec<PortClaim<'a>>,
    /// The labels of each app for the service, by its present definition if that has the port. In order of apps.
    labels: Vec<(&'a str, GivenSettings)>,
    members: BTreeMap<Identity<'a>, Member>,
    /// The apps whose tasks have the port on their own hosts, where they answer by themselves. They are not in the service,
    /// and take it from no other app.
    on_their_hosts: BTreeSet<&'a str>,
}

impl<'a> Merge<'a> {
    pub(super) const fn new(expose_host: bool) -> Self {
        Self { expose_host, services: BTreeMap::new() }
    }

    /// Adds the claim of an app to a service port. If an app has several definitions, the labels of the first one count.
    pub(super) fn claim(&mut self, key: ServiceKey, owner: Owner<'a>, claim: PortClaim<'a>, labels: &GivenSettings) {
        let builder = self.services.entry((key, owner)).or_default();
        if claim.on_its_hosts && !self.expose_host {
            builder.on_their_hosts.insert(claim.app);
            return;
        }
        if let Err(at) = builder.claims.binary_search(&claim) {
            builder.claims.insert(at, claim);
        }
        if let Err(at) = builder.labels.binary_search_by_key(&claim.app, |(app, _)| app) {
            builder.labels.insert(at, (claim.app, labels.clone()));
        }
    }

    /// Adds a task of an app to a service port, with the claim of its definition and the labels of that.
    pub(super) fn add(
        &mut self,
        (key, owner, claim): ServiceClaim<'a>,
        labels: &GivenSettings,
        identity: Identity<'a>,
        member: Member,
    ) {
        self.claim(key, owner, claim, labels);
        if !claim.on_its_hosts || self.expose_host {
            self.services.entry((key, owner)).or_default().members.insert(identity, member);
        }
    }

    /// Returns the services, after every app was added.
    pub(super) fn services(self, warnings: &mut BTreeSet<Warning>) -> BTreeMap<ServiceKey, Arc<Service>> {
        let mut services = BTreeMap::new();
        let mut first: Option<(ServiceKey, Owner<'_>, ServiceBuilder<'_>)> = None;
        for ((key, owner), builder) in self.services {
            let all = builder.claims.is_empty();
            let on_hosts = builder.on_their_hosts.iter();
            warnings.extend(on_hosts.map(|app| Warning { app: (*app).to_owned(), reason: on_its_hosts(key, all) }));
            if all {
                continue;
            }
            // The owners of one service port are neighbours in this order, and the first one gets the port.
            if let Some((taken, by, winner)) = &first
                && *taken == key
            {
                warnings.extend(conflict_warnings(key, owner, &builder, *by, winner));
                continue;
            }
            let (_, _, builder) = first.insert((key, owner, builder));
            warnings.extend(sharing_warning(key, &builder.claims));
            let name = match owner {
                Owner::Port => builder.claims.first().map_or_else(String::new, |claim| claim.app.to_owned()),
                Owner::Name(name) => format!("{name}:{}", key.port),
            };
            let (labels, differences) = builder.labels(key);
            warnings.extend(differences);
            let (backends, unchecked) = (builder.backends(), builder.unchecked());
            services.insert(key, Service { name, backends, settings: labels.settings(), unchecked }.into());
        }
        services
    }
}

impl ServiceBuilder<'_> {
    /// Returns the labels of the apps together, and a warning for each app whose labels are ignored. If two apps
    /// disagree, the first in order of ids decides.
    fn labels(&self, key: ServiceKey) -> (GivenSettings, Vec<Warning>) {
        let mut labels = GivenSettings::default();
        let mut warnings = Vec::new();
        for (nth, (app, wanted)) in self.labels.iter().enumerate() {
            let differ = labels.merge(wanted);
            if differ.is_empty() {
                continue;
            }
            let first = self.labels[..nth].iter().map(|(app, _)| *app).collect::<Vec<_>>().join(" and ");
            let reason = format!(
                "service port {key}: its {} differs from that of {first}, which comes first and counts; give them the \
                 same labels",
                differ.join(" and ")
            );
            warnings.push(Warning { app: (*app).to_owned(), reason });
        }
        (labels, warnings)
    }

    fn unchecked(&self) -> BTreeMap<String, Start> {
        let start =
            |((task, ..), member): (&Identity<'_>, &Member)| Some((task.clone().into_owned(), member.unchecked?));
        self.members.iter().filter_map(start).collect()
    }

    fn backends(&self) -> Vec<Backend> {
        let all_unreachable = all_unreachable(self.members.values().map(|member| member.status.condition));
        let backend = |(identity, member): (&Identity<'_>, &Member)| {
            let mut status = member.status;
            if all_unreachable && status.condition == TaskState::Unreachable {
                status.condition = TaskState::Running;
            }
            let (task, address, port) = identity;
            let Member { weight, maxconn, .. } = *member;
            let state = status.state(weight)?;
            Some(Backend { task: task.clone().into_owned(), address: *address, port: *port, weight, maxconn, state })
        };
        self.members.iter().filter_map(backend).collect()
    }
}

/// Returns a warning if several apps share a service port without a label that says so: most likely by mistake.
fn sharing_warning(key: ServiceKey, claims: &[PortClaim<'_>]) -> Option<Warning> {
    let unmeant: BTreeSet<_> = claims.iter().filter(|claim| !claim.by_label).map(|claim| claim.app).collect();
    let first = unmeant.first().filter(|_| unmeant.len() > 1)?;
    let all = unmeant.iter().copied().collect::<Vec<_>>().join(" and ");
    let remedy = format!("if that is intended, add the label {PREFIX}<index>.servicePort={}", key.port);
    let reason = format!("service port {key} is claimed by {all}; their tasks share it; {remedy}");
    Some(Warning { app: (*first).to_owned(), reason })
}

/// Returns the warning for an app whose tasks have the service port on their own hosts. The tasks answer there by
/// themselves, and no option asks for the port elsewhere. `all` is whether no other app has the port.
fn on_its_hosts(key: ServiceKey, all: bool) -> String {
    let left_out = if all { "so it is not served" } else { "so they are not among its backends" };
    format!(
        "service port {key} is the port of its tasks on their own hosts, {left_out}; \
         --expose-host serves it on every host"
    )
}

/// Returns the warnings for a name that does not get its service port. None if the same tasks have the port anyway.
fn conflict_warnings(
    key: ServiceKey,
    owner: Owner<'_>,
    loser: &ServiceBuilder<'_>,
    by: Owner<'_>,
    winner: &ServiceBuilder<'_>,
) -> Vec<Warning> {
    let Owner::Name(name) = owner else { return Vec::new() };
    let has = |claim: &PortClaim<'_>| winner.claims.iter().any(|other| other.app == claim.app);
    let same = loser.claims.iter().all(has) && loser.members.keys().all(|it| winner.members.contains_key(it));
    if same {
        return Vec::new();
    }
    let port = key.port;
    let by = match by {
        Owner::Name(other) => format!("{other}:{port}"),
        Owner::Port => {
            let apps: BTreeSet<_> = winner.claims.iter().map(|claim| claim.app).collect();
            format!("the service port of {}", apps.into_iter().collect::<Vec<_>>().join(" and "))
        }
    };
    let remedy = format!("give it another port, or a service port with the label {PREFIX}<index>.servicePort");
    let reason = format!(
        "the virtual address {name}:{port} is not served: names are served at their port on every host, and {key} is \
         {by}; {remedy}"
    );
    loser.claims.iter().map(|claim| Warning { app: claim.app.to_owned(), reason: reason.clone() }).collect()
}
