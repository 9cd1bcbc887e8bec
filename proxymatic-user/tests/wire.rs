//! The object says what the agent expects: maps as declared, a program for each hook, a licence the kernel takes.
//!
//! Reads what `cargo xtask build-ebpf` left, so it runs in the tier of that name: `cargo xtask test wire`.

use std::{collections::BTreeMap, fs, path::Path};

use aya_obj::Object;
use proxymatic_common::maps;
use proxymatic_user::dataplane::kernel::{HOOKS, PACKET_HOOKS};

fn object(name: &str) -> Object {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bpf").join(name);
    let bytes =
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run cargo xtask build-ebpf", path.display()));
    Object::parse(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
#[ignore = "needs the object: cargo xtask test wire"]
fn the_maps_are_the_declared_ones() {
    let object = object("proxymatic-hooks.o");
    let data = |name: &String| name.starts_with('.');
    let found: BTreeMap<_, _> = object
        .maps
        .iter()
        .filter(|(name, _)| !data(name))
        .map(|(name, map)| {
            let shape = (map.map_type(), map.key_size(), map.value_size(), map.max_entries(), map.map_flags());
            (name.as_str(), shape)
        })
        .collect();
    let declared: BTreeMap<_, _> =
        maps::ALL.iter().map(|map| (map.name, (map.kind as u32, map.key, map.value, map.max, map.flags))).collect();
    assert_eq!(found, declared);
}

#[test]
#[ignore = "needs the object: cargo xtask test wire"]
fn there_is_one_program_for_each_hook() {
    let object = object("proxymatic-hooks.o");
    let mut found: Vec<_> = object.programs.keys().map(String::as_str).collect();
    let mut expected = [&HOOKS[..], &PACKET_HOOKS[..]].concat();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
#[ignore = "needs the object: cargo xtask test wire"]
fn the_licence_lets_programs_use_the_kernels_helpers() {
    // One of the strings of license_is_gpl_compatible() in include/linux/license.h.
    for name in ["proxymatic-hooks.o", "proxymatic-feature-probes.o", "proxymatic-feature-probes-maps.o"] {
        assert_eq!(object(name).license.to_str(), Ok("Dual MIT/GPL"), "{name}");
    }
}
