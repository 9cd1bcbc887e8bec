//! Arbitrary labels of apps, ports and virtual addresses: no panic, and all values stay in range.
#![no_main]

use std::{collections::BTreeMap, num::NonZeroU32};

use libfuzzer_sys::fuzz_target;
use proxymatic_user::model::{Labels, MAX_WEIGHT, PORT_PREFIX, PREFIX, Vip};

fuzz_target!(|input: Vec<(u8, String, String)>| {
    let name = |(start, key, value): (u8, String, String)| match start % 8 {
        index @ 0..4 => (format!("{PREFIX}{index}.{key}"), value),
        4 => (format!("{PREFIX}{key}"), value),
        5 => (format!("{PORT_PREFIX}{key}"), value),
        6 => (format!("VIP_{key}"), value),
        _ => (key, value),
    };
    let labels: BTreeMap<String, String> = input.into_iter().map(name).collect();
    let pairs = || labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let mut read = Labels::read(pairs(), 3, NonZeroU32::MIN);
    read.of_port(1, pairs(), NonZeroU32::MIN);
    for index in 0..4 {
        let port = read.port(index);
        assert!(port.weight.get() <= MAX_WEIGHT && port.service_port != Some(0));
    }
    let (vips, warnings) = Vip::read(pairs());
    assert!(vips.len() + warnings.len() <= labels.len());
    for vip in vips {
        // Printing and parsing a virtual address returns the same one.
        assert_eq!(Vip::read([("VIP_0", vip.to_string().as_str())]).0, [vip]);
    }
});
