//! The law that every plan obeys, checked after each single write by routing flows through the very decisions that the
//! hooks run.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Instant,
};

use proxymatic_common::{Class, Frontend, PROTOCOL_TCP, PROTOCOL_UDP, Port};
use proxymatic_ebpf::Verdict;
use proxymatic_user::{
    model::{self, AllowRule, Protocol, Service, ServiceKey, State},
    plan::{Desired, MapOp, MapState, QUARANTINE, Quarantine, plan},
};

use super::kernel::{Kernel, address};

/// How many writes of a plan may be refused.
const FAULTS: u32 = 5;

type Answers = BTreeSet<(IpAddr, u16)>;

/// What a service may be answered by, and whether the program that dials may connect at all.
#[derive(Default)]
struct Due {
    answers: Answers,
    may: bool,
}

impl Due {
    fn is_served(&self) -> bool {
        self.may && !self.answers.is_empty()
    }
}

/// The services of a desired state: the backends that take traffic, or the draining ones where there are none.
fn due(desired: &Desired, tables: &MapState) -> BTreeMap<ServiceKey, Due> {
    let answers = |key: ServiceKey, service: &Service| {
        let of = |fit: &dyn Fn(&model::Backend) -> bool| -> Answers {
            service.backends.iter().filter(|b| fit(b)).map(|b| (b.address, b.port)).collect()
        };
        let takes_traffic =
            |b: &model::Backend| b.state == State::Active && b.weight.get() > 0 && !is_drained(desired, tables, key, b);
        let active = of(&takes_traffic);
        if active.is_empty() { of(&|b| matches!(b.state, State::Active | State::Draining)) } else { active }
    };
    let of = |(key, (_, service)): (&ServiceKey, &(_, Arc<Service>))| {
        (*key, Due { answers: answers(*key, service), may: may(service, *key) })
    };
    desired.services.iter().map(of).collect()
}

/// Whether the operator drains a backend. An operator's drain names an id, and only the tables know which backend has that id.
fn is_drained(desired: &Desired, tables: &MapState, key: ServiceKey, backend: &model::Backend) -> bool {
    let class = key.address.map_or(Some(Class::HOST), |address| tables.addresses().get(&address.into()).copied());
    let protocol = if key.protocol == Protocol::Tcp { PROTOCOL_TCP } else { PROTOCOL_UDP };
    let is_of_service =
        |it: Frontend| Some(it.class) == class && it.port == Port::new(key.port) && it.protocol == protocol;
    desired.drained.iter().filter_map(|id| tables.backends().get(id)).any(|entry| {
        let frontend = tables.services().get(&entry.backend.service).and_then(|service| service.frontend);
        let place = (IpAddr::from(entry.backend.address), entry.backend.port.get());
        frontend.is_some_and(is_of_service) && entry.task == backend.task && place == (backend.address, backend.port)
    })
}

/// Whether the program that dials may connect. It is in the cgroup `/mine`, and at the address that it dials.
fn may(service: &Service, key: ServiceKey) -> bool {
    let from = address(key);
    let fits = |allowed: &AllowRule| match allowed {
        AllowRule::Cgroup(path) => path == "/mine",
        AllowRule::Network(IpAddr::V4(of), prefix) => {
            matches!(from, IpAddr::V4(at) if (of.to_bits() ^ at.to_bits()).leading_zeros() >= u32::from(*prefix))
        }
        AllowRule::Network(IpAddr::V6(of), prefix) => {
            matches!(from, IpAddr::V6(at) if (of.to_bits() ^ at.to_bits()).leading_zeros() >= u32::from(*prefix))
        }
    };
    service.settings.allow.as_ref().is_none_or(|list| list.iter().any(fits))
}

/// Whoever had backends and is to have some has some after each write, and only old or new ones; whoever was not allowed
/// to connect and is not to be gets nowhere.
pub(crate) fn assert_serves(tables: &MapState, before: &Desired, after: &Desired, seed: u64, done: &[MapOp]) {
    assert_serves_since(tables, &[before], after, seed, done);
}

/// The same where plans have stopped half-way since `before[0]` was true, each on the way to one of the others.
pub(crate) fn assert_serves_since(tables: &MapState, before: &[&Desired], after: &Desired, seed: u64, done: &[MapOp]) {
    let kernel = Kernel::new(tables, seed);
    let (all, none): (Vec<_>, _) =
        (before.iter().copied().chain([after]).map(|it| due(it, tables)).collect(), Due::default());
    for key in all.iter().flat_map(BTreeMap::keys) {
        let states: Vec<_> = all.iter().map(|due| due.get(key).unwrap_or(&none)).collect();
        for _ in 0..4 {
            match kernel.connect(*key) {
                Verdict::Translate(choice) => {
                    let at = (IpAddr::from(choice.address), choice.port.get());
                    let known = states.iter().any(|due| due.answers.contains(&at));
                    assert!(known && states.iter().any(|due| due.may), "{key} led to {at:?} after {}", printed(done));
                }
                verdict if states.iter().all(|due| due.is_served()) => {
                    panic!("{key}: {verdict:?} after {}", printed(done))
                }
                _ => {}
            }
        }
    }
}

pub(crate) fn printed(ops: &[MapOp]) -> String {
    ops.iter().map(|op| format!("{op}\n")).collect()
}

/// Applies a plan write by write, checking the law after each, and that what comes of it is what was wanted. About one
/// write in ten is refused, as any may be, but not so often that it would never end; what is left is then planned again,
/// from what was written.
pub(crate) fn carry_out(tables: &mut MapState, before: &Desired, after: &Desired, seed: u64) {
    let (mut dice, mut faults) = (seed | 1, FAULTS);
    let (mut quarantine, mut now) = (Quarantine::default(), Instant::now());
    let mut done = Vec::new();
    let first = plan(after, tables);
    assert_eq!(first.warnings, [], "everything fits");
    let mut planned = first.ops.into_iter();
    while let Some(op) = planned.next() {
        // xorshift64.
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        if faults > 0 && dice.is_multiple_of(10) {
            faults -= 1;
            // What was made in vain is given back before that.
            for _ in 0..7 {
                now += QUARANTINE;
                for op in quarantine.release(tables, |_| 0, now) {
                    tables.apply(&op);
                    done.push(op);
                    assert_serves(tables, before, after, seed + done.len() as u64, &done);
                }
            }
            planned = plan(after, tables).ops.into_iter();
            continue;
        }
        tables.apply(&op);
        done.push(op);
        assert_serves(tables, before, after, seed + done.len() as u64, &done);
    }
    assert_eq!(printed(&plan(after, tables).ops), "", "nothing is left to do");
    assert_says(tables, after, seed);
}

/// The tables say what is wanted, and no more.
pub(crate) fn assert_says(tables: &MapState, after: &Desired, seed: u64) {
    let kernel = Kernel::new(tables, seed);
    for (key, due) in due(after, tables) {
        assert_eq!(kernel.backend_of(key).is_some(), due.is_served(), "{key}: {:?}", kernel.connect(key));
    }
    let bits: BTreeSet<_> = tables.frontends().keys().map(|frontend| (frontend.protocol, frontend.port)).collect();
    assert_eq!(tables.ports(), &bits, "the service ports have their bits, and no others");
    assert_eq!(tables.excluded(), &after.excluded);
    for Frontend { class, .. } in tables.frontends().keys() {
        assert!(*class == Class::HOST || tables.addresses().values().any(|known| known == class));
    }
}
