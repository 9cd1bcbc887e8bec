//! Services that stay as they are because nobody who could has spoken of them yet: what changes of them all the same,
//! since it is not for a source to say.

use std::net::IpAddr;

use proxymatic_common::{Backend, BackendState, Features, Frontend, Slot};

use super::{
    Desired, MapOp,
    builder::{MapFull, PlanBuilder},
    maglev::Preference,
    planner::{PlannedBackend, change, put_slots},
};
use crate::model::Warning;

/// A backend as its source has it, or drained where the operator wishes it.
pub(super) const fn apply_drain(backend: Backend, drained: bool) -> Backend {
    let drains = drained && backend.source_state.0 == BackendState::ACTIVE.0;
    Backend { state: if drains { BackendState::DRAINING } else { backend.source_state }, ..backend }
}

/// Of a service that stays: which of its backends are on this host, since addresses come and go, and which of them the
/// operator drains.
pub(super) fn plan_retained(
    draft: &mut PlanBuilder<'_>,
    warnings: &mut Vec<Warning>,
    desired: &Desired,
    frontend: Frontend,
    id: u32,
) {
    let Some(entry) = draft.tables.services().get(&id) else { return };
    let mut settings = entry.settings;
    settings.features = Features(settings.features.0 & !Features::OWN_LISTENER.0);
    let (mut ops, mut kept, mut moved) = (Vec::new(), Vec::new(), false);
    for id in &entry.backends {
        let Some(known) = draft.tables.backends().get(id) else { continue };
        let old = &known.backend;
        if old.state == BackendState::GONE {
            continue;
        }
        let local = desired.is_local(old.address.into());
        let new = apply_drain(Backend { local: u8::from(local), ..*old }, desired.drained.contains(id));
        moved |= new.state != old.state;
        ops.extend(change(*id, old, new));
        kept.push(PlannedBackend {
            slot: Slot::new(*id, new.generation),
            preference: Preference::at(&known.task, IpAddr::from(new.address), new.port.get()),
            weight: new.weight,
            state: new.state,
            rests: desired.parked.contains(id),
        });
        if local && old.port == frontend.port {
            settings.features = settings.features.with(Features::OWN_LISTENER);
        }
    }
    let mark = draft.ops.len();
    draft.ops.extend(ops);
    if moved && let Err(small) = put_slots(draft, id, &settings, &kept) {
        too_small(draft, warnings, mark, &entry.name, &small);
    }
    if settings != entry.settings {
        draft.ops.push(MapOp::PutService(id, settings));
    }
}

/// Whole or not at all.
fn too_small(draft: &mut PlanBuilder<'_>, warnings: &mut Vec<Warning>, mark: usize, name: &str, small: &MapFull) {
    draft.ops.truncate(mark);
    warnings.push(Warning { app: name.into(), reason: format!("what the operator drains {small}") });
}
