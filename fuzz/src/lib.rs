//! Checks that several targets share.

pub mod history;
// The invariants of plans and the test double of the maps come from the plan tests, since the product does not need them.
#[path = "../../proxymatic-user/tests/plan/invariants.rs"]
#[expect(dead_code, reason = "the tests use all of it")]
mod invariants;
#[path = "../../proxymatic-user/tests/plan/kernel.rs"]
mod kernel;
pub mod rows;

use std::{collections::BTreeMap, net::IpAddr};

use proxymatic_common::SourceCode;
use proxymatic_user::{
    model::Snapshot,
    plan::{Capacity, Desired, MapState, plan},
};

/// Asserts that a snapshot can be planned for empty maps, and that a second plan has no writes.
pub fn plan_whole(snapshot: Snapshot, source: SourceCode) {
    let services = snapshot.services.into_iter().map(|(key, service)| (key, (source, service))).collect();
    let desired = Desired { services, ..Desired::default() };
    let mut tables = MapState::new(Capacity::default());
    for op in plan(&desired, &tables).ops {
        tables.apply(&op);
    }
    assert_eq!(plan(&desired, &tables).ops, []);
}

/// Returns an address for each name of even length, and an error for any other name.
pub fn addresses<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, Result<IpAddr, String>> {
    let answer = |name: &str| {
        if name.len().is_multiple_of(2) { Ok([10, 0, 0, 1].into()) } else { Err("no such name".to_owned()) }
    };
    names.into_iter().map(|name| (name.to_owned(), answer(name))).collect()
}
