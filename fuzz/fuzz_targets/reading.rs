//! Any bytes as an answer of Marathon: no panic, and whatever is read can be planned.
#![no_main]

use std::{
    collections::BTreeMap,
    net::IpAddr,
    num::NonZeroU32,
};

use libfuzzer_sys::fuzz_target;
use proxymatic_user::{
    plan::{Capacity, Desired, Tables, plan},
    source::marathon::read::{self, Found},
};

fuzz_target!(|body: &[u8]| {
    let Ok(listing) = read::parse(body) else { return };
    let needs = read::needs(&listing);
    // Every host is known to be one address, no definition is to be had: the paths in between are the parser's.
    let hosts = needs.hosts.iter().map(|host| (host.clone(), Ok(IpAddr::from([10, 0, 0, 1])))).collect();
    let definitions =
        needs.definitions.iter().map(|version| (version.clone(), Err("no such version".to_owned()))).collect();
    let snapshot = read::read(&listing, &Found { definitions, hosts, ..Found::default() }, NonZeroU32::MIN);
    let own = |(key, service)| (key, (proxymatic_common::SourceCode::MARATHON, service));
    let services: BTreeMap<_, _> = snapshot.services.into_iter().map(own).collect();
    let desired = Desired { services, ..Desired::default() };
    let mut tables = Tables::new(Capacity::default());
    for op in plan(&desired, &tables).ops {
        tables.apply(&op);
    }
    assert_eq!(plan(&desired, &tables).ops, []);
});
