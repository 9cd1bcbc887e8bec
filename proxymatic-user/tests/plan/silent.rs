//! Virtual addresses, and services of sources that have not spoken yet.

use std::net::IpAddr;

use proxymatic_common::SourceCode;
use proxymatic_user::{
    model::{Protocol, ServiceKey},
    plan::{Desired, MapState, plan},
};

use super::{
    active,
    any::{service, small},
    kernel::Kernel,
    law::carry_out,
    one_service, publish,
};

#[test]
fn a_virtual_address_is_a_class_of_its_own_and_goes_with_its_last_service() {
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
    assert_eq!(lead(None, 80), None, "not on the host's own addresses");
    assert_eq!(lead(address, 1234), None, "nor the host's services on it");
    assert!(publish(&mut tables, &one_service(vec![active("a", 1)])).starts_with("delete address 198.51.100.7\n"));
    assert_eq!(tables.addresses().len(), 0);
}

#[test]
fn a_virtual_address_that_is_the_hosts_own_is_warned_of() {
    let address = IpAddr::from([192, 0, 2, 1]);
    let mut desired = Desired { addresses: [address].into(), ..Desired::default() };
    let key = ServiceKey { address: Some(address), port: 80, protocol: Protocol::Tcp };
    desired.services.insert(key, (SourceCode::MARATHON, service(vec![active("v", 9)]).into()));
    let planned = plan(&desired, &small());
    assert_eq!(
        planned.warnings[0].reason,
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
    let silent = Desired { unanswered: [SourceCode::REGISTRATOR].into(), ..Desired::default() };
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
    desired.unanswered = [SourceCode::REGISTRATOR].into();
    carry_out(&mut tables, &of_registrator(), &desired, 3);
    let owner = |tables: &MapState| tables.services().values().map(|entry| entry.settings.source).collect::<Vec<_>>();
    assert_eq!(owner(&tables), [SourceCode::MARATHON, SourceCode::REGISTRATOR]);
}

#[test]
fn only_the_services_of_the_silent_source_stay() {
    let mut tables = small();
    publish(&mut tables, &of_registrator());
    let silent = Desired { unanswered: [SourceCode::FILE].into(), ..Desired::default() };
    publish(&mut tables, &silent);
    assert_eq!(tables.frontends().len(), 0);
}
