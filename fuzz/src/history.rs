//! Histories of desired states, made from arbitrary bytes. All numbers are small, so that tasks, addresses and ids collide.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use proxymatic_common::SourceCode;
use proxymatic_user::{
    model::{AllowRule, Backend, Policy, Protocol, Service, ServiceKey, Settings, State, Weight},
    plan::{Capacity, Desired, Exposed, MapState, Plan, QUARANTINE, Quarantine, plan, plan_changes},
};

use crate::{
    invariants::{assert_reached, assert_serves_since, printed},
    kernel::CGROUP,
};

/// A sequence of desired states, and the size of the maps.
#[derive(Arbitrary, Debug)]
pub struct History {
    /// The seed of the random numbers.
    seed: u32,
    /// Whether the maps are too small for all services.
    small: bool,
    steps: Vec<Step>,
}

/// A new desired state, whose plan is carried out completely or in part.
#[derive(Arbitrary, Debug)]
struct Step {
    wanted: Wanted,
    /// Services that stay as they were: bit `port % 8`.
    stay: u8,
    /// The number of writes after which the agent dies or the kernel refuses a write; `None` if the plan completes.
    stops: Option<u8>,
    /// Whether the agent dies then. It loses its quarantine.
    dies: bool,
    /// How many quarantine periods pass afterwards.
    rests: u8,
    /// The ids of backends that sockets use, one bit each.
    used: u16,
}

/// A desired state in small numbers.
#[derive(Arbitrary, Debug)]
pub struct Wanted {
    services: Vec<One>,
    /// The addresses of the host, one bit each.
    addresses: u8,
    /// The excluded cgroups, one bit each; bit 3 exposes all services.
    excluded: u8,
    /// The ids of parked backends, one bit each.
    parked: u16,
    /// Whether registrator has not answered yet.
    unanswered: bool,
}

#[derive(Arbitrary, Debug)]
struct One {
    address: Option<u8>,
    port: u8,
    tcp: bool,
    registrator: bool,
    policy: u8,
    allow: Option<u8>,
    reset: bool,
    backends: Vec<Replica>,
}

#[derive(Arbitrary, Debug)]
struct Replica {
    task: u8,
    host: u8,
    port: u8,
    weight: u16,
    state: u8,
}

/// The possible entries of allow lists.
const ENTRIES: [&str; 6] =
    ["127.0.0.0/8", "10.0.0.0/8", "198.51.100.0/24", "2001:db8:1::/48", "cgroup:/mine", "cgroup:/other"];
/// The limit of steps, services and backends, so that one input does not take long.
const MOST: usize = 12;

fn v6(net: u16, host: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host.into()).into()
}

fn bits(of: impl Into<u64>) -> impl Iterator<Item = u8> {
    let of = of.into();
    (0..64).filter(move |bit| of & 1 << bit != 0)
}

impl Wanted {
    /// Converts to the input of a plan.
    pub fn desired(&self) -> Desired {
        let cgroups: BTreeMap<String, u64> = [("/mine".into(), CGROUP), ("/other".into(), CGROUP + 1)].into();
        Desired {
            services: self.services.iter().take(MOST).map(One::service).collect(),
            addresses: bits(self.addresses & 15).map(|n| IpAddr::from([192, 0, 2, n])).collect(),
            unanswered: self.unanswered.then_some(SourceCode::REGISTRATOR).into_iter().collect(),
            max_connections: 8192,
            cgroups,
            excluded: bits(self.excluded & 7).map(u64::from).collect(),
            exposed: if self.excluded & 8 == 0 { Exposed::None } else { Exposed::All },
            parked: bits(self.parked).map(u32::from).collect(),
            // These histories have no drains by the operator.
            drained: Default::default(),
        }
    }
}

impl One {
    fn service(&self) -> (ServiceKey, (SourceCode, std::sync::Arc<Service>)) {
        let address = self.address.map(|n| match n % 6 {
            n @ 0..3 => IpAddr::from([198, 51, 100, n]),
            n => v6(1, n),
        });
        let protocol = if self.tcp { Protocol::Tcp } else { Protocol::Udp };
        let key = ServiceKey { address, port: 1000 + u16::from(self.port % 4), protocol };
        let source = if self.registrator { SourceCode::REGISTRATOR } else { SourceCode::MARATHON };
        let list = |set: u8| -> BTreeSet<AllowRule> {
            bits(set).filter_map(|bit| ENTRIES.get(usize::from(bit))?.parse().ok()).collect()
        };
        let settings = Settings {
            policy: Policy::ALL[usize::from(self.policy) % Policy::ALL.len()],
            allow: self.allow.map(|set| list(set).into_iter().collect()),
            reset: self.reset,
            affinity: Duration::from_secs(self.reset.into()),
            ..Settings::default()
        };
        let backends: BTreeMap<_, _> = self
            .backends
            .iter()
            .take(MOST)
            .map(Replica::backend)
            .map(|backend| ((backend.task.clone(), backend.address, backend.port), backend))
            .collect();
        let service =
            Service { name: "/app".into(), owner: None, backends: backends.into_values().collect(), settings };
        (key, (source, service.into()))
    }
}

impl Replica {
    fn backend(&self) -> Backend {
        let address = match self.host % 9 {
            n @ 0..3 => IpAddr::from([10, 0, 0, n]),
            n @ 3..6 => IpAddr::from([192, 0, 2, n - 3]),
            n => v6(0, n),
        };
        let state = match self.state % 6 {
            0 => State::Warming,
            1 => State::Draining,
            _ => State::Active,
        };
        Backend {
            task: format!("task-{}", self.task % 12),
            address,
            port: 1000 + u16::from(self.port % 4),
            weight: Weight::new(self.weight % 1001).unwrap_or_default(),
            maxconn: 0,
            state,
        }
    }
}

/// The desired states since the last complete plan: each may be partly in the maps.
struct Known {
    before: Vec<Desired>,
    /// Services that the invariants do not cover: they did not fit, or their source has not answered.
    unsure: BTreeSet<ServiceKey>,
}

impl Known {
    fn of(&self, desired: &Desired) -> Desired {
        let mut sure = desired.clone();
        sure.services.retain(|key, _| !self.unsure.contains(key));
        sure
    }
}

/// Carries out a history, and checks the invariants after every write.
pub fn carry_out(history: &History) {
    let small = Capacity { services: 5, backends: 24, slots: 3000, addresses: 5, ..Capacity::default() };
    let roomy = Capacity { services: 64, backends: 256, slots: 65_536, addresses: 16, ..Capacity::default() };
    let mut tables = MapState::new(if history.small { small } else { roomy });
    let (mut quarantine, mut now) = (Quarantine::default(), Instant::now());
    let mut settled = Desired::default();
    let mut last = Desired::default();
    let mut known = Known { before: vec![Desired::default()], unsure: BTreeSet::new() };
    let seed = u64::from(history.seed);
    for step in history.steps.iter().take(MOST) {
        let mut after = step.wanted.desired();
        let stays = |key: &ServiceKey| step.stay & 1 << (key.port % 8) != 0;
        after.services.retain(|key, _| !stays(key));
        after.services.extend(last.services.iter().filter(|(key, _)| stays(key)).map(|(k, s)| (*k, s.clone())));
        last.clone_from(&after);
        let planned = plan_changes(&after, &tables, &settled);
        assert_eq!(planned, plan(&after, &tables), "the plan of the changes must equal the whole plan");
        let Plan { ops, warnings, incomplete } = planned;
        // A service that does not fit is unchanged or dropped, and services of an unanswered source stay. The invariants do
        // not cover either.
        known.unsure.extend(&incomplete);
        if !warnings.is_empty() && incomplete.is_empty() {
            known.unsure.extend(after.services.keys().chain(known.before.iter().flat_map(|it| it.services.keys())));
        }
        if !after.unanswered.is_empty() {
            let kept =
                known.before.iter().flat_map(|it| it.services.keys()).filter(|key| !after.services.contains_key(key));
            known.unsure.extend(kept.copied().collect::<Vec<_>>());
        }
        let stops = step.stops.map(usize::from).filter(|stops| *stops < ops.len());
        let (before, sure): (Vec<_>, _) = (known.before.iter().map(|it| known.of(it)).collect(), known.of(&after));
        let before: Vec<_> = before.iter().collect();
        for done in 1..=stops.unwrap_or(ops.len()) {
            tables.apply(&ops[done - 1]);
            assert_serves_since(&tables, &before, &sure, seed + done as u64, &ops[..done]);
        }
        if stops.is_some() {
            known.before.push(after.clone());
            settled = Desired::default();
            if step.dies {
                quarantine = Quarantine::default();
            }
        } else {
            if warnings.is_empty() {
                assert_eq!(printed(&plan(&after, &tables).ops), "", "nothing is left to do");
                if known.unsure.is_empty() && after.unanswered.is_empty() {
                    assert_reached(&tables, &after, seed);
                }
                known.unsure.retain(|key| !after.services.contains_key(key) && !after.unanswered.is_empty());
            }
            known.before = vec![after.clone()];
            settled = after.clone();
            settled.services.retain(|key, _| !incomplete.contains(key));
        }
        let before: Vec<_> = known.before.iter().map(|it| known.of(it)).collect();
        let (first, rest) = before.split_first().expect("the first state is always there");
        let rest: Vec<_> = rest.iter().collect();
        for _ in 0..step.rests % 4 {
            now += QUARANTINE;
            for op in quarantine.release(&tables, |id| u64::from(id < 16 && step.used & 1 << id != 0), now) {
                tables.apply(&op);
                assert_serves_since(&tables, &rest, first, seed, &[op]);
            }
        }
    }
    ends(&mut tables, &last, quarantine, now);
}

/// Asserts that plans and quarantine come to an end once every source has answered and no socket uses a backend, and that
/// they leave no garbage.
pub fn ends(tables: &mut MapState, wanted: &Desired, mut quarantine: Quarantine, mut now: Instant) {
    let wanted = Desired { unanswered: BTreeSet::new(), ..wanted.clone() };
    let mut done = Vec::new();
    for _ in 0..12 {
        let mut ops = plan(&wanted, tables).ops;
        ops.iter().for_each(|op| tables.apply(op));
        now += QUARANTINE;
        let freed = quarantine.release(tables, |_| 0, now);
        freed.iter().for_each(|op| tables.apply(op));
        ops.extend(freed);
        done = ops;
    }
    assert_eq!(printed(&done), "", "plans and quarantine come to rest");
    assert!(tables.garbage().is_empty(), "{:?}", tables.garbage());
    let Plan { warnings, .. } = plan(&wanted, tables);
    if warnings.is_empty() {
        let backends: usize = wanted.services.values().map(|(_, service)| service.backends.len()).sum();
        assert_eq!(
            (tables.services().len(), tables.backends().len()),
            (wanted.services.len(), backends),
            "no id leaks"
        );
        assert_reached(tables, &wanted, 1);
    }
}
