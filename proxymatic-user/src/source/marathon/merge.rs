//! Puts the tasks of all apps that name one service port together, and says where that looks like a mistake.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::model::{Backend, Complaint, Condition, PREFIX, Policy, Service, ServiceKey, Vitals, Weight, cut_off};

/// What makes a backend the same backend: its task, and where it listens.
pub(super) type Identity<'a> = (&'a str, IpAddr, u16);

/// One port of one app that asks for a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim<'a> {
    /// The app.
    pub(super) app: &'a str,
    /// The index of its port.
    pub(super) index: usize,
    /// Whether a label asks for it: then sharing it is meant.
    pub(super) by_label: bool,
}

/// One task behind a service port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Replica {
    pub(super) vitals: Vitals,
    pub(super) weight: Weight,
    pub(super) maxconn: u32,
}

/// Everything that was read so far, by service port.
#[derive(Debug, Default)]
pub(super) struct Merge<'a>(BTreeMap<ServiceKey, Draft<'a>>);

#[derive(Debug, Default)]
struct Draft<'a> {
    claims: BTreeSet<Claim<'a>>,
    replicas: BTreeMap<Identity<'a>, Replica>,
}

impl<'a> Merge<'a> {
    /// Notes that an app asks for a service port.
    pub(super) fn claim(&mut self, key: ServiceKey, claim: Claim<'a>) {
        self.0.entry(key).or_default().claims.insert(claim);
    }

    /// Puts a task behind a service port.
    pub(super) fn add(&mut self, key: ServiceKey, identity: Identity<'a>, replica: Replica) {
        self.0.entry(key).or_default().replicas.insert(identity, replica);
    }

    /// The services, now that every app is in.
    pub(super) fn services(&self, complaints: &mut BTreeSet<Complaint>) -> BTreeMap<ServiceKey, Service> {
        let finish = |(key, draft): (&ServiceKey, &Draft<'_>)| {
            complaints.extend(conflict(*key, &draft.claims));
            let name = draft.claims.first().map_or_else(String::new, |claim| claim.app.to_owned());
            (*key, Service { name, policy: Policy::default(), backends: draft.backends() })
        };
        self.0.iter().map(finish).collect()
    }
}

impl Draft<'_> {
    fn backends(&self) -> Vec<Backend> {
        let cut_off = cut_off(self.replicas.values().map(|replica| replica.vitals.condition));
        let backend = |(identity, replica): (&Identity<'_>, &Replica)| {
            let mut vitals = replica.vitals;
            if cut_off && vitals.condition == Condition::Unreachable {
                vitals.condition = Condition::Running;
            }
            let (task, address, port) = *identity;
            let Replica { weight, maxconn, .. } = *replica;
            Some(Backend { task: task.to_owned(), address, port, weight, maxconn, state: vitals.state(weight)? })
        };
        self.replicas.iter().filter_map(backend).collect()
    }
}

/// Apps that share a service port without having been told to, most likely by mistake.
fn conflict(key: ServiceKey, claims: &BTreeSet<Claim<'_>>) -> Option<Complaint> {
    let unmeant: BTreeSet<_> = claims.iter().filter(|claim| !claim.by_label).map(|claim| claim.app).collect();
    let first = unmeant.first().filter(|_| unmeant.len() > 1)?;
    let all = unmeant.iter().copied().collect::<Vec<_>>().join(" and ");
    let remedy = format!("if that is meant, say so with the label {PREFIX}<index>.servicePort={}", key.port);
    let reason = format!("service port {key} is claimed by {all}; their tasks share it; {remedy}");
    Some(Complaint { app: (*first).to_owned(), reason })
}
