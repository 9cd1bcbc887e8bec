//! The planner: compares the desired state with the map state, service by service.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use proxymatic_common::{Address, Backend, BackendState, Families, Frontend, Name, Port, Slot, SourceCode};

use super::{
    BackendEntry, Desired, MapOp, MapState, allow,
    backends::{PlannedBackend, apply_drain, change, put_slots},
    builder::{MapFull, PlanBuilder},
    classes::Classes,
    maglev::Preference,
    ports,
    retained::plan_retained,
    settings::settings,
};
use crate::model::{self, ServiceKey, State, Warning, merge_join};

/// The writes to make, in order, and what cannot be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The writes. After any prefix of them, every service with backends before and after the plan has backends.
    pub ops: Vec<MapOp>,
    /// What the plan leaves unchanged, and why.
    pub warnings: Vec<Warning>,
    /// The services with warnings: after the writes the maps do not hold their whole desired state.
    pub incomplete: BTreeSet<ServiceKey>,
}

/// Returns the writes that lead to the desired state. Empty if the maps already hold it.
pub fn plan(desired: &Desired, tables: &MapState) -> Plan {
    plan_changes(desired, tables, &Desired::default())
}

/// Returns the same plan as [`plan`], but faster: it skips services that are equal in `applied` if everything around
/// them is equal too. Looking into services takes most of the time of a plan.
///
/// `applied` is the desired state of an earlier plan whose writes were all carried out, without the services in its
/// [`Plan::incomplete`]. Since then only plans and the release of quarantine may have changed the map state.
pub fn plan_changes(desired: &Desired, tables: &MapState, applied: &Desired) -> Plan {
    let mut builder = PlanBuilder::new(tables);
    let mut warnings = Vec::new();
    let classes = Classes::assign(desired, tables);
    let unchanged = desired.same_environment(applied);
    let (mut published, mut incomplete) = (Vec::with_capacity(desired.services.len()), BTreeSet::new());
    for (key, wanted, known) in merge_join(&desired.services, &applied.services) {
        let Some((source, service)) = wanted else { continue };
        let warnings_before = warnings.len();
        let frontend = match classes.frontend(*key) {
            Ok(frontend) => frontend,
            Err(reason) => {
                warnings.push(Warning { app: service.name.clone(), reason });
                incomplete.insert(*key);
                continue;
            }
        };
        published.push(frontend);
        if unchanged && known == wanted && tables.frontends().contains_key(&frontend) {
            continue;
        }
        let mark = builder.ops.len();
        let spec = ServiceSpec { desired, key: *key, source: *source, service };
        if let Err(full) = put_service(&mut builder, &mut warnings, frontend, spec) {
            // A service changes as a whole or not at all: one that does not fit stays as it was.
            builder.ops.truncate(mark);
            warnings.truncate(warnings_before);
            warnings.push(Warning { app: service.name.clone(), reason: format!("service port {key} {full}") });
            // Exception: drop a service that would otherwise be open to clients that its allow list does not include.
            if let Some(id) = tables.frontends().get(&frontend)
                && !allow::is_applied(&builder, desired, *id, service)
            {
                drop_service(&mut builder, frontend, *id);
            }
        }
        if warnings.len() > warnings_before {
            incomplete.insert(*key);
        }
    }
    published.sort_unstable();
    for (frontend, id) in tables.frontends() {
        if published.binary_search(frontend).is_ok() {
            continue;
        }
        if desired.retains(tables, *id) {
            plan_retained(&mut builder, &mut warnings, desired, *frontend, *id);
        } else {
            drop_service(&mut builder, *frontend, *id);
        }
    }
    classes.put(&mut builder, &mut warnings);
    ports::put_port_bits(&mut builder);
    put_excluded(&mut builder, &mut warnings, desired);
    let mut ops = builder.ops;
    ops.sort_by_key(MapOp::phase);
    Plan { ops, warnings, incomplete }
}

/// A service of the desired state.
#[derive(Clone, Copy)]
struct ServiceSpec<'a> {
    desired: &'a Desired,
    key: ServiceKey,
    source: SourceCode,
    service: &'a model::Service,
}

fn put_service(
    builder: &mut PlanBuilder<'_>,
    warnings: &mut Vec<Warning>,
    frontend: Frontend,
    spec: ServiceSpec<'_>,
) -> Result<(), MapFull> {
    let ServiceSpec { desired, key, source, service } = spec;
    let known = builder.tables.service_at(&frontend);
    let id = match known {
        Some(id) => id,
        None => {
            let id = builder.take_service()?;
            builder.ops.push(MapOp::ResetServiceLoad(id));
            id
        }
    };
    let settings = settings(desired, key, source, service);
    let planned = put_backends(builder, desired, id, service)?;
    put_slots(builder, id, &settings, &planned)?;
    allow::put_list(builder, warnings, desired, id, service)?;
    let entry = builder.tables.services().get(&id);
    if entry.is_none_or(|entry| entry.settings != settings) {
        builder.ops.push(MapOp::PutService(id, settings));
    }
    let name = Name::truncate(&service.name);
    if entry.is_none_or(|entry| entry.name != name) {
        builder.ops.push(MapOp::PutServiceName(id, name.into_owned()));
    }
    if known.is_none() {
        builder.ops.push(MapOp::PutFrontend(frontend, id));
    }
    Ok(())
}

/// The identity of a backend: its task, its address and its port.
type Identity<'a> = (Cow<'a, str>, Address, Port);

fn put_backends(
    builder: &mut PlanBuilder<'_>,
    desired: &Desired,
    service: u32,
    wanted: &model::Service,
) -> Result<Vec<PlannedBackend>, MapFull> {
    let (mut known, duplicates) = known_backends(builder.tables, service);
    let mut planned = Vec::with_capacity(wanted.backends.len());
    for backend in &wanted.backends {
        let identity: Identity<'_> = (Name::truncate(&backend.task), backend.address.into(), Port::new(backend.port));
        let (id, entry) = match known.remove(&identity) {
            Some((id, entry)) => (id, Some(entry)),
            None => (builder.take_backend(desired)?, None),
        };
        let generation =
            entry.map_or(builder.tables.backend_generation(id).wrapping_add(1), |entry| entry.backend.generation);
        let new = encode_backend(desired, backend, service, generation);
        let new = apply_drain(new, desired.drained.contains(&id));
        match entry {
            None => {
                builder.ops.push(MapOp::ResetLoad(id));
                builder.ops.push(MapOp::PutBackendName(id, identity.0.into_owned()));
                builder.ops.push(MapOp::PutBackend(id, new));
            }
            Some(entry) => builder.ops.extend(change(id, &entry.backend, new)),
        }
        planned.push(PlannedBackend {
            slot: Slot::new(id, generation),
            preference: Preference::of(backend),
            weight: new.weight,
            state: new.state,
            parked: desired.parked.contains(&id),
        });
    }
    for (id, entry) in known.into_values().chain(duplicates) {
        builder.ops.push(MapOp::DemoteBackend(id, Backend { state: BackendState::GONE, ..entry.backend }));
    }
    Ok(planned)
}

type Known<'a> = (u32, &'a BackendEntry);

/// Returns the backends of a service by identity, and duplicates, which exist only in damaged maps.
fn known_backends(tables: &MapState, service: u32) -> (BTreeMap<Identity<'_>, Known<'_>>, Vec<Known<'_>>) {
    let (mut known, mut duplicates) = (BTreeMap::new(), Vec::new());
    let ids = tables.services().get(&service).map(|service| &service.backends);
    let entries = ids.into_iter().flatten().filter_map(|id| Some((*id, tables.backends().get(id)?)));
    for (id, entry) in entries.filter(|(_, entry)| entry.backend.state != BackendState::GONE) {
        let identity = (Cow::from(entry.task.as_str()), entry.backend.address, entry.backend.port);
        duplicates.extend(known.insert(identity, (id, entry)));
    }
    (known, duplicates)
}

fn encode_backend(desired: &Desired, backend: &model::Backend, service: u32, generation: u32) -> Backend {
    let address = Address::from(backend.address);
    let source_state = match backend.state {
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
        state: source_state,
        source_state,
        weight: u32::from(backend.weight.get()),
        inverse_weight: Backend::inverse_weight(u32::from(backend.weight.get())),
        maxconn: backend.maxconn,
        service,
        ..Backend::free(generation)
    }
}

/// Adds the writes for the cgroups whose programs the hooks leave alone.
fn put_excluded(builder: &mut PlanBuilder<'_>, warnings: &mut Vec<Warning>, desired: &Desired) {
    let (known, has) = (builder.tables.excluded(), builder.tables.capacity.excluded as usize);
    if desired.excluded.len() > has {
        let count = desired.excluded.len();
        let reason = format!("{count} cgroups do not fit: EXCLUDED holds {has}; they stay as they were");
        warnings.push(Warning { app: "excluded cgroups".into(), reason });
        return;
    }
    builder.ops.extend(desired.excluded.difference(known).copied().map(MapOp::PutExcluded));
    builder.ops.extend(known.difference(&desired.excluded).copied().map(MapOp::DelExcluded));
}

/// Withdraws the service first. Its slot range and slots stay, because a hook may have just read the frontend.
fn drop_service(builder: &mut PlanBuilder<'_>, frontend: Frontend, id: u32) {
    builder.ops.push(MapOp::DelFrontend(frontend));
    let Some(service) = builder.tables.services().get(&id).filter(|entry| entry.frontend == Some(frontend)) else {
        return;
    };
    for id in &service.backends {
        if let Some(entry) = builder.tables.backends().get(id)
            && entry.backend.state != BackendState::GONE
        {
            builder.ops.push(MapOp::DemoteBackend(*id, Backend { state: BackendState::GONE, ..entry.backend }));
        }
    }
}
