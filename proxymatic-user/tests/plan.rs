//! Plans, checked with the code that will read their result: after every single write, flows are routed through the
//! data plane's own decisions.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use proxymatic_common::{
    Address, Backend, Cell64, Class, Config, Families, Frontend, Head, Load, Loopback, PROTOCOL_TCP, Port, Reason,
    Slot, SourceCode,
};
use proxymatic_ebpf::{Flow, Verdict, route};
use proxymatic_user::{
    model::{self, Policy, Protocol, Service, ServiceKey, State, Weight},
    plan::{Capacity, Desired, MapOp, QUARANTINE, Quarantine, Tables, plan},
};

/// Tables as the hooks would see them.
struct Kernel<'a> {
    tables: &'a Tables,
    config: Config,
    loads: Vec<Load>,
    random: Cell<u64>,
    counts: RefCell<BTreeMap<Reason, u64>>,
}

impl<'a> Kernel<'a> {
    fn new(tables: &'a Tables, seed: u64) -> Self {
        let config = Config { loopback: Loopback::ALL, ..Config::default() };
        let loads = (0..tables.capacity.backends).map(|_| Load::default()).collect();
        Self { tables, config, loads, random: Cell::new(seed | 1), counts: RefCell::default() }
    }

    fn dial(&self, dialled: Dialled) -> Verdict {
        let (address, port) = dialled;
        let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)).into();
        let flow = Flow { address, port: Port::new(port), protocol: PROTOCOL_TCP, families: Families::V4 };
        route(self, &flow)
    }
}

impl proxymatic_ebpf::Tables for Kernel<'_> {
    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }
    fn netns(&self) -> u64 {
        0
    }
    fn class(&self, address: &Address) -> Option<Class> {
        self.tables.addresses().get(address).copied()
    }
    fn frontend(&self, frontend: &Frontend) -> Option<u32> {
        self.tables.frontends().get(frontend).copied()
    }
    fn head(&self, service: u32) -> Head {
        self.tables.services().get(&service).map(|entry| entry.head).unwrap_or_default()
    }
    fn slot(&self, index: u32) -> Option<Slot> {
        self.tables.slot(index)
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.tables.backends().get(&id).map(|entry| &entry.backend)
    }
    fn load(&self, id: u32) -> Option<&Load> {
        self.loads.get(id as usize)
    }
    fn random(&self) -> u32 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 32) as u32
    }
    fn now(&self) -> u64 {
        0
    }
    fn add(&self, cell: &Cell64) {
        cell.add(1);
    }
    fn count(&self, reason: Reason) {
        *self.counts.borrow_mut().entry(reason).or_default() += 1;
    }
}

type Answers = BTreeSet<(IpAddr, u16)>;
/// A virtual address, or none for the host's own, and a port.
type Dialled = (Option<IpAddr>, u16);

/// What the services of a desired state may be answered by: the backends that take traffic, or the draining ones
/// where there are none.
fn willing(desired: &Desired) -> BTreeMap<Dialled, Answers> {
    let answers = |service: &Service| {
        let of = |wanted: &[State], zero: bool| -> Answers {
            let fit = |b: &&model::Backend| wanted.contains(&b.state) && (zero || b.weight.get() > 0);
            service.backends.iter().filter(fit).map(|b| (b.address, b.port)).collect()
        };
        let active = of(&[State::Active], false);
        if active.is_empty() { of(&[State::Active, State::Draining], true) } else { active }
    };
    desired.services.iter().map(|(key, (_, service))| ((key.address, key.port), answers(service))).collect()
}

/// The law: whoever had backends and is to have some has some after each write, and only old or new ones.
fn assert_serves(tables: &Tables, before: &Desired, after: &Desired, seed: u64, done: &[MapOp]) {
    let kernel = Kernel::new(tables, seed);
    let (old, new) = (willing(before), willing(after));
    for port in old.keys().chain(new.keys()) {
        let none = BTreeSet::new();
        let (was, will) = (old.get(port).unwrap_or(&none), new.get(port).unwrap_or(&none));
        for _ in 0..4 {
            match kernel.dial(*port) {
                Verdict::Translate(choice) => {
                    let at = (IpAddr::from(choice.address), choice.port.get());
                    assert!(was.contains(&at) || will.contains(&at), "{port:?} led to {at:?} after {done:#?}");
                }
                verdict if !was.is_empty() && !will.is_empty() => panic!("{port:?}: {verdict:?} after {done:#?}"),
                _ => {}
            }
        }
    }
}

/// Applies a plan write by write, checking the law after each.
fn carry_out(tables: &mut Tables, before: &Desired, after: &Desired, seed: u64) {
    let planned = plan(after, tables);
    assert_eq!(planned.complaints, [], "everything fits");
    for done in 1..=planned.ops.len() {
        tables.apply(&planned.ops[done - 1]);
        assert_serves(tables, before, after, seed + done as u64, &planned.ops[..done]);
    }
    assert_eq!(plan(after, tables).ops, [], "nothing is left to do");
    let kernel = Kernel::new(tables, seed);
    for (port, answers) in willing(after) {
        assert_eq!(matches!(kernel.dial(port), Verdict::Translate(_)), !answers.is_empty(), "{port:?}");
    }
}

fn backend() -> impl Strategy<Value = model::Backend> {
    let state = prop_oneof![4 => Just(State::Active), 1 => Just(State::Warming), 1 => Just(State::Draining)];
    let weight = prop_oneof![3 => Just(500), 1 => Just(0), 2 => 1_u16..=1000];
    // Few hosts and ports, so that tasks meet on one address as they do in Mesos.
    (0_u32..12, 1_u8..4, 1_u16..4, weight, state).prop_map(|(task, host, port, weight, state)| model::Backend {
        task: format!("task-{task}"),
        address: IpAddr::from([10, 0, 0, host]),
        port: 31_000 + port,
        weight: Weight::new(weight).unwrap_or_default(),
        maxconn: 0,
        state,
    })
}

fn service(backends: Vec<model::Backend>) -> Service {
    let unique: BTreeMap<_, _> = backends.into_iter().map(|b| ((b.task.clone(), b.address, b.port), b)).collect();
    Service { name: "/app".into(), policy: Policy::Leastconn, backends: unique.into_values().collect() }
}

fn desired() -> impl Strategy<Value = Desired> {
    let key = (prop::option::weighted(0.3, 1_u8..4), 1_u16..5);
    let services = prop::collection::btree_map(key, prop::collection::vec(backend(), 0..7), 0..4);
    let addresses = prop::collection::btree_set(1_u8..4, 0..3);
    (services, addresses).prop_map(|(services, addresses)| Desired {
        addresses: addresses.into_iter().map(|n| IpAddr::from([192, 0, 2, n])).collect(),
        services: services
            .into_iter()
            .map(|((address, port), backends)| {
                let address = address.map(|n| IpAddr::from([198, 51, 100, n]));
                let key = ServiceKey { address, port: 1000 + port, protocol: Protocol::Tcp };
                (key, (SourceCode::MARATHON, service(backends).into()))
            })
            .collect(),
        silent: BTreeSet::new(),
    })
}

/// Small maps, so that ids and slots are soon used again.
fn small() -> Tables {
    Tables::new(Capacity { services: 16, backends: 96, slots: 65_536, addresses: 16 })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn after_every_write_of_every_plan_flows_reach_old_or_new_backends(
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
            prop_assert_eq!(plan(&after, &tables).ops, []);
            prop_assert!(tables.garbage().is_empty(), "{:?}", tables.garbage());
            before = after;
        }
    }

    /// An agent that dies between any two writes leaves tables from which the next one gets everything right.
    #[test]
    fn a_plan_that_stops_anywhere_is_finished_by_the_next_and_leaves_no_garbage(
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
        prop_assert_eq!(plan(&third, &tables).ops, []);
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

fn printed(ops: &[MapOp]) -> String {
    ops.iter().map(|op| format!("{op}\n")).collect()
}

fn publish(tables: &mut Tables, desired: &Desired) -> String {
    let ops = plan(desired, tables).ops;
    ops.iter().for_each(|op| tables.apply(op));
    printed(&ops)
}

#[test]
fn a_new_service_is_made_from_the_back_and_found_last() {
    let mut tables = small();
    expect_test::expect![[r#"
        reset load of backend 0
        reset load of backend 1
        name backend 0 a
        name backend 1 b
        put backend 0 10.0.0.1:31000 active weight 500
        put backend 1 10.0.0.2:31000 active weight 500
        put slots 0..2
        put service 0
        name service 0 /app
        switch service 0 to 2 slots from 0
        put frontend 1234/tcp class 1 service 0
    "#]]
    .assert_eq(&publish(&mut tables, &one_service(vec![active("a", 1), active("b", 2)])));
}

#[test]
fn a_task_that_ended_leaves_the_slots_before_it_is_called_gone() {
    let mut tables = small();
    publish(&mut tables, &one_service(vec![active("a", 1), active("b", 2)]));
    expect_test::expect![[r#"
        put slots 2..3
        switch service 0 to 1 slots from 2
        lower backend 0 10.0.0.1:31000 gone weight 500
    "#]]
    .assert_eq(&publish(&mut tables, &one_service(vec![active("b", 2)])));
}

#[test]
fn a_service_that_ended_is_lost_from_sight_first() {
    let mut tables = small();
    publish(&mut tables, &one_service(vec![active("a", 1)]));
    expect_test::expect![[r#"
        delete frontend 1234/tcp class 1
        lower backend 0 10.0.0.1:31000 gone weight 500
    "#]]
    .assert_eq(&publish(&mut tables, &Desired::default()));
}

#[test]
fn ids_rest_for_five_seconds_and_while_a_socket_uses_them() {
    let mut tables = small();
    let mut quarantine = Quarantine::default();
    publish(&mut tables, &one_service(vec![active("a", 1), active("b", 2)]));
    publish(&mut tables, &one_service(vec![active("b", 2)]));
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    assert_eq!(quarantine.release(&tables, |_| 0, at(0)), []);
    assert_eq!(quarantine.release(&tables, |_| 0, at(4)), []);
    let ops = quarantine.release(&tables, |_| 1, at(5));
    assert_eq!(printed(&ops), "clear slots 0..2\n", "a socket still uses the backend");
    ops.iter().for_each(|op| tables.apply(op));
    let ops = quarantine.release(&tables, |_| 0, at(60));
    assert_eq!(printed(&ops), "delete name of backend 0\nfree backend 0\n");
    ops.iter().for_each(|op| tables.apply(op));
    // The next owner of the id is another generation: a slot or a socket of the first does not match it.
    publish(&mut tables, &one_service(vec![active("b", 2), active("c", 3)]));
    assert_eq!(tables.backends()[&0].backend.generation, 2);
}

#[test]
fn a_task_on_the_address_of_one_that_ended_is_another_backend() {
    let mut tables = small();
    publish(&mut tables, &one_service(vec![active("a", 1)]));
    publish(&mut tables, &one_service(vec![active("z", 1)]));
    let entries = tables.backends().values();
    let states: Vec<_> = entries.map(|entry| (entry.task.as_str(), entry.backend.state.name())).collect();
    assert_eq!(states, [("a", "gone"), ("z", "active")]);
}

#[test]
fn a_service_that_does_not_fit_is_left_out_whole_and_the_rest_is_served() {
    for (capacity, word) in [
        (Capacity { services: 1, ..small().capacity }, "--max-services"),
        (Capacity { backends: 1, ..small().capacity }, "--max-backends"),
        (Capacity { slots: 1, ..small().capacity }, "--max-slots"),
    ] {
        let mut tables = Tables::new(capacity);
        let mut desired = one_service(vec![active("a", 1)]);
        let key = ServiceKey::host(4321, Protocol::Tcp);
        desired.services.insert(key, (SourceCode::MARATHON, service(vec![active("b", 2), active("c", 3)]).into()));
        let planned = plan(&desired, &tables);
        assert_eq!(planned.complaints.len(), 1, "{:?}", planned.complaints);
        assert!(planned.complaints[0].reason.contains(word), "{:?}", planned.complaints);
        planned.ops.iter().for_each(|op| tables.apply(op));
        assert_eq!(tables.frontends().len(), 1);
        assert_eq!(tables.backends().len(), 1, "nothing half done");
    }
}

#[test]
fn what_this_version_cannot_forward_is_said_and_left_out() {
    let mut desired = one_service(vec![active("a", 1)]);
    let six = model::Backend { address: "2001:db8::1".parse().unwrap(), ..active("six", 1) };
    desired.services.values_mut().for_each(|(_, service)| Arc::make_mut(service).backends.push(six.clone()));
    let key = ServiceKey::host(53, Protocol::Udp);
    desired.services.insert(key, (SourceCode::MARATHON, service(vec![active("d", 4)]).into()));
    let mut tables = small();
    let planned = plan(&desired, &tables);
    let reasons: BTreeSet<_> = planned.complaints.iter().map(|complaint| complaint.reason.as_str()).collect();
    let expected = [
        "2001:db8::1 is not used: this version forwards to IPv4 addresses only",
        "service port 53/udp is not forwarded: this version forwards TCP only",
    ];
    assert_eq!(reasons, expected.into());
    planned.ops.iter().for_each(|op| tables.apply(op));
    assert_eq!((tables.frontends().len(), tables.backends().len()), (1, 1));
}

#[test]
fn a_virtual_address_is_a_class_of_its_own_and_goes_with_its_last_service() {
    let mut tables = small();
    let mut desired = one_service(vec![active("a", 1)]);
    let address = Some(IpAddr::from([198, 51, 100, 7]));
    let key = ServiceKey { address, port: 80, protocol: Protocol::Tcp };
    desired.services.insert(key, (SourceCode::MARATHON, service(vec![active("v", 9)]).into()));
    publish(&mut tables, &desired);
    let lead = |tables: &Tables, at: Dialled| match Kernel::new(tables, 7).dial(at) {
        Verdict::Translate(choice) => Some(IpAddr::from(choice.address)),
        _ => None,
    };
    assert_eq!(lead(&tables, (address, 80)), Some(IpAddr::from([10, 0, 0, 9])));
    assert_eq!(lead(&tables, (None, 80)), None, "not on the host's own addresses");
    assert_eq!(lead(&tables, (address, 1234)), None, "nor the host's services on it");
    assert!(publish(&mut tables, &one_service(vec![active("a", 1)])).starts_with("delete address 198.51.100.7\n"));
    assert_eq!(tables.addresses().len(), 0);
}

#[test]
fn a_virtual_address_that_is_the_hosts_own_is_complained_of() {
    let address = IpAddr::from([192, 0, 2, 1]);
    let mut desired = Desired { addresses: [address].into(), ..Desired::default() };
    let key = ServiceKey { address: Some(address), port: 80, protocol: Protocol::Tcp };
    desired.services.insert(key, (SourceCode::MARATHON, service(vec![active("v", 9)]).into()));
    let planned = plan(&desired, &small());
    assert_eq!(
        planned.complaints[0].reason,
        "virtual address 192.0.2.1:80/tcp is not served: it is an address of this host"
    );
}

/// One service of registrator's on the host's addresses, and one on a virtual address.
fn of_registrator() -> Desired {
    let mut desired = one_service(vec![active("a", 1)]);
    let key = ServiceKey { address: Some(IpAddr::from([198, 51, 100, 7])), port: 80, protocol: Protocol::Tcp };
    desired.services.insert(key, (SourceCode::MARATHON, service(vec![active("v", 9)]).into()));
    desired.services.values_mut().for_each(|(source, _)| *source = SourceCode::REGISTRATOR);
    desired
}

#[test]
fn what_a_silent_source_had_stays_as_it_is_with_its_virtual_address() {
    let mut tables = small();
    publish(&mut tables, &of_registrator());
    let silent = Desired { silent: [SourceCode::REGISTRATOR].into(), ..Desired::default() };
    assert_eq!(publish(&mut tables, &silent), "");
    let mut beside = silent.clone();
    let key = ServiceKey::host(4321, Protocol::Tcp);
    beside.services.insert(key, (SourceCode::MARATHON, service(vec![active("b", 2)]).into()));
    publish(&mut tables, &beside);
    assert_eq!(publish(&mut tables, &beside), "");
    assert_eq!(tables.frontends().len(), 3, "what others say comes beside it");
    // Once it has spoken, what it does not say goes.
    publish(&mut tables, &Desired::default());
    assert_eq!((tables.frontends().len(), tables.addresses().len()), (0, 0));
}

#[test]
fn what_another_source_says_of_the_same_port_takes_the_place_of_a_silent_ones() {
    let mut tables = small();
    publish(&mut tables, &of_registrator());
    let mut desired = one_service(vec![active("z", 7)]);
    desired.silent = [SourceCode::REGISTRATOR].into();
    carry_out(&mut tables, &of_registrator(), &desired, 3);
    let owner = |tables: &Tables| tables.services().values().map(|entry| entry.settings.source).collect::<Vec<_>>();
    assert_eq!(owner(&tables), [SourceCode::MARATHON, SourceCode::REGISTRATOR]);
}

#[test]
fn only_the_services_of_the_silent_source_stay() {
    let mut tables = small();
    publish(&mut tables, &of_registrator());
    let silent = Desired { silent: [SourceCode::FILE].into(), ..Desired::default() };
    publish(&mut tables, &silent);
    assert_eq!(tables.frontends().len(), 0);
}
