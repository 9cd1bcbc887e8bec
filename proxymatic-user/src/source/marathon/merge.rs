//! Merges the tasks of all apps and pods that claim one service port, and warns of what looks like a mistake.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::{
    claim::{ClaimKind, PortClaim, ServiceClaim},
    ownership::{Chosen, Claimant, Ownership, service_text},
};
use crate::model::{
    Backend, GivenSettings, PREFIX, PortLabels, Service, ServiceKey, ShareList, Start, TaskState, TaskStatus, Warning,
    Weight, all_unreachable,
};

/// The identity of a backend: its task, and the address and port at which it listens.
pub(super) type Identity<'a> = (Cow<'a, str>, IpAddr, u16);

/// One task behind a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) status: TaskStatus,
    pub(super) weight: Weight,
    pub(super) maxconn: u32,
    /// When the task started, if no check covers it and it may be new.
    pub(super) unchecked: Option<Start>,
}

/// The services that were read so far, by service port and kind of claim.
#[derive(Debug)]
pub(super) struct Merge<'a> {
    /// Whether to serve ports that tasks have on their own hosts.
    expose_host: bool,
    services: BTreeMap<(ServiceKey, ClaimKind<'a>), ServiceBuilder<'a>>,
}

/// The services of one conversion.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) services: BTreeMap<ServiceKey, Arc<Service>>,
    pub(super) warnings: BTreeSet<Warning>,
    /// The apps and pods whose first versions decide the owner of a service.
    pub(super) undecided: BTreeSet<String>,
    /// Services with an app or pod that claims them and may not join them.
    pub(super) left_out: BTreeSet<(ServiceKey, String)>,
}

/// The apps that claim one service, in order of their ids.
///
/// One app claims most services. Lists take a tenth of the memory of sets for that, and clusters have many services.
#[derive(Debug, Default)]
struct ServiceBuilder<'a>(Vec<AppShare<'a>>);

/// What one app or pod claims of one service.
#[derive(Debug)]
struct AppShare<'a> {
    app: &'a str,
    /// Whether Marathon assigned the port, and the tasks do not have it on their own hosts.
    is_assigned: bool,
    /// Whether a claim is not made by a label.
    is_unmeant: bool,
    /// Whether tasks, by some definition, have the port on their own hosts, where they answer by themselves. They are not
    /// in the service, and take it from no other app.
    on_its_hosts: bool,
    /// Whether tasks, by some definition, may be in the service.
    is_served: bool,
    /// The labels for the service, by the present definition if that has the port.
    settings: GivenSettings,
    /// The label `share`, by the same definition.
    list: ShareList,
    members: BTreeMap<Identity<'a>, Member>,
}

impl<'a> Merge<'a> {
    pub(super) const fn new(expose_host: bool) -> Self {
        Self { expose_host, services: BTreeMap::new() }
    }

    /// Adds the claim of an app to a service. If an app has several definitions, the labels of the first one count.
    pub(super) fn claim(&mut self, claim: ServiceClaim<'a>, labels: &PortLabels) {
        let _ = self.share(claim, labels);
    }

    /// Adds a task of an app to a service, with the claim of its definition and the labels of that.
    pub(super) fn add(&mut self, claim: ServiceClaim<'a>, labels: &PortLabels, identity: Identity<'a>, member: Member) {
        let is_served = !claim.2.on_its_hosts || self.expose_host;
        let share = self.share(claim, labels);
        if is_served {
            share.members.insert(identity, member);
        }
    }

    /// Returns what an app claims of a service, with one claim more.
    fn share(&mut self, (key, kind, claim): ServiceClaim<'a>, labels: &PortLabels) -> &mut AppShare<'a> {
        let PortClaim { app, by_label, is_assigned, on_its_hosts } = claim;
        let on_its_hosts = on_its_hosts && !self.expose_host;
        let ServiceBuilder(shares) = self.services.entry((key, kind)).or_default();
        let at = shares.binary_search_by_key(&app, |share| share.app).unwrap_or_else(|at| {
            shares.insert(at, AppShare::new(app, labels));
            at
        });
        let share = &mut shares[at];
        share.is_assigned |= is_assigned && !on_its_hosts;
        share.is_unmeant |= !by_label && !on_its_hosts;
        share.on_its_hosts |= on_its_hosts;
        share.is_served |= !on_its_hosts;
        share
    }

    /// Returns the services, after every app was added.
    pub(super) fn services(self, ownership: &Ownership<'_>) -> Merged {
        let mut merged = Merged::default();
        let mut all = self.services.into_iter().peekable();
        while let Some(((key, kind), builder)) = all.next() {
            let mut kinds = vec![(kind, builder)];
            while let Some(((_, kind), builder)) = all.next_if(|((next, _), _)| *next == key) {
                kinds.push((kind, builder));
            }
            merged.add(key, &kinds, ownership);
        }
        merged
    }
}

impl Merged {
    /// Adds the service of a key, which apps claim in these ways.
    fn add(&mut self, key: ServiceKey, kinds: &[(ClaimKind<'_>, ServiceBuilder<'_>)], ownership: &Ownership<'_>) {
        // A service port comes before all names. The names of one port have one owner, whose name gets the port.
        let port = kinds.iter().find(|(kind, _)| *kind == ClaimKind::Port);
        let port = port.filter(|(_, builder)| builder.0.iter().any(|share| share.is_served));
        let claimants = match port {
            Some((_, builder)) => builder.claimants(),
            None => {
                let names = kinds.iter().filter(|(kind, _)| *kind != ClaimKind::Port);
                let all: BTreeMap<_, _> =
                    names.flat_map(|(_, builder)| builder.claimants()).map(|it| (it.app, it)).collect();
                all.into_values().collect()
            }
        };
        let chosen = ownership.choose(key, &claimants, &mut self.undecided);
        let has_owner = |builder: &ServiceBuilder<'_>| {
            chosen.is_some_and(|chosen| builder.0.iter().any(|share| share.app == chosen.owner.app))
        };
        let named = || kinds.iter().find(|(kind, builder)| *kind != ClaimKind::Port && has_owner(builder));
        let winner = port.or_else(named);
        let joined = winner.map(|(_, builder)| self.join(key, builder, chosen.as_ref(), ownership)).unwrap_or_default();
        self.warn_of_hosts(key, kinds, joined.iter().all(|share| !share.is_served));
        let Some((winning, _)) = winner else { return };
        for (kind, builder) in kinds {
            if let ClaimKind::Name(name) = kind
                && kind != winning
            {
                self.warnings.extend(conflict_warnings(key, name, builder, *winning, &joined));
            }
        }
        let owner = chosen.and_then(|chosen| Some((chosen, joined.iter().find(|it| it.app == chosen.owner.app)?)));
        let Some((chosen, owner)) = owner.filter(|_| joined.iter().any(|share| share.is_served)) else { return };
        self.warnings.extend(sharing_warning(key, &joined));
        let settings = owner.settings.clone().settings();
        for share in joined.iter().filter(|share| !share.members.is_empty()) {
            let differ = share.settings.differences(&settings);
            if !differ.is_empty() {
                let reason = settings_warning(key, &differ, owner.app);
                self.warnings.insert(Warning { app: share.app.to_owned(), reason });
            }
        }
        let name = match winning {
            ClaimKind::Port => owner.app.to_owned(),
            ClaimKind::Name(name) => format!("{name}:{}", key.port),
        };
        let certain = chosen.is_certain().then(|| owner.app.to_owned());
        let (backends, unchecked) = (backends(&joined), unchecked(&joined));
        self.services.insert(key, Service { name, owner: certain, backends, settings, unchecked }.into());
    }

    /// Returns the owner and the apps that join it, and adds a warning for each app that does not.
    fn join<'b, 'a>(
        &mut self,
        key: ServiceKey,
        builder: &'b ServiceBuilder<'a>,
        chosen: Option<&Chosen<'_>>,
        ownership: &Ownership<'_>,
    ) -> Vec<&'b AppShare<'a>> {
        let owner = chosen.and_then(|chosen| builder.0.iter().find(|share| share.app == chosen.owner.app));
        let (joined, left_out): (Vec<_>, Vec<_>) = builder
            .0
            .iter()
            .partition(|share| owner.is_some_and(|owner| ownership.may_join(owner.app, &owner.list, share.app)));
        for share in left_out.into_iter().filter(|share| share.is_served) {
            self.left_out.insert((key, share.app.to_owned()));
            let reason = ownership.left_out(key, chosen, share.claimant());
            self.warnings.insert(Warning { app: share.app.to_owned(), reason });
        }
        joined
    }

    /// Adds a warning for each app whose tasks have the service port on their own hosts. The tasks answer there by
    /// themselves, and no option asks for the port elsewhere. `all` is whether nothing else has the port.
    fn warn_of_hosts(&mut self, key: ServiceKey, kinds: &[(ClaimKind<'_>, ServiceBuilder<'_>)], all: bool) {
        let shares = kinds.iter().filter(|(kind, _)| *kind == ClaimKind::Port).flat_map(|(_, builder)| &builder.0);
        for share in shares.filter(|share| share.on_its_hosts) {
            let left_out = if all { "so it is not served" } else { "so they are not among its backends" };
            let reason = format!(
                "service port {key} is the port of its tasks on their own hosts, {left_out}; \
                 --expose-host serves it on every host"
            );
            self.warnings.insert(Warning { app: share.app.to_owned(), reason });
        }
    }
}

impl ServiceBuilder<'_> {
    fn claimants(&self) -> Vec<Claimant<'_>> {
        self.0.iter().map(AppShare::claimant).collect()
    }
}

impl<'a> AppShare<'a> {
    fn new(app: &'a str, labels: &PortLabels) -> Self {
        let (settings, list) = (labels.service.clone(), labels.share.clone());
        let (is_assigned, is_unmeant, on_its_hosts, is_served) = (false, false, false, false);
        Self { app, is_assigned, is_unmeant, on_its_hosts, is_served, settings, list, members: BTreeMap::new() }
    }

    const fn claimant(&self) -> Claimant<'a> {
        Claimant { app: self.app, is_assigned: self.is_assigned }
    }
}

/// Returns the backends of apps that share a service.
fn backends(joined: &[&AppShare<'_>]) -> Vec<Backend> {
    let members: BTreeMap<_, _> = joined.iter().flat_map(|share| &share.members).collect();
    let all_unreachable = all_unreachable(members.values().map(|member| member.status.condition));
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
    members.into_iter().filter_map(backend).collect()
}

/// Returns the start of each task of these apps that no check covers.
fn unchecked(joined: &[&AppShare<'_>]) -> BTreeMap<String, Start> {
    let members = joined.iter().flat_map(|share| &share.members);
    members.filter_map(|((task, ..), member)| Some((task.clone().into_owned(), member.unchecked?))).collect()
}

/// Returns a warning if several apps share a service port without a label that says so: most likely by mistake.
fn sharing_warning(key: ServiceKey, joined: &[&AppShare<'_>]) -> Option<Warning> {
    let unmeant: Vec<_> = joined.iter().filter(|share| share.is_unmeant).map(|share| share.app).collect();
    let first = unmeant.first().filter(|_| unmeant.len() > 1)?;
    let all = unmeant.join(" and ");
    let remedy = format!("if that is intended, add the label {PREFIX}<index>.servicePort={}", key.port);
    let reason = format!("service port {key} is claimed by {all}; their tasks share it; {remedy}");
    Some(Warning { app: (*first).to_owned(), reason })
}

/// Returns the warning for labels of an app that the owner of the service does not have.
fn settings_warning(key: ServiceKey, differ: &[&str], owner: &str) -> String {
    let (what, differ) = (service_text(key), differ.join(" and "));
    format!("{what}: the settings come from its owner {owner}, so {differ} of other apps has no effect; set it there")
}

/// Returns the warnings for a name that does not get its service port. None if the same tasks have the port anyway.
fn conflict_warnings(
    key: ServiceKey,
    name: &str,
    loser: &ServiceBuilder<'_>,
    by: ClaimKind<'_>,
    joined: &[&AppShare<'_>],
) -> Vec<Warning> {
    let same = loser.0.iter().all(|share| {
        let other = joined.iter().find(|other| other.app == share.app);
        other.is_some_and(|other| share.members.keys().all(|identity| other.members.contains_key(identity)))
    });
    if same {
        return Vec::new();
    }
    let port = key.port;
    let by = match by {
        ClaimKind::Name(other) => format!("{other}:{port}"),
        ClaimKind::Port => {
            let apps: Vec<_> = joined.iter().map(|share| share.app).collect();
            format!("the service port of {}", apps.join(" and "))
        }
    };
    let remedy = format!("give it another port, or a service port with the label {PREFIX}<index>.servicePort");
    let reason = format!(
        "the virtual address {name}:{port} is not served: names are served at their port on every host, and {key} is \
         {by}; {remedy}"
    );
    loser.0.iter().map(|share| Warning { app: share.app.to_owned(), reason: reason.clone() }).collect()
}
