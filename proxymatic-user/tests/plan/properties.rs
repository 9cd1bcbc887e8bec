//! The properties of a service in the maps: port bits, protocols, local and parked backends, policies, exposure,
//! settings.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use proxymatic_common::{Features, Port, SourceCode};
use proxymatic_user::{
    model::{self, Policy, Protocol, Service, ServiceKey, State},
    plan::{Capacity, Desired, Exposed, MapState, plan},
};

use super::{
    active,
    invariants::{assert_serves, carry_out},
    kernel::Kernel,
    one_service, publish,
    strategies::{service, small},
};

const KEY: ServiceKey = ServiceKey::host(1234, Protocol::Tcp);

fn with_policy(policy: Policy, backends: Vec<model::Backend>) -> Desired {
    let mut desired = one_service(backends);
    desired.services.values_mut().for_each(|(_, service)| Arc::make_mut(service).settings.policy = policy);
    desired
}

/// Returns the number of slots of service 0 for each backend.
fn slots(tables: &MapState) -> BTreeMap<u32, usize> {
    let mut slots = BTreeMap::new();
    for slot in tables.slots_of(tables.services()[&0].slot_range) {
        *slots.entry(slot.backend()).or_default() += 1;
    }
    slots
}

#[test]
fn port_bit_outlives_the_services_of_the_port() {
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
    // A bit without a service, as an agent leaves that dies between the two writes.
    tables.apply(&proxymatic_user::plan::MapOp::SetPort(Port::new(9), 6));
    assert_eq!(publish(&mut tables, &of(&[udp])), "clear port 9/tcp\n");
}

#[test]
fn udp_and_ipv6_services_have_backends() {
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
fn backends_become_local_with_the_addresses_of_the_host() {
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
    // A local replica that listens on the service port is not a foreign listener.
    desired.services.values_mut().for_each(|(_, service)| {
        let backends = &mut Arc::make_mut(service).backends;
        backends.iter_mut().filter(|it| it.task == "here").for_each(|it| it.port = 1234);
    });
    publish(&mut tables, &desired);
    assert!(own(&tables));
    // The same holds for services of a source that has not answered.
    let unanswered = Desired { unanswered: [SourceCode::MARATHON].into(), ..Desired::default() };
    publish(&mut tables, &unanswered);
    assert_eq!((places(&tables), own(&tables)), (vec![1, 1, 0, 0], false), "the first backend's task is gone");
    assert_eq!(publish(&mut tables, &unanswered), "");
}

#[test]
fn parked_backend_is_drawn_only_if_no_other_is_active() {
    for policy in Policy::ALL {
        let draining = model::Backend { state: State::Draining, ..active("d", 4) };
        let backends = vec![active("a", 1), active("b", 2), draining];
        let mut desired = with_policy(policy, backends);
        let mut tables = small();
        publish(&mut tables, &desired);
        let drawn = |tables: &MapState| slots(tables).into_keys().collect::<Vec<_>>();
        assert_eq!(drawn(&tables), [0, 1]);
        for (parked, left) in
            [(vec![0], vec![1]), (vec![0, 1], vec![0, 1]), (vec![2], vec![0, 1]), (vec![], vec![0, 1])]
        {
            desired.parked = parked.into_iter().collect();
            publish(&mut tables, &desired);
            assert_eq!(drawn(&tables), left, "{policy}");
            assert!(tables.backends().iter().all(|(id, it)| (*id == 2) != (it.backend.state.name() == "active")));
        }
    }
}

#[test]
fn all_draining_backends_are_drawn_if_no_other_exists() {
    let no_weight = model::Backend { weight: model::Weight::new(0).unwrap(), ..active("a", 1) };
    let before = one_service(vec![no_weight, active("b", 2)]);
    let mut tables = small();
    publish(&mut tables, &before);
    let drawn = |tables: &MapState| slots(tables).into_keys().collect::<Vec<_>>();
    assert_eq!(drawn(&tables), [1]);
    // The operator drains the other one.
    let after = Desired { drained: [1].into(), ..before.clone() };
    carry_out(&mut tables, &before, &after, 1);
    assert_eq!(drawn(&tables), [0, 1]);
    (0..20).for_each(|seed| assert_serves(&tables, &after, &after, seed, &[]));
}

#[test]
fn new_backend_does_not_get_a_parked_id() {
    let mut desired = one_service(vec![active("a", 1), active("b", 2)]);
    desired.parked = [0].into();
    let mut tables = small();
    publish(&mut tables, &desired);
    assert_eq!(slots(&tables).into_keys().collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn hashing_policies_get_a_table_and_others_weighted_slots() {
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
fn exposed_service_has_a_table_except_with_roundrobin() {
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
fn drain_keeps_the_table_of_a_retained_exposed_service() {
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
fn self_test_service_is_never_exposed() {
    let mut desired = one_service(vec![active("a", 1)]);
    desired.exposed = Exposed::All;
    desired.services.values_mut().for_each(|(source, _)| *source = SourceCode::SELF);
    let mut tables = small();
    publish(&mut tables, &desired);
    assert!(!tables.services()[&0].settings.features.has(Features::EXPOSE));
}

#[test]
fn service_settings_override_those_of_the_host() {
    let mut desired = one_service(vec![active("a", 1)]);
    desired.max_connections = 8192;
    let mut tables = small();
    publish(&mut tables, &desired);
    let settings = tables.services()[&0].settings;
    assert_eq!((settings.maxconn, settings.syn_retries, settings.connect_ms), (8192, 1, 3000));
    assert_eq!((settings.affinity, settings.idle_client_ms, settings.idle_server_ms), (0, 0, 0));
    let set = |service: &mut Service| {
        let settings = &mut service.settings;
        settings.maxconn = Some(0);
        settings.connect = Duration::from_millis(250);
        settings.client = Some(Duration::from_secs(30));
        settings.affinity = Duration::from_secs(60);
        (settings.reset, settings.expose) = (true, true);
    };
    desired.services.values_mut().for_each(|(_, service)| set(Arc::make_mut(service)));
    assert_eq!(
        publish(&mut tables, &desired),
        "put service 0 leastconn affinity 60s connect 250ms client 30000ms, reset\n"
    );
}

#[test]
fn new_owner_of_a_service_id_has_counters_of_zero() {
    let mut tables = small();
    let written = publish(&mut tables, &one_service(vec![active("a", 1)]));
    let at = |part: &str| written.lines().position(|line| line.starts_with(part)).unwrap();
    assert!(at("reset counters of service 0") < at("put frontend"));
    assert!(!publish(&mut tables, &one_service(vec![active("b", 1)])).contains("reset counters of service"));
}

#[test]
fn too_many_excluded_cgroups_give_a_warning() {
    let mut tables = MapState::new(Capacity { excluded: 2, ..small().capacity });
    let of = |ids: &[u64]| Desired { excluded: ids.iter().copied().collect(), ..Desired::default() };
    assert_eq!(publish(&mut tables, &of(&[7, 8])), "exclude cgroup 7\nexclude cgroup 8\n");
    assert_eq!(publish(&mut tables, &of(&[8])), "no longer exclude cgroup 7\n");
    let planned = plan(&of(&[7, 8, 9]), &tables);
    assert_eq!((planned.ops.len(), planned.warnings.len()), (0, 1));
}

/// Only damaged maps can have duplicates; plans repair them.
#[test]
fn plan_repairs_duplicate_frontends_and_backends() {
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
