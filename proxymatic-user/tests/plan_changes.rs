//! A plan that skips unchanged services equals the whole plan, whatever happened before.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use proptest::prelude::*;
use proxymatic_common::SourceCode;
use proxymatic_user::{
    model::{Backend, Protocol, Service, ServiceKey, State, Weight},
    plan::{Capacity, Desired, MapState, Plan, QUARANTINE, Quarantine, plan, plan_changes},
};

/// Makes a backend from a small number; the highest numbers have IPv6 addresses.
fn backend(number: u8) -> Backend {
    let six = number >= 22;
    Backend {
        task: format!("task-{}", number / 2),
        address: if six { [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into() } else { IpAddr::from([10, 0, 0, number % 4]) },
        port: 31_000 + u16::from(number % 3),
        weight: Weight::default(),
        maxconn: 0,
        state: if number.is_multiple_of(5) { State::Draining } else { State::Active },
    }
}

fn service(numbers: BTreeSet<u8>) -> Service {
    let backends: BTreeMap<_, _> = numbers
        .into_iter()
        .map(backend)
        .map(|backend| ((backend.task.clone(), backend.address, backend.port), backend))
        .collect();
    Service { name: "/app".into(), backends: backends.into_values().collect(), ..Service::default() }
}

/// Virtual addresses and the host's own addresses come from one range, so that some addresses are both.
fn desired() -> impl Strategy<Value = Desired> {
    let protocol = prop_oneof![9 => Just(Protocol::Tcp), 1 => Just(Protocol::Udp)];
    let key = (prop::option::weighted(0.4, 1_u8..5), 1_u16..5, protocol).prop_map(|(address, port, protocol)| {
        ServiceKey { address: address.map(|n| IpAddr::from([192, 0, 2, n])), port, protocol }
    });
    let source = prop_oneof![3 => Just(SourceCode::MARATHON), 1 => Just(SourceCode::REGISTRATOR)];
    let service = prop::collection::btree_set(0_u8..24, 0..6).prop_map(|numbers| service(numbers).into());
    let services = prop::collection::btree_map(key, (source, service), 0..7);
    let addresses = prop::collection::btree_set((1_u8..5).prop_map(|n| IpAddr::from([192, 0, 2, n])), 0..3);
    let unanswered = prop::collection::btree_set(Just(SourceCode::REGISTRATOR), 0..2);
    let parked = prop::collection::btree_set(0_u32..12, 0..3);
    (services, addresses, unanswered, parked, 0_u32..3).prop_map(|(services, addresses, unanswered, parked, most)| {
        Desired { addresses, services, unanswered, parked, max_connections: most, ..Desired::default() }
    })
}

/// One step of a history: some services change, the others stay, and the kernel may refuse a write.
#[derive(Clone, Debug)]
struct Step {
    other: Desired,
    changes: u8,
    keeps_around: bool,
    refused: Option<prop::sample::Index>,
    quarantines: u8,
}

fn step() -> impl Strategy<Value = Step> {
    (desired(), any::<u8>(), any::<bool>(), prop::option::weighted(0.2, any::<prop::sample::Index>()), 0_u8..3)
        .prop_map(|(other, changes, keeps_around, refused, quarantines)| Step {
            other,
            changes,
            keeps_around,
            refused,
            quarantines,
        })
}

impl Step {
    fn after(&self, before: &Desired) -> Desired {
        let changes = |key: &ServiceKey| self.changes & (1 << (key.port % 4)) != 0;
        let stay = before.services.iter().filter(|(key, _)| !changes(key));
        let come = self.other.services.iter().filter(|(key, _)| changes(key));
        let services = stay.chain(come).map(|(key, service)| (*key, service.clone())).collect();
        Desired { services, ..if self.keeps_around { before } else { &self.other }.clone() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn plan_of_changes_equals_the_whole_plan(
        steps in prop::collection::vec(step(), 1..9),
        capacity in (3_u32..12, 6_u32..60, 10_u32..200, 2_u32..8),
    ) {
        let (services, backends, slots, addresses) = capacity;
        let mut tables = MapState::new(Capacity { services, backends, slots, addresses, ..Capacity::default() });
        let (mut quarantine, mut now) = (Quarantine::default(), Instant::now());
        let (mut before, mut applied) = (Desired::default(), Desired::default());
        for step in steps {
            let mut after = step.after(&before);
            before.clone_from(&after);
            let planned = plan_changes(&after, &tables, &applied);
            prop_assert_eq!(&planned, &plan(&after, &tables));
            let Plan { ops, incomplete, .. } = planned;
            let refused = step.refused.filter(|_| !ops.is_empty()).map(|index| index.index(ops.len()));
            ops[..refused.unwrap_or(ops.len())].iter().for_each(|op| tables.apply(op));
            after.services.retain(|key, _| refused.is_none() && !incomplete.contains(key));
            applied = after;
            for _ in 0..step.quarantines {
                now += QUARANTINE;
                quarantine.release(&tables, |_| 0, now).iter().for_each(|op| tables.apply(op));
            }
        }
    }
}

#[test]
fn applied_services_are_skipped() {
    let key = ServiceKey::host(1, Protocol::Tcp);
    let wants = |numbers: &[u8]| Desired {
        services: [(key, (SourceCode::MARATHON, service(numbers.iter().copied().collect()).into()))].into(),
        ..Desired::default()
    };
    let mut tables = MapState::default();
    plan(&wants(&[1]), &tables).ops.iter().for_each(|op| tables.apply(op));
    let next = wants(&[1, 4]);
    assert_eq!(plan_changes(&next, &tables, &wants(&[1])), plan(&next, &tables));
    // The last argument is false here, and the planner trusts it: that makes the plan fast.
    assert_eq!(plan_changes(&next, &tables, &next), Plan::default());
    // But the planner plans a service without a frontend in any case.
    let empty = MapState::default();
    assert_eq!(plan_changes(&next, &empty, &next), plan(&next, &empty));
}
