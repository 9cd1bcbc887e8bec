//! Arbitrary rows in the maps: adoption does not panic, and plans then reach any desired state.
#![no_main]

use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use proxymatic_fuzz::{
    history::{Wanted, ends},
    rows::Rows,
};
use proxymatic_user::{dataplane::adopt, plan::Quarantine};

fuzz_target!(|input: (Rows, Wanted)| {
    let (rows, wanted) = input;
    let mut tables = adopt(&rows).expect("these rows can be read");
    ends(&mut tables, &wanted.desired(), Quarantine::default(), Instant::now());
});
