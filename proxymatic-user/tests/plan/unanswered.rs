//! Services whose source has not answered yet.

use std::net::IpAddr;

use proxymatic_common::SourceCode;
use proxymatic_user::{
    model::{Protocol, ServiceKey},
    plan::{Desired, MapState},
};

use super::{
    active,
    invariants::carry_out,
    one_service, publish,
    strategies::{service, small},
};

/// A service of registrator on the host's addresses, and one on a virtual address.
fn registrator_services() -> Desired {
    let mut desired = one_service(vec![active("a", 1)]);
    let key = ServiceKey { address: Some(IpAddr::from([198, 51, 100, 7])), port: 80, protocol: Protocol::Tcp };
    desired.services.insert(key, (SourceCode::MARATHON, service(vec![active("v", 9)]).into()));
    desired.services.values_mut().for_each(|(source, _)| *source = SourceCode::REGISTRATOR);
    desired
}

#[test]
fn unanswered_source_keeps_services_and_virtual_addresses() {
    let mut tables = small();
    publish(&mut tables, &registrator_services());
    let unanswered = Desired { unanswered: [SourceCode::REGISTRATOR].into(), ..Desired::default() };
    assert_eq!(publish(&mut tables, &unanswered), "");
    let mut both = unanswered.clone();
    let key = ServiceKey::host(4321, Protocol::Tcp);
    both.services.insert(key, (SourceCode::MARATHON, service(vec![active("b", 2)]).into()));
    publish(&mut tables, &both);
    assert_eq!(publish(&mut tables, &both), "");
    assert_eq!(tables.frontends().len(), 3, "services of other sources are added");
    // Once the source has answered, services missing in its answer go.
    publish(&mut tables, &Desired::default());
    assert_eq!((tables.frontends().len(), tables.addresses().len()), (0, 0));
}

#[test]
fn other_source_replaces_a_service_of_an_unanswered_one() {
    let mut tables = small();
    publish(&mut tables, &registrator_services());
    let mut desired = one_service(vec![active("z", 7)]);
    desired.unanswered = [SourceCode::REGISTRATOR].into();
    carry_out(&mut tables, &registrator_services(), &desired, 3);
    let owner = |tables: &MapState| tables.services().values().map(|entry| entry.settings.source).collect::<Vec<_>>();
    assert_eq!(owner(&tables), [SourceCode::MARATHON, SourceCode::REGISTRATOR]);
}

#[test]
fn only_services_of_the_unanswered_source_are_kept() {
    let mut tables = small();
    publish(&mut tables, &registrator_services());
    let unanswered = Desired { unanswered: [SourceCode::FILE].into(), ..Desired::default() };
    publish(&mut tables, &unanswered);
    assert_eq!(tables.frontends().len(), 0);
}
