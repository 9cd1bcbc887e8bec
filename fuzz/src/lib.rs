//! What several targets ask of what was read: that it can be planned, and that nothing is left to do then.

pub mod history;
// The invariants of plans and the test double of the maps come from the plan tests: what the product does not
// need is not in it.
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

/// Plans a snapshot for empty tables, and again for the tables that come of it.
pub fn plan_whole(snapshot: Snapshot, source: SourceCode) {
    let services = snapshot.services.into_iter().map(|(key, service)| (key, (source, service))).collect();
    let desired = Desired { services, ..Desired::default() };
    let mut tables = MapState::new(Capacity::default());
    for op in plan(&desired, &tables).ops {
        tables.apply(&op);
    }
    assert_eq!(plan(&desired, &tables).ops, []);
}

/// What a name server could say: of names of even length an address, of others nothing.
pub fn addresses<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, Result<IpAddr, String>> {
    let answer = |name: &str| {
        if name.len().is_multiple_of(2) { Ok([10, 0, 0, 1].into()) } else { Err("no such name".to_owned()) }
    };
    names.into_iter().map(|name| (name.to_owned(), answer(name))).collect()
}
