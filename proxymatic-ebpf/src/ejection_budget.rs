//! The share of a service's backends that is ejected, summed over slots.

use crate::{data_plane::Tables, packed::EjectionShares};

/// Returns what one slot adds to the sums, by the slot's index in the map. `id` is the backend that might be ejected; `now`
/// is in nanoseconds.
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
