//! The embedded eBPF object: what this kernel can do is found out, then it is loaded.

use std::num::NonZero;

use aya::{Ebpf, EbpfLoader, maps::MapData};
use aya_log::Level;
use proxymatic_common::maps::{self as declared, MapDef};

use super::{Pins, RemoteClients, attach, maps::OF_PACKETS, pins::remove};
use crate::{dataplane::Error, plan::Capacity};

/// The hooks, as `cargo xtask build-ebpf` left them; empty where it never ran.
static HOOKS: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/proxymatic-hooks.o"));
/// The hooks that log their verdicts too; empty where there are none in this build.
static LOUD: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/proxymatic-hooks-log.o"));
/// The probes.
static PROBES: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/proxymatic-feature-probes.o"));

/// The probes that have maps.
pub(super) static STORES: &[u8] =
    aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/proxymatic-feature-probes-maps.o"));

/// Opens the probes that have no maps. None is loaded yet.
///
/// # Errors
/// There are none in this build.
pub(super) fn probes() -> Result<Ebpf, Error> {
    if PROBES.is_empty() || STORES.is_empty() {
        return Err(no_object());
    }
    Ebpf::load(PROBES).map_err(|error| Error::kernel("load the probes", &error))
}

fn no_object() -> Error {
    Error::host("this binary was built without the eBPF object", "run `cargo xtask build-ebpf`, then build it again")
}

/// Loads the object: opens the maps that are pinned, makes and pins the others. Programs are loaded later, each when
/// it is put in place.
///
/// # Errors
/// There is no object in this build, or the kernel refuses a map.
pub(super) fn load(pins: &Pins, capacity: Capacity, remote: &RemoteClients, log: Option<Level>) -> Result<Ebpf, Error> {
    let object = if log.is_some() { LOUD } else { HOOKS };
    if object.is_empty() || PROBES.is_empty() {
        return Err(no_object());
    }
    let (has_retval, has_mptcp, has_coarse) = (probe("set_retval")?, probe("mptcp")?, probe("coarse")?);
    make_room(pins, capacity, remote)?;
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
        if let Some(entries) = wanted(map.name, capacity, remote) {
            loader.map_max_entries(map.name, entries);
        }
    }
    let loaded = loader.load(object).map_err(|error| Error::kernel("load the eBPF object", &error))?;
    warn_of_sizes(pins, capacity, remote);
    Ok(loaded)
}

/// How many entries a map that is not pinned yet gets.
fn wanted(name: &str, capacity: Capacity, remote: &RemoteClients) -> Option<u32> {
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
        // Where no interface is served nothing is kept, and the least there can be is made.
        Conntrack::NAME | CtHalfOpen::NAME | Fragments::NAME if !remote.is_wanted() => Some(1),
        // Two halves each.
        Conntrack::NAME => Some(2 * remote.connections),
        CountersMap::NAME => aya::util::nr_cpus().ok().map(|cpus| cpus as u32),
        _ => None,
    }
}

/// Removes maps that only hooks of interfaces use, where there are no such hooks and the maps are of another size than is
/// wanted: nothing is in them.
fn make_room(pins: &Pins, capacity: Capacity, remote: &RemoteClients) -> Result<(), Error> {
    if pins.serves_interfaces() {
        return Ok(());
    }
    for map in declared::ALL.iter().filter(|map| OF_PACKETS.contains(&map.name)) {
        let pin = pins.map(map.name);
        let Ok(pinned) = MapData::from_pin(&pin).and_then(|pinned| pinned.info()) else { continue };
        if pinned.max_entries() != wanted(map.name, capacity, remote).unwrap_or(map.max) {
            remove(&pin).map_err(|error| Error::kernel(format!("remove {}", pin.display()), &error))?;
        }
    }
    Ok(())
}

/// Pinned maps keep their size: services would be lost from sight while they were made anew.
fn warn_of_sizes(pins: &Pins, capacity: Capacity, remote: &RemoteClients) {
    for map in declared::ALL {
        let pinned = MapData::from_pin(pins.map(map.name)).and_then(|pinned| pinned.info());
        let (Some(wanted), Ok(pinned)) = (wanted(map.name, capacity, remote).and_then(NonZero::new), pinned) else {
            continue;
        };
        if pinned.max_entries() != wanted.get() {
            tracing::warn!(
                "{} is pinned with {} entries and keeps them, not {wanted}; `proxymatic detach` before the next start changes that",
                map.name,
                pinned.max_entries()
            );
        }
    }
}

/// 1 where this kernel can do what a probe asks for, else 0: found out by loading it.
fn probe(name: &str) -> Result<u32, Error> {
    let failed = |error: &dyn std::error::Error| Error::kernel("load the probes", error);
    let mut probes = Ebpf::load(PROBES).map_err(|error| failed(&error))?;
    Ok(u32::from(probes.program_mut(name).is_some_and(|program| attach::load_one(program).is_ok())))
}
