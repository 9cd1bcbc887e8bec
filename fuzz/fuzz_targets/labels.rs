//! Any labels: no panic, and what they say stays in range.
#![no_main]

use std::{collections::BTreeMap, num::NonZeroU32};

use libfuzzer_sys::fuzz_target;
use proxymatic_user::model::{Labels, MAX_WEIGHT, PREFIX};

fuzz_target!(|input: Vec<(bool, String, String)>| {
    let named = |(ours, key, value): (bool, String, String)| (if ours { format!("{PREFIX}{key}") } else { key }, value);
    let labels: BTreeMap<String, String> = input.into_iter().map(named).collect();
    let pairs = labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let read = Labels::read(pairs, 3, NonZeroU32::MIN);
    for index in 0..4 {
        assert!(read.port(index).weight.get() <= MAX_WEIGHT);
    }
});
