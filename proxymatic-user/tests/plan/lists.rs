//! Allow lists: a service is never served without its complete list.

use std::sync::Arc;

use proxymatic_common::Features;
use proxymatic_user::{
    model::{Protocol, Service, ServiceKey},
    plan::{Capacity, Desired, MapState, QUARANTINE, Quarantine, plan},
};

use super::{
    active,
    invariants::carry_out,
    kernel::{CGROUP, Kernel},
    one_service, publish,
    strategies::small,
};

const KEY: ServiceKey = ServiceKey::host(1234, Protocol::Tcp);

/// One service with this allow list; an empty text means no list.
fn listed(list: &str) -> Desired {
    let mut desired = one_service(vec![active("a", 1)]);
    desired.cgroups = [("/mine".into(), CGROUP)].into();
    let allow = |service: &mut Service| {
        let entries = list.split(',').map(|entry| entry.parse().expect("an entry"));
        service.settings.allow = (!list.is_empty()).then(|| entries.collect());
    };
    desired.services.values_mut().for_each(|(_, service)| allow(Arc::make_mut(service)));
    desired
}

#[test]
fn allow_list_is_written_before_and_deleted_after_its_use() {
    let mut tables = small();
    expect_test::expect![[r#"
        reset counters of backend 0
        reset counters of service 0
        name backend 0 a
        put backend 0 10.0.0.1:31000 active weight 500
        put slots 0..1
        allow 2001:db8::/32 to service 0
        allow 10.0.0.0/8 to service 0
        allow cgroup 42 to service 0
        put service 0 leastconn connect 3000ms, allow list
        name service 0 /app
        switch service 0 to 1 slots from 0
        set port 1234/tcp
        put frontend 1234/tcp class 1 service 0
    "#]]
    .assert_eq(&publish(&mut tables, &listed("10.0.0.0/8,2001:db8::/32,cgroup:/mine")));
    expect_test::expect![[r#"
        allow 10.1.0.0/16 to service 0
        no longer allow 10.0.0.0/8 to service 0
        no longer allow cgroup 42 to service 0
    "#]]
    .assert_eq(&publish(&mut tables, &listed("10.1.0.0/16,2001:db8::/32")));
    expect_test::expect![[r#"
        put service 0 leastconn connect 3000ms
        no longer allow 2001:db8::/32 to service 0
        no longer allow 10.1.0.0/16 to service 0
    "#]]
    .assert_eq(&publish(&mut tables, &listed("")));
    publish(&mut tables, &listed("10.0.0.0/8"));
    publish(&mut tables, &Desired::default());
    let (mut quarantine, mut now) = (Quarantine::default(), std::time::Instant::now());
    let mut written = String::new();
    for _ in 0..4 {
        for op in quarantine.release(&tables, |_| 0, now) {
            written += &format!("{op}\n");
            tables.apply(&op);
        }
        now += QUARANTINE;
    }
    assert!(written.contains("no longer allow 10.0.0.0/8 to service 0\n"), "{written}");
    assert!(tables.services().is_empty());
}

#[test]
fn hooks_apply_the_allow_list() {
    for (list, served) in [
        ("", true),
        ("10.0.0.0/8", true),
        // The address of the service, not of the program.
        ("127.0.0.0/8", false),
        ("127.0.0.1/32,10.0.0.0/8", true),
        ("128.0.0.0/8", false),
        ("cgroup:/mine", true),
        ("::1/128", false),
    ] {
        let mut tables = small();
        publish(&mut tables, &listed(list));
        assert_eq!(Kernel::new(&tables, 1).backend_of(KEY).is_some(), served, "{list}");
    }
}

#[test]
fn empty_allow_list_allows_no_client() {
    let mut desired = listed("");
    desired.services.values_mut().for_each(|(_, service)| Arc::make_mut(service).settings.allow = Some([].into()));
    let mut tables = small();
    publish(&mut tables, &desired);
    assert!(tables.services()[&0].settings.features.has(Features::ALLOW));
    assert_eq!(Kernel::new(&tables, 1).backend_of(KEY), None);
}

#[test]
fn missing_cgroup_in_a_list_has_no_effect_and_a_warning() {
    let mut tables = small();
    let planned = plan(&listed("cgroup:/gone"), &tables);
    assert_eq!(planned.warnings[0].app, "/app");
    assert!(planned.warnings[0].reason.starts_with("cgroup:/gone of its allow list does not exist"));
    planned.ops.iter().for_each(|op| tables.apply(op));
    assert_eq!(Kernel::new(&tables, 1).backend_of(KEY), None);
}

#[test]
fn service_whose_list_does_not_fit_is_not_served() {
    for (capacity, list, map) in [
        (Capacity { allows: 2, ..small().capacity }, "127.0.0.0/8,10.0.0.0/8,192.0.2.0/24", "SOURCE_RANGES holds 2"),
        (Capacity { allowed_cgroups: 0, ..small().capacity }, "127.0.0.0/8,cgroup:/mine", "SOURCE_CGROUPS holds 0"),
    ] {
        // Neither a new service, nor one that was served without a list or with another list.
        for before in ["none", "", "10.0.0.0/8"] {
            let mut tables = MapState::new(capacity);
            if before != "none" {
                publish(&mut tables, &listed(before));
                assert!(Kernel::new(&tables, 1).backend_of(KEY).is_some());
            }
            let planned = plan(&listed(list), &tables);
            assert_eq!(planned.warnings.len(), 1);
            assert!(planned.warnings[0].reason.contains(map), "{:?}", planned.warnings);
            planned.ops.iter().for_each(|op| tables.apply(op));
            assert!(tables.frontends().is_empty(), "{before:?}");
            // A list that fits is served again.
            carry_out(&mut tables, &Desired::default(), &listed("10.0.0.0/8"), 5);
        }
    }
}

#[test]
fn service_that_does_not_fit_is_not_left_with_a_wider_list() {
    let mut tables = MapState::new(Capacity { backends: 1, ..small().capacity });
    publish(&mut tables, &listed("127.0.0.0/8"));
    let mut desired = listed("127.0.0.0/8");
    desired.services.values_mut().for_each(|(_, service)| Arc::make_mut(service).backends.push(active("b", 2)));
    let planned = plan(&desired, &tables);
    assert_eq!(
        (planned.warnings.len(), planned.ops.len()),
        (1, 0),
        "a service with an unchanged list must stay as it was"
    );
    let mut desired = listed("10.0.0.0/8");
    desired.services.values_mut().for_each(|(_, service)| Arc::make_mut(service).backends.push(active("b", 2)));
    let planned = plan(&desired, &tables);
    planned.ops.iter().for_each(|op| tables.apply(op));
    assert!(tables.frontends().is_empty());
}
