//! Loads the embedded eBPF object, with the features that this kernel has.

use std::num::NonZero;

use aya::{Ebpf, EbpfLoader, maps::MapData};
use aya_log::Level;
use proxymatic_common::maps::{self as declared, MapDef};

use super::{Pins, RemoteClients, attach, maps::PACKET_MAPS, pins::remove};
use crate::{dataplane::Error, plan::Capacity};

/// The hooks, built by `cargo xtask build-ebpf`; empty if it never ran.
static HOOKS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/proxymatic-hooks.o"));
/// The hooks that also log their verdicts; empty if this build has none.
static HOOKS_WITH_LOG: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/proxymatic-hooks-log.o"));
/// The feature probes without maps.
static PROBES: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/proxymatic-feature-probes.o"));

/// The feature probes with maps.
pub(super) static PROBES_WITH_MAPS: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/proxymatic-feature-probes-maps.o"));

/// Opens the feature probes without maps, and loads none of them.
///
/// # Errors
/// Fails if this build has no feature probes.
pub(super) fn probes() -> Result<Ebpf, Error> {
    if PROBES.is_empty() || PROBES_WITH_MAPS.is_empty() {
        return Err(no_object());
    }
    Ebpf::load(PROBES).map_err(|error| Error::kernel("load the feature probes", &error))
}

fn no_object() -> Error {
    Error::host("this binary was built without the eBPF object", "run `cargo xtask build-ebpf`, then rebuild")
}

/// Loads the object: opens the pinned maps, and creates and pins the others. [`attach::load`] loads the programs.
///
/// # Errors
/// Fails if this build has no object, or if the kernel refuses a map.
pub(super) fn load(pins: &Pins, capacity: Capacity, remote: &RemoteClients, log: Option<Level>) -> Result<Ebpf, Error> {
    let object = if log.is_some() { HOOKS_WITH_LOG } else { HOOKS };
    if object.is_empty() || PROBES.is_empty() {
        return Err(no_object());
    }
    let (has_retval, has_mptcp, has_coarse) =
        (has_feature("set_retval")?, has_feature("mptcp")?, has_feature("coarse")?);
    remove_wrong_sizes(pins, capacity, remote)?;
    let level = log.map_or(0, |level| level as u8);
    let mut loader = EbpfLoader::new();
    loader.override_global("HAS_RETVAL", &has_retval, true);
    loader.override_global("HAS_MPTCP", &has_mptcp, true);
    loader.override_global("HAS_COARSE", &has_coarse, true);
    if log.is_some() {
        loader.override_global(aya_log::LEVEL, &level, true);
    }
    for map in declared::ALL {
        loader.map_pin_path(map.name, pins.map(map.name));
        if let Some(entries) = max_entries(map.name, capacity, remote) {
            loader.map_max_entries(map.name, entries);
        }
    }
    let loaded = loader.load(object).map_err(|error| Error::kernel("load the eBPF object", &error))?;
    warn_about_sizes(pins, capacity, remote);
    Ok(loaded)
}

/// Returns how many entries a new map gets.
fn max_entries(name: &str, capacity: Capacity, remote: &RemoteClients) -> Option<u32> {
    use declared::{
        BackendNames, BackendStatsMap, Backends, Conntrack, CountersMap, CtHalfOpen, Drained, Fragments, Frontends,
        ServiceNames, ServiceStatsMap, Services, SlotRanges, Slots,
    };
    match name {
        SlotRanges::NAME | Services::NAME | ServiceStatsMap::NAME | Frontends::NAME | ServiceNames::NAME => {
            Some(capacity.services)
        }
        Backends::NAME | BackendStatsMap::NAME | BackendNames::NAME | Drained::NAME => Some(capacity.backends),
        Slots::NAME => Some(capacity.slots),
        // Without a served interface they hold nothing, and 1 is the least that the kernel accepts.
        Conntrack::NAME | CtHalfOpen::NAME | Fragments::NAME if !remote.is_wanted() => Some(1),
        // Two entries for each connection.
        Conntrack::NAME => Some(2 * remote.connections),
        CountersMap::NAME => aya::util::nr_cpus().ok().map(|cpus| cpus as u32),
        _ => None,
    }
}

/// Removes conntrack maps of a wrong size. They hold nothing while no hook of an interface is attached.
fn remove_wrong_sizes(pins: &Pins, capacity: Capacity, remote: &RemoteClients) -> Result<(), Error> {
    if pins.serves_interfaces() {
        return Ok(());
    }
    for map in declared::ALL.iter().filter(|map| PACKET_MAPS.contains(&map.name)) {
        let pin = pins.map(map.name);
        let Ok(pinned) = MapData::from_pin(&pin).and_then(|pinned| pinned.info()) else { continue };
        if pinned.max_entries() != max_entries(map.name, capacity, remote).unwrap_or(map.max) {
            remove(&pin).map_err(|error| Error::kernel(format!("remove {}", pin.display()), &error))?;
        }
    }
    Ok(())
}

/// Warns about pinned maps of another size. They keep it, because new maps would hold no services at first.
fn warn_about_sizes(pins: &Pins, capacity: Capacity, remote: &RemoteClients) {
    for map in declared::ALL {
        let pinned = MapData::from_pin(pins.map(map.name)).and_then(|pinned| pinned.info());
        let (Some(wanted), Ok(pinned)) = (max_entries(map.name, capacity, remote).and_then(NonZero::new), pinned)
        else {
            continue;
        };
        if pinned.max_entries() != wanted.get() {
            tracing::warn!(
                "{} is pinned with {} entries and keeps them, not {wanted}; run `proxymatic detach` before the next start to change that",
                map.name,
                pinned.max_entries()
            );
        }
    }
}

/// Returns 1 if a feature probe loads on this kernel, else 0.
fn has_feature(name: &str) -> Result<u32, Error> {
    let failed = |error: &dyn std::error::Error| Error::kernel("load the feature probes", error);
    let mut probes = Ebpf::load(PROBES).map_err(|error| failed(&error))?;
    Ok(u32::from(probes.program_mut(name).is_some_and(|program| attach::load_one(program).is_ok())))
}
