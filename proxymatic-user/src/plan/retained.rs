//! Services whose source has not answered yet: kept, except for the fields that a source does not own.

use std::net::IpAddr;

use proxymatic_common::{Backend, BackendState, Features, Frontend, Slot};

use super::{
    Desired, MapOp,
    backends::{PlannedBackend, apply_drain, change, put_slots},
    builder::{MapFull, PlanBuilder},
    maglev::Preference,
};
use crate::model::Warning;

/// Plans a retained service: the host's addresses decide which of its backends are local, and the operator decides
/// which of them drain.
pub(super) fn plan_retained(
    builder: &mut PlanBuilder<'_>,
    warnings: &mut Vec<Warning>,
    desired: &Desired,
    frontend: Frontend,
    id: u32,
) {
    let Some(entry) = builder.tables.services().get(&id) else { return };
    let mut settings = entry.settings;
    settings.features = Features(settings.features.0 & !Features::OWN_LISTENER.0);
    let (mut ops, mut planned, mut moved) = (Vec::new(), Vec::new(), false);
    for id in &entry.backends {
        let Some(known) = builder.tables.backends().get(id) else { continue };
        let old = &known.backend;
        if old.state == BackendState::GONE {
            continue;
        }
        let local = desired.is_local(old.address.into());
        let new = apply_drain(Backend { local: u8::from(local), ..*old }, desired.drained.contains(id));
        moved |= new.state != old.state;
        ops.extend(change(*id, old, new));
        planned.push(PlannedBackend {
            slot: Slot::new(*id, new.generation),
            preference: Preference::at(&known.task, IpAddr::from(new.address), new.port.get()),
            weight: new.weight,
            state: new.state,
            parked: desired.parked.contains(id),
        });
        if local && old.port == frontend.port {
            settings.features = settings.features.with(Features::OWN_LISTENER);
        }
    }
    let mark = builder.ops.len();
    builder.ops.extend(ops);
    if moved && let Err(full) = put_slots(builder, id, &settings, &planned) {
        drop_writes(builder, warnings, mark, &entry.name, &full);
    }
    if settings != entry.settings {
        builder.ops.push(MapOp::PutService(id, settings));
    }
}

/// Removes the writes since `mark` and warns: a service changes as a whole or not at all.
fn drop_writes(builder: &mut PlanBuilder<'_>, warnings: &mut Vec<Warning>, mark: usize, name: &str, full: &MapFull) {
    builder.ops.truncate(mark);
    warnings.push(Warning { app: name.into(), reason: format!("the new slots for its drained backends: {full}") });
}
