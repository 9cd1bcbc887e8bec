//! The plan: what is wanted against what there is, service by service.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use proxymatic_common::{
    Address, Backend, BackendState, Families, Frontend, Head, Name, Port, Service, Slot, SourceCode,
};

use super::{
    BackendEntry, Desired, MapOp, Services, Tables,
    classes::Classes,
    draft::{Draft, TooSmall},
    slots::slots,
};
use crate::model::{self, Complaint, ServiceKey, State, beside};

/// What to write, in order, and what cannot be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The writes. After any number of them, every service that had backends before and is to have some still has.
    pub ops: Vec<MapOp>,
    /// What was left as it is, and why.
    pub complaints: Vec<Complaint>,
    /// The services that complaints are of: after these writes the maps do not say all that is wanted of them.
    pub unsettled: BTreeSet<ServiceKey>,
}

/// What to write so that the maps say what is wanted. Empty once they do.
pub fn plan(desired: &Desired, tables: &Tables) -> Plan {
    plan_changes(desired, tables, &Services::new())
}

/// The same plan, without looking into services that are the same in `settled`: most of the time a plan takes.
///
/// `settled` has what was wanted of an earlier plan that was carried out whole, without its [`Plan::unsettled`], while
/// nothing but plans and what quarantine releases has changed the tables since.
pub fn plan_changes(desired: &Desired, tables: &Tables, settled: &Services) -> Plan {
    let mut draft = Draft::new(tables);
    let mut complaints = Vec::new();
    let classes = Classes::of(desired, tables);
    let (mut found, mut unsettled) = (Vec::with_capacity(desired.services.len()), BTreeSet::new());
    for (key, wanted, known) in beside(&desired.services, settled) {
        let Some((source, service)) = wanted else { continue };
        let (mark, complained) = (draft.ops.len(), complaints.len());
        let put = classes.frontend(*key).and_then(|frontend| {
            found.push(frontend);
            if known == wanted && tables.frontends().contains_key(&frontend) {
                return Ok(());
            }
            put_service(&mut draft, &mut complaints, frontend, *source, service)
                .map_err(|small| format!("service port {key} {small}"))
        });
        if let Err(reason) = put {
            // Whole or not at all: what does not fit stays as it was.
            draft.ops.truncate(mark);
            complaints.push(Complaint { app: service.name.clone(), reason });
        }
        if complaints.len() > complained {
            unsettled.insert(*key);
        }
    }
    found.sort_unstable();
    for (frontend, id) in tables.frontends() {
        if found.binary_search(frontend).is_err() && !desired.keeps(draft.tables, *id) {
            drop_service(&mut draft, *frontend, *id);
        }
    }
    classes.put(&mut draft, &mut complaints);
    let mut ops = draft.ops;
    ops.sort_by_key(MapOp::phase);
    Plan { ops, complaints, unsettled }
}

fn put_service(
    draft: &mut Draft<'_>,
    complaints: &mut Vec<Complaint>,
    frontend: Frontend,
    source: SourceCode,
    service: &model::Service,
) -> Result<(), TooSmall> {
    let known = draft.tables.frontends().get(&frontend).copied();
    let id = match known {
        Some(id) => id,
        None => draft.take_service()?,
    };
    let kept = put_backends(draft, complaints, id, service)?;
    put_slots(draft, id, &kept)?;
    let entry = draft.tables.services().get(&id);
    let settings = Service { policy: policy(service.policy), source };
    if entry.is_none_or(|entry| entry.settings != settings) {
        draft.ops.push(MapOp::PutService(id, settings));
    }
    let name = Name::cut(&service.name);
    if entry.is_none_or(|entry| entry.name != name) {
        draft.ops.push(MapOp::PutServiceName(id, name.into_owned()));
    }
    if known.is_none() {
        draft.ops.push(MapOp::PutFrontend(frontend, id));
    }
    Ok(())
}

const fn policy(policy: model::Policy) -> proxymatic_common::Policy {
    match policy {
        model::Policy::Leastconn => proxymatic_common::Policy::LEASTCONN,
    }
}

/// A backend that stays or comes: its slot, its weight as wanted, and whether it takes new connections.
struct Kept {
    slot: Slot,
    weight: u32,
    state: BackendState,
}

/// What makes a backend the same one: its task, and where that listens.
type Identity<'a> = (Cow<'a, str>, Address, Port);

fn put_backends(
    draft: &mut Draft<'_>,
    complaints: &mut Vec<Complaint>,
    service: u32,
    wanted: &model::Service,
) -> Result<Vec<Kept>, TooSmall> {
    let mut known = known_backends(draft.tables, service);
    let mut kept = Vec::with_capacity(wanted.backends.len());
    for backend in &wanted.backends {
        if backend.address.is_ipv6() {
            let reason = format!("{} is not used: this version forwards to IPv4 addresses only", backend.address);
            complaints.push(Complaint { app: backend.task.clone(), reason });
            continue;
        }
        let identity: Identity<'_> = (Name::cut(&backend.task), backend.address.into(), Port::new(backend.port));
        let (id, entry) = match known.remove(&identity) {
            Some((id, entry)) => (id, Some(entry)),
            None => (draft.take_backend()?, None),
        };
        let generation = entry.map_or(draft.tables.owners_of(id).wrapping_add(1), |entry| entry.backend.generation);
        let new = words(backend, service, generation);
        match entry {
            None => {
                draft.ops.push(MapOp::ResetLoad(id));
                draft.ops.push(MapOp::PutBackendName(id, identity.0.into_owned()));
                draft.ops.push(MapOp::PutBackend(id, new));
            }
            Some(entry) if entry.backend == new => {}
            Some(entry) if rank(new.state) >= rank(entry.backend.state) => draft.ops.push(MapOp::PutBackend(id, new)),
            Some(_) => draft.ops.push(MapOp::LowerBackend(id, new)),
        }
        kept.push(Kept { slot: Slot::new(id, generation), weight: u32::from(backend.weight.get()), state: new.state });
    }
    for (id, entry) in known.into_values() {
        draft.ops.push(MapOp::LowerBackend(id, Backend { state: BackendState::GONE, ..entry.backend }));
    }
    Ok(kept)
}

fn known_backends(tables: &Tables, service: u32) -> BTreeMap<Identity<'_>, (u32, &BackendEntry)> {
    let Some(service) = tables.services().get(&service) else { return BTreeMap::new() };
    let entries = service.backends.iter().filter_map(|id| Some((*id, tables.backends().get(id)?)));
    entries
        .filter(|(_, entry)| entry.backend.state != BackendState::GONE)
        .map(|(id, entry)| ((Cow::from(entry.task.as_str()), entry.backend.address, entry.backend.port), (id, entry)))
        .collect()
}

/// How willing a state is: a backend is raised before the switch that names it, and lowered after the one that
/// does not.
const fn rank(state: BackendState) -> u8 {
    match state {
        BackendState::ACTIVE => 2,
        BackendState::DRAINING => 1,
        _ => 0,
    }
}

fn words(backend: &model::Backend, service: u32, generation: u32) -> Backend {
    let address = Address::from(backend.address);
    Backend {
        address,
        port: Port::new(backend.port),
        families: Families::of(address),
        state: match backend.state {
            State::Warming => BackendState::WARMING,
            State::Active if backend.weight.get() == 0 => BackendState::DRAINING,
            State::Active => BackendState::ACTIVE,
            State::Draining => BackendState::DRAINING,
        },
        weight: u32::from(backend.weight.get()),
        maxconn: backend.maxconn,
        service,
        ..Backend::free(generation)
    }
}

/// The active ones by weight; where there are none, the draining ones, which are better than refusing.
fn put_slots(draft: &mut Draft<'_>, service: u32, kept: &[Kept]) -> Result<(), TooSmall> {
    let of = |state| kept.iter().filter(move |kept| kept.state == state);
    let active: Vec<_> = of(BackendState::ACTIVE).map(|kept| (kept.slot, kept.weight)).collect();
    let draining: Vec<_> = of(BackendState::DRAINING).map(|kept| (kept.slot, 1)).collect();
    let wanted = slots(if active.is_empty() { &draining } else { &active });
    let now = draft.tables.services().get(&service).map_or(Head::default(), |entry| entry.head);
    if draft.tables.slots_of(now) == wanted.as_slice() {
        return Ok(());
    }
    let generation = draft.tables.switches_of(service).wrapping_add(1);
    let base = if wanted.is_empty() { 0 } else { draft.take_slots(wanted.len() as u32)? };
    let head = Head::new(generation, wanted.len() as u32, base);
    let has = draft.tables.capacity.slots;
    let head = head.ok_or(TooSmall { map: "SLOTS", has, flag: "--max-slots" })?;
    if !wanted.is_empty() {
        draft.ops.push(MapOp::PutSlots(base, wanted));
    }
    draft.ops.push(MapOp::PutHead(service, head));
    Ok(())
}

/// Out of sight first. Head and slots stay: a hook may just have found the service.
fn drop_service(draft: &mut Draft<'_>, frontend: Frontend, id: u32) {
    draft.ops.push(MapOp::DelFrontend(frontend));
    let Some(service) = draft.tables.services().get(&id) else { return };
    for id in &service.backends {
        if let Some(entry) = draft.tables.backends().get(id)
            && entry.backend.state != BackendState::GONE
        {
            draft.ops.push(MapOp::LowerBackend(*id, Backend { state: BackendState::GONE, ..entry.backend }));
        }
    }
}
