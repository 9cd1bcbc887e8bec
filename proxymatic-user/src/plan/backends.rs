//! The backends of a planned service: their state, and the slots that name them.

use proxymatic_common::{Backend, BackendState, Features, Service, Slot, SlotLayout, SlotRange};

use super::{
    MapOp,
    builder::{MapFull, PlanBuilder},
    maglev::{self, Preference},
    slots::slots,
};

/// A backend of the new plan: its slot, its weight, and whether it takes new connections.
pub(super) struct PlannedBackend {
    pub(super) slot: Slot,
    pub(super) preference: Preference,
    pub(super) weight: u32,
    pub(super) state: BackendState,
    /// Whether other backends are drawn first.
    pub(super) parked: bool,
}

impl PlannedBackend {
    /// Returns the weight for the slots of a state: the weight of draining backends does not count any more.
    const fn weight_in(&self, state: BackendState) -> u32 {
        if state.0 == BackendState::DRAINING.0 { 1 } else { self.weight }
    }
}

/// Returns the backend in the state of its source, or draining if the operator drains it.
pub(super) const fn apply_drain(backend: Backend, drained: bool) -> Backend {
    let drains = drained && backend.source_state.0 == BackendState::ACTIVE.0;
    Backend { state: if drains { BackendState::DRAINING } else { backend.source_state }, ..backend }
}

/// Returns the write that changes a backend in place. It comes before the switch that adds the backend, or after the
/// switch that removes it.
pub(super) fn change(id: u32, old: &Backend, new: Backend) -> Option<MapOp> {
    if *old == new {
        return None;
    }
    Some(if rank(new.state) >= rank(old.state) { MapOp::PutBackend(id, new) } else { MapOp::DemoteBackend(id, new) })
}

/// Ranks a state by the traffic that it takes.
const fn rank(state: BackendState) -> u8 {
    match state {
        BackendState::ACTIVE => 2,
        BackendState::DRAINING => 1,
        _ => 0,
    }
}

/// Adds the writes for the slots of a service. They hold the active backends that are not parked, by weight. If there
/// are none, they hold the parked ones; else the draining ones, which are better than a refusal.
pub(super) fn put_slots(
    builder: &mut PlanBuilder<'_>,
    service: u32,
    settings: &Service,
    planned: &[PlannedBackend],
) -> Result<(), MapFull> {
    let of = |state, parked: &[bool]| -> Vec<&PlannedBackend> {
        planned
            .iter()
            .filter(|it| it.state == state && it.weight_in(state) > 0 && parked.contains(&it.parked))
            .collect()
    };
    let active = of(BackendState::ACTIVE, &[false]);
    let active = if active.is_empty() { of(BackendState::ACTIVE, &[true]) } else { active };
    let drawn = if active.is_empty() { of(BackendState::DRAINING, &[false, true]) } else { active };
    let new_slots = match settings.policy.slot_layout(settings.features.has(Features::EXPOSE)) {
        SlotLayout::ByWeight => slots(&drawn.iter().map(|it| (it.slot, it.weight_in(it.state))).collect::<Vec<_>>()),
        SlotLayout::MaglevTable => {
            let entries: Vec<_> = drawn.iter().map(|it| (it.preference, it.slot, it.weight_in(it.state))).collect();
            maglev::table(&entries, planned.len())
        }
    };
    let now = builder.tables.services().get(&service).map_or(SlotRange::default(), |entry| entry.slot_range);
    if builder.tables.slots_of(now) == new_slots.as_slice() {
        return Ok(());
    }
    let generation = builder.tables.head_generation(service).wrapping_add(1);
    let base = if new_slots.is_empty() { 0 } else { builder.take_slots(new_slots.len() as u32)? };
    let head = SlotRange::new(generation, new_slots.len() as u32, base);
    let has = builder.tables.capacity.slots;
    let head = head.ok_or(MapFull { map: "SLOTS", has, remedy: "start the agent with a larger --max-slots" })?;
    if !new_slots.is_empty() {
        builder.ops.push(MapOp::PutSlots(base, new_slots));
    }
    builder.ops.push(MapOp::PutSlotRange(service, head));
    Ok(())
}
