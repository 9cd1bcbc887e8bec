//! Quarantine: the time before garbage may be used again.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use proxymatic_common::{Backend, BackendState, SlotRange, SourceCgroup};

use super::{Garbage, MapOp, MapState};

/// How long slots and ids stay unused before the agent assigns them again. A hook that read the old slot range is done
/// within microseconds; the rest of the time is for people who look at the maps, and a reserve against unknown delays.
pub const QUARANTINE: Duration = Duration::from_secs(5);

/// When each piece of garbage was first seen.
#[derive(Clone, Debug, Default)]
pub struct Quarantine {
    since: BTreeMap<Garbage, Instant>,
}

impl Quarantine {
    /// Returns the writes that free the garbage whose quarantine is over. A backend id that sockets still use stays,
    /// however long that takes.
    pub fn release(&mut self, tables: &MapState, active: impl Fn(u32) -> u64, now: Instant) -> Vec<MapOp> {
        self.since.retain(|garbage, _| tables.garbage().contains(garbage));
        let mut ops = Vec::new();
        for garbage in tables.garbage() {
            let since = *self.since.entry(*garbage).or_insert(now);
            if now.saturating_duration_since(since) >= QUARANTINE {
                free(tables, &active, *garbage, &mut ops);
            }
        }
        ops.sort_by_key(MapOp::phase);
        ops
    }
}

fn free(tables: &MapState, active: &impl Fn(u32) -> u64, garbage: Garbage, ops: &mut Vec<MapOp>) {
    match garbage {
        Garbage::Slots(base) => ops.push(MapOp::ClearSlots(base, tables.range_length(base))),
        Garbage::Backend(id) if active(id) == 0 => {
            ops.push(MapOp::DelBackendName(id));
            ops.push(MapOp::FreeBackend(id, Backend::free(tables.backend_generation(id))));
        }
        Garbage::Backend(_) => {}
        Garbage::Service(id) => {
            let Some(entry) = tables.services().get(&id) else { return };
            // The backends first, because they name the service. Some may still be active if an agent died while it
            // made the service.
            let backends = entry.backends.iter().filter_map(|id| Some((*id, tables.backends().get(id)?.backend)));
            ops.extend(
                backends
                    .filter(|(_, backend)| backend.state != BackendState::GONE)
                    .map(|(id, backend)| MapOp::DemoteBackend(id, Backend { state: BackendState::GONE, ..backend })),
            );
            if !entry.backends.is_empty() {
                return;
            }
            ops.extend(entry.allow.iter().copied().map(MapOp::DelAllow));
            ops.extend(
                entry
                    .allow_cgroups
                    .iter()
                    .map(|cgroup| MapOp::DelAllowCgroup(SourceCgroup { cgroup: *cgroup, service: id, _pad: 0 })),
            );
            if entry.slot_range.length() > 0 {
                let cleared = SlotRange::new(entry.slot_range.generation().wrapping_add(1), 0, 0).unwrap_or_default();
                ops.push(MapOp::ClearHead(id, cleared));
            }
            ops.push(MapOp::DelServiceName(id));
            ops.push(MapOp::ClearService(id));
        }
    }
}
