//! The services that a port of an app or pod claims: its service port, and its virtual addresses.

use crate::model::{Protocol, ServiceKey, Vip};

/// The claim of one app or pod to a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortClaim<'a> {
    /// The id of the app or pod.
    pub(super) app: &'a str,
    /// Whether a label makes the claim: then sharing the port is intended.
    pub(super) by_label: bool,
    /// Whether Marathon assigned the port to the app, also if a label repeats the number.
    pub(super) is_assigned: bool,
    /// Whether its tasks have the same port on their hosts, by their definition.
    pub(super) on_its_hosts: bool,
}

/// What of a port is claimed. If a port is claimed in several ways, the first in this order gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ClaimKind<'a> {
    /// The port itself: Marathon assigned it, a label sets it, or a virtual address that is an IP address has it.
    Port,
    /// The name of a virtual address.
    Name(&'a str),
}

/// One service that a port claims.
pub(super) type ServiceClaim<'a> = (ServiceKey, ClaimKind<'a>, PortClaim<'a>);

/// Returns the services that a port claims: its service port, if it has one, and its virtual addresses, for each
/// protocol.
///
/// `claim` is the claim to the service port. The claims to virtual addresses are made by labels.
pub(super) fn service_keys<'a>(
    service_port: Option<u16>,
    vips: &[Vip<'a>],
    protocols: &'static [Protocol],
    claim: PortClaim<'a>,
) -> Vec<ServiceClaim<'a>> {
    let by_label = PortClaim { by_label: true, is_assigned: false, on_its_hosts: false, ..claim };
    let mut claims = Vec::with_capacity(protocols.len());
    for protocol in protocols {
        claims.extend(service_port.map(|port| (ServiceKey::host(port, *protocol), ClaimKind::Port, claim)));
        claims.extend(vips.iter().map(|vip| match vip {
            Vip::Address(address, port) => {
                (ServiceKey { address: Some(*address), port: *port, protocol: *protocol }, ClaimKind::Port, by_label)
            }
            Vip::Name(name, port) => (ServiceKey::host(*port, *protocol), ClaimKind::Name(name), by_label),
        }));
    }
    claims
}
