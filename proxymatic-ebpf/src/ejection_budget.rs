//! The share of a service's backends that is ejected, measured by slots.

use crate::{data_plane::Tables, packed::EjectionShares};

/// Returns the shares of one slot, by its index in the map. `id` is the one backend; `now` is in nanoseconds.
#[inline(always)]
pub fn slot_share<T: Tables>(tables: &T, index: u32, id: u32, now: u64) -> EjectionShares {
    let Some(slot) = tables.slot(index) else { return EjectionShares::NONE };
    let (Some(backend), Some(stats)) = (tables.backend(slot.backend()), tables.backend_stats(slot.backend())) else {
        return EjectionShares::NONE;
    };
    let share = EjectionShares::of_weight(backend.weight);
    if slot.backend() == id {
        share.own()
    } else if stats.ejected_until.get() > now {
        share.ejected()
    } else {
        share
    }
}
