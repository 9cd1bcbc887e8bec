//! Proptest strategies for desired states.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use proptest::prelude::*;
use proxymatic_common::SourceCode;
use proxymatic_user::{
    model::{self, Policy, Protocol, Service, ServiceKey, Settings, State, Weight},
    plan::{Capacity, Desired, Exposed, MapState},
};

use super::kernel::CGROUP;

fn v6(net: u16, host: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, host.into()).into()
}

fn backend() -> impl Strategy<Value = model::Backend> {
    let state = prop_oneof![4 => Just(State::Active), 1 => Just(State::Warming), 1 => Just(State::Draining)];
    let weight = prop_oneof![3 => Just(500), 1 => Just(0), 2 => 1_u16..=1000];
    // Few hosts and ports, so that several tasks share an address, as in Mesos. Some addresses are this host's.
    let address = prop_oneof![
        3 => (1_u8..4).prop_map(|host| IpAddr::from([10, 0, 0, host])),
        1 => (1_u8..4).prop_map(|host| IpAddr::from([192, 0, 2, host])),
        2 => (1_u8..4).prop_map(|host| v6(0, host)),
    ];
    (0_u32..12, address, 1_u16..4, weight, state).prop_map(|(task, address, port, weight, state)| model::Backend {
        task: format!("task-{task}"),
        address,
        port: 1000 + port,
        weight: Weight::new(weight).unwrap_or_default(),
        maxconn: 0,
        state,
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    let entries = ["127.0.0.0/8", "10.0.0.0/8", "198.51.100.0/24", "2001:db8:1::/48", "cgroup:/mine", "cgroup:/other"];
    let list = prop::sample::subsequence(entries.to_vec(), 0..4);
    let list = list.prop_map(|list| list.iter().map(|entry| entry.parse().expect("an entry")).collect());
    let policy = prop::sample::select(Policy::ALL.to_vec());
    (policy, prop::option::weighted(0.3, list), any::<[bool; 2]>()).prop_map(|(policy, allow, [reset, expose])| {
        Settings { policy, allow, reset, expose, affinity: Duration::from_secs(reset.into()), ..Settings::default() }
    })
}

/// Makes a service with these backends.
pub(crate) fn service(backends: Vec<model::Backend>) -> Service {
    let unique: BTreeMap<_, _> = backends.into_iter().map(|b| ((b.task.clone(), b.address, b.port), b)).collect();
    Service { name: "/app".into(), backends: unique.into_values().collect(), ..Service::default() }
}

fn key() -> impl Strategy<Value = ServiceKey> {
    let address =
        prop_oneof![(1_u8..4).prop_map(|n| IpAddr::from([198, 51, 100, n])), (1_u8..4).prop_map(|n| v6(1, n)),];
    (prop::option::weighted(0.4, address), 1_u16..4, any::<bool>()).prop_map(|(address, port, tcp)| ServiceKey {
        address,
        port: 1000 + port,
        protocol: if tcp { Protocol::Tcp } else { Protocol::Udp },
    })
}

/// A random desired state.
pub(crate) fn desired() -> impl Strategy<Value = Desired> {
    let one = (prop::collection::vec(backend(), 0..7), settings());
    let one = one.prop_map(|(backends, settings)| Service { settings, ..service(backends) });
    let services = prop::collection::btree_map(key(), one, 0..5);
    let addresses = prop::collection::btree_set(1_u8..4, 0..3);
    let excluded = prop::collection::btree_set(100_u64..104, 0..3);
    let parked = prop::collection::btree_set(0_u32..12, 0..6);
    let drained = prop::collection::btree_set(0_u32..12, 0..4);
    let exposed = prop::sample::select(vec![Exposed::None, Exposed::Labelled, Exposed::All]);
    let all = (services, addresses, excluded, exposed, parked, drained);
    all.prop_map(|(services, addresses, excluded, exposed, parked, drained)| Desired {
        addresses: addresses.into_iter().map(|n| IpAddr::from([192, 0, 2, n])).collect(),
        services: services.into_iter().map(|(key, service)| (key, (SourceCode::MARATHON, service.into()))).collect(),
        unanswered: BTreeSet::new(),
        max_connections: 8192,
        cgroups: [("/mine".into(), CGROUP), ("/other".into(), CGROUP + 1)].into(),
        excluded,
        exposed,
        parked,
        drained,
    })
}

/// Small maps, so that ids and slots are soon reused.
pub(crate) fn small() -> MapState {
    MapState::new(Capacity { services: 16, backends: 96, slots: 65_536, addresses: 16, ..Capacity::default() })
}
