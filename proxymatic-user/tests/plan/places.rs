//! Ports, protocols and families; what is on this host; what rests; who is excluded.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use proxymatic_common::{Features, Port, SourceCode};
use proxymatic_user::{
    model::{self, Policy, Protocol, Service, ServiceKey, State},
    plan::{Capacity, Desired, Exposed, MapState, plan},
};

use super::{
    active,
    any::{service, small},
    kernel::Kernel,
    law::{assert_serves, carry_out},
    one_service, publish,
};

const KEY: ServiceKey = ServiceKey::host(1234, Protocol::Tcp);

fn with_policy(policy: Policy, backends: Vec<model::Backend>) -> Desired {
    let mut desired = one_service(backends);
    desired.services.values_mut().for_each(|(_, service)| Arc::make_mut(service).settings.policy = policy);
    desired
}

/// How often each backend has a slot of service 0.
fn slots(tables: &MapState) -> BTreeMap<u32, usize> {
    let mut slots = BTreeMap::new();
    for slot in tables.slots_of(tables.services()[&0].head) {
        *slots.entry(slot.backend()).or_default() += 1;
    }
    slots
}

#[test]
fn a_port_has_its_bit_from_before_its_first_service_until_after_its_last() {
    let mut tables = small();
    let virtual_one = ServiceKey { address: Some(IpAddr::from([198, 51, 100, 7])), ..KEY };
    let udp = ServiceKey { protocol: Protocol::Udp, ..KEY };
    let of = |keys: &[ServiceKey]| {
        let one = |key: &ServiceKey| (*key, (SourceCode::MARATHON, service(vec![active("a", 1)]).into()));
        Desired { services: keys.iter().map(one).collect(), ..Desired::default() }
    };
    let ports = |written: &str| -> Vec<String> {
        let about = |line: &&str| line.contains("port ") || line.contains("frontend");
        written.lines().filter(about).map(str::to_owned).collect()
    };
    assert_eq!(
        ports(&publish(&mut tables, &of(&[KEY, virtual_one]))),
        ["set port 1234/tcp", "put frontend 1234/tcp class 1 service 0", "put frontend 1234/tcp class 2 service 1"]
    );
    assert_eq!(
        ports(&publish(&mut tables, &of(&[virtual_one, udp]))),
        ["set port 1234/udp", "put frontend 1234/udp class 1 service 2", "delete frontend 1234/tcp class 1"]
    );
    assert_eq!(ports(&publish(&mut tables, &of(&[udp]))), ["delete frontend 1234/tcp class 2", "clear port 1234/tcp"]);
    // A bit that somebody left, as an agent that died between the two does.
    tables.apply(&proxymatic_user::plan::MapOp::SetPort(Port::new(9), 6));
    assert_eq!(publish(&mut tables, &of(&[udp])), "clear port 9/tcp\n");
}

#[test]
fn udp_and_ipv6_are_forwarded() {
    let six: IpAddr = "2001:db8::1".parse().unwrap();
    let at = |address: Option<&str>, protocol| ServiceKey {
        address: address.map(|text| text.parse().unwrap()),
        port: 53,
        protocol,
    };
    let backend = || model::Backend { address: six, ..active("six", 1) };
    for key in [at(None, Protocol::Udp), at(Some("2001:db8:1::7"), Protocol::Tcp), at(None, Protocol::Tcp)] {
        let services = [(key, (SourceCode::MARATHON, service(vec![backend()]).into()))].into();
        let mut tables = small();
        carry_out(&mut tables, &Desired::default(), &Desired { services, ..Desired::default() }, 1);
        assert_eq!(Kernel::new(&tables, 1).backend_of(key), Some((six, 31_000)), "{key}");
    }
}

#[test]
fn backends_on_this_host_are_known_as_such_while_addresses_come_and_go() {
    let mut desired = one_service(vec![
        active("here", 1),
        active("there", 2),
        model::Backend { address: IpAddr::from([127, 0, 0, 1]), port: 9, ..active("loop", 3) },
    ]);
    let mut tables = small();
    let places = |tables: &MapState| -> Vec<u8> { tables.backends().values().map(|it| it.backend.local).collect() };
    let own = |tables: &MapState| tables.services()[&0].settings.features.has(Features::OWN_LISTENER);
    publish(&mut tables, &desired);
    assert_eq!((places(&tables), own(&tables)), (vec![0, 1, 0], false));
    desired.addresses = [IpAddr::from([10, 0, 0, 1])].into();
    assert_eq!(
        publish(&mut tables, &desired),
        "put backend 0 10.0.0.1:31000 active weight 500 on this host\nput address 10.0.0.1 class 1\n"
    );
    // A replica here that listens on the service port is no stranger there.
    desired.services.values_mut().for_each(|(_, service)| {
        let backends = &mut Arc::make_mut(service).backends;
        backends.iter_mut().filter(|it| it.task == "here").for_each(|it| it.port = 1234);
    });
    publish(&mut tables, &desired);
    assert!(own(&tables));
    // Those of a source that is silent too.
    let silent = Desired { unanswered: [SourceCode::MARATHON].into(), ..Desired::default() };
    publish(&mut tables, &silent);
    assert_eq!((places(&tables), own(&tables)), (vec![1, 1, 0, 0], false), "the first is of a task that is gone");
    assert_eq!(publish(&mut tables, &silent), "");
}

#[test]
fn a_backend_that_rests_is_drawn_only_where_no_other_is_active() {
    for policy in Policy::ALL {
        let draining = model::Backend { state: State::Draining, ..active("d", 4) };
        let backends = vec![active("a", 1), active("b", 2), draining];
        let mut desired = with_policy(policy, backends);
        let mut tables = small();
        publish(&mut tables, &desired);
        let drawn = |tables: &MapState| slots(tables).into_keys().collect::<Vec<_>>();
        assert_eq!(drawn(&tables), [0, 1]);
        for (resting, left) in
            [(vec![0], vec![1]), (vec![0, 1], vec![0, 1]), (vec![2], vec![0, 1]), (vec![], vec![0, 1])]
        {
            desired.parked = resting.into_iter().collect();
            publish(&mut tables, &desired);
            assert_eq!(drawn(&tables), left, "{policy}");
            assert!(tables.backends().iter().all(|(id, it)| (*id == 2) != (it.backend.state.name() == "active")));
        }
    }
}

#[test]
fn where_all_backends_drain_each_of_them_is_drawn() {
    let no_weight = model::Backend { weight: model::Weight::new(0).unwrap(), ..active("a", 1) };
    let before = one_service(vec![no_weight, active("b", 2)]);
    let mut tables = small();
    publish(&mut tables, &before);
    let drawn = |tables: &MapState| slots(tables).into_keys().collect::<Vec<_>>();
    assert_eq!(drawn(&tables), [1]);
    // The other one by the operator.
    let after = Desired { drained: [1].into(), ..before.clone() };
    carry_out(&mut tables, &before, &after, 1);
    assert_eq!(drawn(&tables), [0, 1]);
    (0..20).for_each(|seed| assert_serves(&tables, &after, &after, seed, &[]));
}

#[test]
fn an_id_that_rested_for_its_last_owner_does_not_for_the_next() {
    let mut desired = one_service(vec![active("a", 1), active("b", 2)]);
    desired.parked = [0].into();
    let mut tables = small();
    publish(&mut tables, &desired);
    assert_eq!(slots(&tables).into_keys().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn policies_that_hash_get_a_table_and_the_others_slots_by_weight() {
    let weighted =
        |task, host, weight| model::Backend { weight: model::Weight::new(weight).unwrap(), ..active(task, host) };
    for policy in Policy::ALL {
        let mut tables = small();
        publish(&mut tables, &with_policy(policy, vec![weighted("a", 1, 100), weighted("b", 2, 300)]));
        let slots = slots(&tables);
        let hashes = matches!(policy, Policy::Source | Policy::Maglev);
        assert_eq!(slots.values().sum::<usize>(), if hashes { 1021 } else { 4 }, "{policy}");
        assert!((slots[&1] as f64 / slots[&0] as f64 - 3.0).abs() < 0.1, "{policy}: {slots:?}");
        assert_eq!(tables.services()[&0].settings.policy.name(), policy.to_string());
    }
}

#[test]
fn services_are_exposed_where_there_is_an_interface_and_then_have_a_table_unless_they_take_turns() {
    for policy in Policy::ALL {
        let mut desired = with_policy(policy, vec![active("a", 1), active("b", 2)]);
        let label = |desired: &mut Desired, expose| {
            desired.services.values_mut().for_each(|(_, service)| Arc::make_mut(service).settings.expose = expose);
        };
        let plain = if matches!(policy, Policy::Source | Policy::Maglev) { 1021 } else { 2 };
        let table = if policy == Policy::Roundrobin { 2 } else { 1021 };
        let mut tables = small();
        for (exposed, labelled, is) in [
            (Exposed::None, false, false),
            (Exposed::None, true, false),
            (Exposed::Labelled, true, true),
            (Exposed::Labelled, false, false),
            (Exposed::All, false, true),
            (Exposed::None, true, false),
        ] {
            label(&mut desired, labelled);
            desired.exposed = exposed;
            publish(&mut tables, &desired);
            let settings = tables.services()[&0].settings;
            assert_eq!(settings.features.has(Features::EXPOSE), is, "{policy} {exposed:?} {labelled}");
            assert_eq!(settings.policy.name(), policy.to_string());
            let length = slots(&tables).values().sum::<usize>();
            assert_eq!(length, if is { table } else { plain }, "{policy} {exposed:?} {labelled}");
        }
    }
}

#[test]
fn what_the_operator_drains_of_a_silent_source_leaves_an_exposed_service_its_table() {
    let mut desired = one_service(vec![active("a", 1), active("b", 2)]);
    desired.exposed = Exposed::All;
    let mut tables = small();
    publish(&mut tables, &desired);
    let drained = [0].into();
    let desired = Desired::from_maps(&tables, drained);
    publish(&mut tables, &desired);
    assert_eq!(slots(&tables), [(1, 1021)].into());
}

#[test]
fn the_self_test_is_never_exposed() {
    let mut desired = one_service(vec![active("a", 1)]);
    desired.exposed = Exposed::All;
    desired.services.values_mut().for_each(|(source, _)| *source = SourceCode::SELF);
    let mut tables = small();
    publish(&mut tables, &desired);
    assert!(!tables.services()[&0].settings.features.has(Features::EXPOSE));
}

#[test]
fn settings_are_those_of_the_service_and_the_hosts_where_it_says_nothing() {
    let mut desired = one_service(vec![active("a", 1)]);
    desired.max_connections = 8192;
    let mut tables = small();
    publish(&mut tables, &desired);
    let settings = tables.services()[&0].settings;
    assert_eq!((settings.maxconn, settings.syn_retries, settings.connect_ms), (8192, 1, 3000));
    assert_eq!((settings.affinity, settings.idle_client_ms, settings.idle_server_ms), (0, 0, 0));
    let ask = |service: &mut Service| {
        let settings = &mut service.settings;
        settings.maxconn = Some(0);
        settings.connect = Duration::from_millis(250);
        settings.client = Some(Duration::from_secs(30));
        settings.affinity = Duration::from_secs(60);
        (settings.reset, settings.expose) = (true, true);
    };
    desired.services.values_mut().for_each(|(_, service)| ask(Arc::make_mut(service)));
    assert_eq!(
        publish(&mut tables, &desired),
        "put service 0 leastconn affinity 60s connect 250ms client 30000ms, reset\n"
    );
}

#[test]
fn a_new_owner_of_a_service_id_begins_with_counts_of_zero() {
    let mut tables = small();
    let written = publish(&mut tables, &one_service(vec![active("a", 1)]));
    let at = |part: &str| written.lines().position(|line| line.starts_with(part)).unwrap();
    assert!(at("reset load of service 0") < at("put frontend"));
    assert!(!publish(&mut tables, &one_service(vec![active("b", 1)])).contains("reset load of service"));
}

#[test]
fn excluded_cgroups_come_and_go_and_too_many_are_warned_of() {
    let mut tables = MapState::new(Capacity { excluded: 2, ..small().capacity });
    let of = |ids: &[u64]| Desired { excluded: ids.iter().copied().collect(), ..Desired::default() };
    assert_eq!(publish(&mut tables, &of(&[7, 8])), "exclude cgroup 7\nexclude cgroup 8\n");
    assert_eq!(publish(&mut tables, &of(&[8])), "no longer exclude cgroup 7\n");
    let planned = plan(&of(&[7, 8, 9]), &tables);
    assert_eq!((planned.ops.len(), planned.warnings.len()), (0, 1));
}

/// Found by fuzzing: services whose addresses did not fit were given other classes by every plan, for ever.
#[test]
fn virtual_addresses_that_do_not_fit_are_warned_of_and_left_and_the_others_stay_served() {
    let mut tables = MapState::new(Capacity { addresses: 3, ..small().capacity });
    let at = |n: u8| ServiceKey { address: Some(IpAddr::from([198, 51, 100, n])), ..KEY };
    let of = |hosts: &[u8], numbers: &[u8]| {
        let one = |n: &u8| (at(*n), (SourceCode::MARATHON, service(vec![active("a", *n)]).into()));
        let addresses = hosts.iter().map(|n| IpAddr::from([192, 0, 2, *n])).collect();
        Desired { services: numbers.iter().map(one).collect(), addresses, ..Desired::default() }
    };
    publish(&mut tables, &of(&[1], &[5]));
    // The one that has a class keeps it, though others come before it.
    let more = of(&[1], &[2, 3, 4, 5]);
    publish(&mut tables, &more);
    let planned = plan(&more, &tables);
    assert_eq!(planned.ops, [], "nothing is left to do");
    let said: Vec<_> = planned.warnings.iter().map(|warning| warning.reason.as_str()).collect();
    assert!(
        said.len() == 2 && said.iter().all(|it| it.contains("does not fit: ADDRESSES holds 3 entries")),
        "{said:?}"
    );
    let kernel = Kernel::new(&tables, 1);
    assert_eq!([2, 3, 4, 5].map(|n| kernel.backend_of(at(n)).is_some()), [true, false, false, true]);
}

#[test]
fn an_address_that_comes_gets_the_place_of_one_that_goes_where_all_are_taken() {
    let mut tables = MapState::new(Capacity { addresses: 2, ..small().capacity });
    let of = |hosts: &[u8]| Desired {
        addresses: hosts.iter().map(|n| IpAddr::from([192, 0, 2, *n])).collect(),
        ..Desired::default()
    };
    publish(&mut tables, &of(&[1, 2]));
    let planned = plan(&of(&[2, 3]), &tables);
    assert_eq!((planned.ops.len(), planned.warnings), (2, vec![]));
    for op in &planned.ops {
        tables.apply(op);
        assert!(tables.addresses().len() <= 2, "the kernel would refuse it: {op}");
    }
    assert_eq!(publish(&mut tables, &of(&[2, 3])), "");
}

/// What only damage of maps can bring about comes to rest too.
#[test]
fn two_frontends_that_lead_to_one_service_and_one_backend_twice_are_told_apart() {
    use proxymatic_common::Frontend;
    use proxymatic_user::plan::MapOp;
    let mut tables = small();
    let wanted = one_service(vec![active("a", 1)]);
    publish(&mut tables, &wanted);
    let (frontend, id) = tables.frontends().iter().map(|(frontend, id)| (*frontend, *id)).next().expect("one");
    tables.apply(&MapOp::PutFrontend(Frontend { port: Port::new(99), ..frontend }, id));
    let again = tables.backends()[&0].clone();
    tables.apply(&MapOp::PutBackend(7, again.backend));
    tables.apply(&MapOp::PutBackendName(7, again.task));
    publish(&mut tables, &wanted);
    assert_eq!(publish(&mut tables, &wanted), "");
    assert!(Kernel::new(&tables, 1).backend_of(KEY).is_some());
    assert_eq!(tables.frontends().keys().collect::<Vec<_>>(), [&frontend]);
    let active = tables.backends().values().filter(|it| it.backend.state.name() == "active");
    assert_eq!(active.count(), 1);
}
