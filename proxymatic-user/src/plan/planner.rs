//! The plan: what is wanted against what there is, service by service.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use proxymatic_common::{
    Address, Backend, BackendState, Families, Features, Frontend, Name, Policy, Port, Service, Slot, SlotRange,
    SourceCode,
};

use super::{
    BackendEntry, Desired, MapOp, MapState, allow,
    builder::{MapFull, PlanBuilder},
    classes::Classes,
    maglev::{self, Preference},
    ports,
    retained::{apply_drain, plan_retained},
    settings::settings,
    slots::slots,
};
use crate::model::{self, ServiceKey, State, Warning, merge_join};

/// What to write, in order, and what cannot be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The writes. After any number of them, every service that had backends before and is to have some still has.
    pub ops: Vec<MapOp>,
    /// What was left as it is, and why.
    pub warnings: Vec<Warning>,
    /// The services that warnings are of: after these writes the maps do not say all that is wanted of them.
    pub incomplete: BTreeSet<ServiceKey>,
}

/// What to write so that the maps say what is wanted. Empty once they do.
pub fn plan(desired: &Desired, tables: &MapState) -> Plan {
    plan_changes(desired, tables, &Desired::default())
}

/// The same plan, without looking into services that are the same in `settled`, while all around them is: most of the
/// time a plan takes.
///
/// `settled` has what was wanted of an earlier plan that was carried out whole, without its [`Plan::unsettled`], while
/// nothing but plans and what quarantine releases has changed the tables since.
pub fn plan_changes(desired: &Desired, tables: &MapState, settled: &Desired) -> Plan {
    let mut draft = PlanBuilder::new(tables);
    let mut warnings = Vec::new();
    let classes = Classes::of(desired, tables);
    let unchanged = desired.same_environment(settled);
    let (mut found, mut unsettled) = (Vec::with_capacity(desired.services.len()), BTreeSet::new());
    for (key, wanted, known) in merge_join(&desired.services, &settled.services) {
        let Some((source, service)) = wanted else { continue };
        let said = warnings.len();
        let frontend = match classes.frontend(*key) {
            Ok(frontend) => frontend,
            Err(reason) => {
                warnings.push(Warning { app: service.name.clone(), reason });
                unsettled.insert(*key);
                continue;
            }
        };
        found.push(frontend);
        if unchanged && known == wanted && tables.frontends().contains_key(&frontend) {
            continue;
        }
        let mark = draft.ops.len();
        let wanted = ServiceSpec { desired, key: *key, source: *source, service };
        if let Err(small) = put_service(&mut draft, &mut warnings, frontend, wanted) {
            // Whole or not at all: what does not fit stays as it was.
            draft.ops.truncate(mark);
            warnings.truncate(said);
            warnings.push(Warning { app: service.name.clone(), reason: format!("service port {key} {small}") });
            // But for one that would be open to more clients than it is to be.
            if let Some(id) = tables.frontends().get(&frontend)
                && !allow::holds(&draft, desired, *id, service)
            {
                drop_service(&mut draft, frontend, *id);
            }
        }
        if warnings.len() > said {
            unsettled.insert(*key);
        }
    }
    found.sort_unstable();
    for (frontend, id) in tables.frontends() {
        if found.binary_search(frontend).is_ok() {
            continue;
        }
        if desired.keeps(tables, *id) {
            plan_retained(&mut draft, &mut warnings, desired, *frontend, *id);
        } else {
            drop_service(&mut draft, *frontend, *id);
        }
    }
    classes.put(&mut draft, &mut warnings);
    ports::put(&mut draft);
    put_excluded(&mut draft, &mut warnings, desired);
    let mut ops = draft.ops;
    ops.sort_by_key(MapOp::phase);
    Plan { ops, warnings, incomplete: unsettled }
}

/// One service that is wanted.
#[derive(Clone, Copy)]
struct ServiceSpec<'a> {
    desired: &'a Desired,
    key: ServiceKey,
    source: SourceCode,
    service: &'a model::Service,
}

fn put_service(
    draft: &mut PlanBuilder<'_>,
    warnings: &mut Vec<Warning>,
    frontend: Frontend,
    wanted: ServiceSpec<'_>,
) -> Result<(), MapFull> {
    let ServiceSpec { desired, key, source, service } = wanted;
    let known = draft.tables.service_at(&frontend);
    let id = match known {
        Some(id) => id,
        None => {
            let id = draft.take_service()?;
            draft.ops.push(MapOp::ResetServiceLoad(id));
            id
        }
    };
    let settings = settings(desired, key, source, service);
    let kept = put_backends(draft, desired, id, service)?;
    put_slots(draft, id, &settings, &kept)?;
    allow::put(draft, warnings, desired, id, service)?;
    let entry = draft.tables.services().get(&id);
    if entry.is_none_or(|entry| entry.settings != settings) {
        draft.ops.push(MapOp::PutService(id, settings));
    }
    let name = Name::truncate(&service.name);
    if entry.is_none_or(|entry| entry.name != name) {
        draft.ops.push(MapOp::PutServiceName(id, name.into_owned()));
    }
    if known.is_none() {
        draft.ops.push(MapOp::PutFrontend(frontend, id));
    }
    Ok(())
}

/// A backend that stays or comes: its slot, its weight as wanted, and whether it takes new connections.
pub(super) struct PlannedBackend {
    pub(super) slot: Slot,
    pub(super) preference: Preference,
    pub(super) weight: u32,
    pub(super) state: BackendState,
    /// Whether others are to be taken first.
    pub(super) rests: bool,
}

impl PlannedBackend {
    /// How often it is drawn: draining ones have no weights any more.
    const fn weight_in(&self, state: BackendState) -> u32 {
        if state.0 == BackendState::DRAINING.0 { 1 } else { self.weight }
    }
}

/// What makes a backend the same one: its task, and where that listens.
type Identity<'a> = (Cow<'a, str>, Address, Port);

fn put_backends(
    draft: &mut PlanBuilder<'_>,
    desired: &Desired,
    service: u32,
    wanted: &model::Service,
) -> Result<Vec<PlannedBackend>, MapFull> {
    let (mut known, twice) = known_backends(draft.tables, service);
    let mut kept = Vec::with_capacity(wanted.backends.len());
    for backend in &wanted.backends {
        let identity: Identity<'_> = (Name::truncate(&backend.task), backend.address.into(), Port::new(backend.port));
        let (id, entry) = match known.remove(&identity) {
            Some((id, entry)) => (id, Some(entry)),
            None => (draft.take_backend(desired)?, None),
        };
        let generation =
            entry.map_or(draft.tables.backend_generation(id).wrapping_add(1), |entry| entry.backend.generation);
        let new = encode_backend(desired, backend, service, generation);
        let new = apply_drain(new, desired.drained.contains(&id));
        match entry {
            None => {
                draft.ops.push(MapOp::ResetLoad(id));
                draft.ops.push(MapOp::PutBackendName(id, identity.0.into_owned()));
                draft.ops.push(MapOp::PutBackend(id, new));
            }
            Some(entry) => draft.ops.extend(change(id, &entry.backend, new)),
        }
        kept.push(PlannedBackend {
            slot: Slot::new(id, generation),
            preference: Preference::of(backend),
            weight: new.weight,
            state: new.state,
            rests: desired.parked.contains(&id),
        });
    }
    for (id, entry) in known.into_values().chain(twice) {
        draft.ops.push(MapOp::DemoteBackend(id, Backend { state: BackendState::GONE, ..entry.backend }));
    }
    Ok(kept)
}

type Known<'a> = (u32, &'a BackendEntry);

/// The backends of a service by what they are, and those that are there once more, as in damaged maps.
fn known_backends(tables: &MapState, service: u32) -> (BTreeMap<Identity<'_>, Known<'_>>, Vec<Known<'_>>) {
    let (mut known, mut twice) = (BTreeMap::new(), Vec::new());
    let ids = tables.services().get(&service).map(|service| &service.backends);
    let entries = ids.into_iter().flatten().filter_map(|id| Some((*id, tables.backends().get(id)?)));
    for (id, entry) in entries.filter(|(_, entry)| entry.backend.state != BackendState::GONE) {
        let identity = (Cow::from(entry.task.as_str()), entry.backend.address, entry.backend.port);
        twice.extend(known.insert(identity, (id, entry)));
    }
    (known, twice)
}

/// The write that makes a backend another, where it is. It is raised before the switch that names it, and lowered after
/// the one that does not.
pub(super) fn change(id: u32, old: &Backend, new: Backend) -> Option<MapOp> {
    if *old == new {
        return None;
    }
    Some(if rank(new.state) >= rank(old.state) { MapOp::PutBackend(id, new) } else { MapOp::DemoteBackend(id, new) })
}

/// How willing a state is.
const fn rank(state: BackendState) -> u8 {
    match state {
        BackendState::ACTIVE => 2,
        BackendState::DRAINING => 1,
        _ => 0,
    }
}

fn encode_backend(desired: &Desired, backend: &model::Backend, service: u32, generation: u32) -> Backend {
    let address = Address::from(backend.address);
    let told = match backend.state {
        State::Warming => BackendState::WARMING,
        State::Active if backend.weight.get() == 0 => BackendState::DRAINING,
        State::Active => BackendState::ACTIVE,
        State::Draining => BackendState::DRAINING,
    };
    Backend {
        address,
        port: Port::new(backend.port),
        families: Families::of(address),
        local: u8::from(desired.is_local(backend.address)),
        state: told,
        source_state: told,
        weight: u32::from(backend.weight.get()),
        price: Backend::price(u32::from(backend.weight.get())),
        maxconn: backend.maxconn,
        service,
        ..Backend::free(generation)
    }
}

/// The active ones that do not rest, by weight; where there are none, the active ones that do; where there are none either,
/// the draining ones, which are better than refusing.
///
/// What remote clients are served with is laid out for hashing, whatever the policy of sockets is: they are told apart by
/// address and port alone. But for taking turns, where each has to have its turn.
pub(super) fn put_slots(
    draft: &mut PlanBuilder<'_>,
    service: u32,
    settings: &Service,
    kept: &[PlannedBackend],
) -> Result<(), MapFull> {
    let policy = settings.policy;
    let hashes = policy.is_hashed() || (settings.features.has(Features::EXPOSE) && policy != Policy::ROUNDROBIN);
    let of = |state, rests: &[bool]| -> Vec<&PlannedBackend> {
        kept.iter().filter(|it| it.state == state && it.weight_in(state) > 0 && rests.contains(&it.rests)).collect()
    };
    let active = of(BackendState::ACTIVE, &[false]);
    let active = if active.is_empty() { of(BackendState::ACTIVE, &[true]) } else { active };
    let drawn = if active.is_empty() { of(BackendState::DRAINING, &[false, true]) } else { active };
    let wanted = if hashes {
        let entries: Vec<_> = drawn.iter().map(|it| (it.preference, it.slot, it.weight_in(it.state))).collect();
        maglev::table(&entries, kept.len())
    } else {
        slots(&drawn.iter().map(|it| (it.slot, it.weight_in(it.state))).collect::<Vec<_>>())
    };
    let now = draft.tables.services().get(&service).map_or(SlotRange::default(), |entry| entry.head);
    if draft.tables.slots_of(now) == wanted.as_slice() {
        return Ok(());
    }
    let generation = draft.tables.head_generation(service).wrapping_add(1);
    let base = if wanted.is_empty() { 0 } else { draft.take_slots(wanted.len() as u32)? };
    let head = SlotRange::new(generation, wanted.len() as u32, base);
    let has = draft.tables.capacity.slots;
    let head = head.ok_or(MapFull { map: "SLOTS", has, remedy: "start the agent with a larger --max-slots" })?;
    if !wanted.is_empty() {
        draft.ops.push(MapOp::PutSlots(base, wanted));
    }
    draft.ops.push(MapOp::PutSlotRange(service, head));
    Ok(())
}

/// The cgroups whose programs are left alone.
fn put_excluded(draft: &mut PlanBuilder<'_>, warnings: &mut Vec<Warning>, desired: &Desired) {
    let (known, has) = (draft.tables.excluded(), draft.tables.capacity.excluded as usize);
    if desired.excluded.len() > has {
        let wanted = desired.excluded.len();
        let reason = format!("{wanted} cgroups do not fit: EXCLUDED holds {has}; they stay as they were");
        warnings.push(Warning { app: "excluded cgroups".into(), reason });
        return;
    }
    draft.ops.extend(desired.excluded.difference(known).copied().map(MapOp::PutExcluded));
    draft.ops.extend(known.difference(&desired.excluded).copied().map(MapOp::DelExcluded));
}

/// Out of sight first. Head and slots stay: a hook may just have found the service.
fn drop_service(draft: &mut PlanBuilder<'_>, frontend: Frontend, id: u32) {
    draft.ops.push(MapOp::DelFrontend(frontend));
    let Some(service) = draft.tables.services().get(&id).filter(|entry| entry.frontend == Some(frontend)) else {
        return;
    };
    for id in &service.backends {
        if let Some(entry) = draft.tables.backends().get(id)
            && entry.backend.state != BackendState::GONE
        {
            draft.ops.push(MapOp::DemoteBackend(*id, Backend { state: BackendState::GONE, ..entry.backend }));
        }
    }
}
