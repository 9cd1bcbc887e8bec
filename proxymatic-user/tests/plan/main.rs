//! Plans, checked by the code that reads their result: after every single write, the hooks' own decisions route
//! connections.

mod invariants;
mod kernel;
mod lists;
mod order;
mod properties;
mod strategies;
mod unanswered;
mod virtual_addresses;

use std::{collections::BTreeMap, net::IpAddr, time::Instant};

use proptest::prelude::*;
use proxymatic_common::SourceCode;
use proxymatic_user::{
    model::{self, Protocol, ServiceKey, State, Weight},
    plan::{Desired, MapState, QUARANTINE, Quarantine, plan},
};

use self::{
    invariants::{assert_serves, carry_out, printed},
    strategies::{desired, service, small},
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn after_each_write_connections_reach_old_or_new_backends(
        states in prop::collection::vec(desired(), 1..6),
        seed in any::<u64>(),
    ) {
        let (mut tables, mut quarantine) = (small(), Quarantine::default());
        let mut before = Desired::default();
        let mut now = Instant::now();
        for after in states {
            carry_out(&mut tables, &before, &after, seed >> 1);
            for _ in 0..6 {
                now += QUARANTINE;
                for op in quarantine.release(&tables, |_| 0, now) {
                    tables.apply(&op);
                    assert_serves(&tables, &after, &after, seed >> 1, &[op]);
                }
            }
            prop_assert_eq!(printed(&plan(&after, &tables).ops), "");
            prop_assert!(tables.garbage().is_empty(), "{:?}", tables.garbage());
            before = after;
        }
    }

    /// If an agent dies between two writes, the next agent's plan still reaches the whole desired state.
    #[test]
    fn next_plan_completes_a_stopped_one_and_leaves_no_garbage(
        first in desired(), second in desired(), third in desired(), stop in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let (mut tables, mut quarantine) = (small(), Quarantine::default());
        carry_out(&mut tables, &Desired::default(), &first, seed >> 1);
        let ops = plan(&second, &tables).ops;
        let stop = if ops.is_empty() { 0 } else { stop.index(ops.len()) };
        ops[..stop].iter().for_each(|op| tables.apply(op));
        for op in plan(&third, &tables).ops {
            tables.apply(&op);
        }
        prop_assert_eq!(printed(&plan(&third, &tables).ops), "");
        let mut now = Instant::now();
        for _ in 0..7 {
            now += QUARANTINE;
            quarantine.release(&tables, |_| 0, now).iter().for_each(|op| tables.apply(op));
        }
        prop_assert!(tables.garbage().is_empty(), "{:?}", tables.garbage());
        let live: usize = third.services.values().map(|(_, service)| service.backends.len()).sum();
        prop_assert_eq!(tables.backends().len(), live);
        prop_assert_eq!(tables.services().len(), third.services.len());
    }
}

fn active(task: &str, host: u8) -> model::Backend {
    model::Backend {
        task: task.into(),
        address: IpAddr::from([10, 0, 0, host]),
        port: 31_000,
        weight: Weight::default(),
        maxconn: 0,
        state: State::Active,
    }
}

fn one_service(backends: Vec<model::Backend>) -> Desired {
    let key = ServiceKey::host(1234, Protocol::Tcp);
    let services = BTreeMap::from([(key, (SourceCode::MARATHON, service(backends).into()))]);
    Desired { services, ..Desired::default() }
}

fn publish(tables: &mut MapState, desired: &Desired) -> String {
    let ops = plan(desired, tables).ops;
    ops.iter().for_each(|op| tables.apply(op));
    printed(&ops)
}
