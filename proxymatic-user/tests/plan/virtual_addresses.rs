//! Virtual addresses: their classes, and the limit of the map.

use std::net::IpAddr;

use proxymatic_common::SourceCode;
use proxymatic_user::{
    model::{Protocol, ServiceKey},
    plan::{Capacity, Desired, MapState, plan},
};

use super::{
    active,
    kernel::Kernel,
    one_service, publish,
    strategies::{service, small},
};

const KEY: ServiceKey = ServiceKey::host(1234, Protocol::Tcp);

#[test]
fn virtual_address_is_deleted_with_its_last_service() {
    let mut tables = small();
    let mut desired = one_service(vec![active("a", 1)]);
    let address = Some(IpAddr::from([198, 51, 100, 7]));
    let key = ServiceKey { address, port: 80, protocol: Protocol::Tcp };
    desired.services.insert(key, (SourceCode::MARATHON, service(vec![active("v", 9)]).into()));
    publish(&mut tables, &desired);
    let lead = |address, port| {
        Kernel::new(&tables, 7)
            .backend_of(ServiceKey { address, port, protocol: Protocol::Tcp })
            .map(|(address, _)| address)
    };
    assert_eq!(lead(address, 80), Some(IpAddr::from([10, 0, 0, 9])));
    assert_eq!(lead(None, 80), None, "the service is not on the host's own addresses");
    assert_eq!(lead(address, 1234), None, "the host's services are not on the virtual address");
    assert!(publish(&mut tables, &one_service(vec![active("a", 1)])).starts_with("delete address 198.51.100.7\n"));
    assert_eq!(tables.addresses().len(), 0);
}

#[test]
fn virtual_address_of_the_host_itself_gives_a_warning() {
    let address = IpAddr::from([192, 0, 2, 1]);
    let mut desired = Desired { addresses: [address].into(), ..Desired::default() };
    let key = ServiceKey { address: Some(address), port: 80, protocol: Protocol::Tcp };
    desired.services.insert(key, (SourceCode::MARATHON, service(vec![active("v", 9)]).into()));
    let planned = plan(&desired, &small());
    assert_eq!(planned.warnings[0].reason, "virtual address 192.0.2.1:80/tcp is not served: it belongs to this host");
}

/// Found by fuzzing: each plan gave other classes to services whose addresses did not fit, without end.
#[test]
fn virtual_address_that_does_not_fit_gives_a_warning() {
    let mut tables = MapState::new(Capacity { addresses: 3, ..small().capacity });
    let at = |n: u8| ServiceKey { address: Some(IpAddr::from([198, 51, 100, n])), ..KEY };
    let of = |hosts: &[u8], numbers: &[u8]| {
        let one = |n: &u8| (at(*n), (SourceCode::MARATHON, service(vec![active("a", *n)]).into()));
        let addresses = hosts.iter().map(|n| IpAddr::from([192, 0, 2, *n])).collect();
        Desired { services: numbers.iter().map(one).collect(), addresses, ..Desired::default() }
    };
    publish(&mut tables, &of(&[1], &[5]));
    // The address that has a class keeps it, though others sort before it.
    let more = of(&[1], &[2, 3, 4, 5]);
    publish(&mut tables, &more);
    let planned = plan(&more, &tables);
    assert_eq!(planned.ops, [], "nothing must be left to do");
    let reasons: Vec<_> = planned.warnings.iter().map(|warning| warning.reason.as_str()).collect();
    assert!(
        reasons.len() == 2 && reasons.iter().all(|it| it.contains("does not fit: ADDRESSES holds 3 entries")),
        "{reasons:?}"
    );
    let kernel = Kernel::new(&tables, 1);
    assert_eq!([2, 3, 4, 5].map(|n| kernel.backend_of(at(n)).is_some()), [true, false, false, true]);
}

#[test]
fn new_address_gets_the_entry_of_a_deleted_one() {
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
        assert!(tables.addresses().len() <= 2, "the kernel would reject {op}");
    }
    assert_eq!(publish(&mut tables, &of(&[2, 3])), "");
}
