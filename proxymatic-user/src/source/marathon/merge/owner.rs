//! What a service port belongs to: itself, or the name of a virtual address that wants its number.

use super::{PortClaim, ServiceBuilder};
use crate::model::{PREFIX, Protocol, ServiceKey, Vip, Warning};

/// What a service port belongs to. Of several, the first in this order has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) enum Owner<'a> {
    /// Itself: Marathon assigned it or a label asks for it, or it is of a virtual address that is one.
    Port,
    /// The name of a virtual address.
    Name(&'a str),
}

/// One thing that a port asks for.
pub(in super::super) type Asked<'a> = (ServiceKey, Owner<'a>, PortClaim<'a>);

/// What a port asks for: its service port, where it has one, and its virtual addresses, each with each protocol.
///
/// `claim` is of its service port; a label asks for each of the others.
pub(in super::super) fn asked<'a>(
    service_port: Option<u16>,
    vips: &[Vip<'a>],
    protocols: &'static [Protocol],
    claim: PortClaim<'a>,
) -> Vec<Asked<'a>> {
    let by_label = PortClaim { by_label: true, on_its_hosts: false, ..claim };
    let mut asked = Vec::with_capacity(protocols.len());
    for protocol in protocols {
        asked.extend(service_port.map(|port| (ServiceKey::host(port, *protocol), Owner::Port, claim)));
        asked.extend(vips.iter().map(|vip| match vip {
            Vip::Address(address, port) => {
                (ServiceKey { address: Some(*address), port: *port, protocol: *protocol }, Owner::Port, by_label)
            }
            Vip::Name(name, port) => (ServiceKey::host(*port, *protocol), Owner::Name(name), by_label),
        }));
    }
    asked
}

/// What is said of a name that does not get its service port. Nothing where the very same tasks have it.
pub(super) fn conflict_warnings(
    key: ServiceKey,
    owner: Owner<'_>,
    draft: &ServiceBuilder<'_>,
    by: Owner<'_>,
    winner: &ServiceBuilder<'_>,
) -> Vec<Warning> {
    let Owner::Name(name) = owner else { return Vec::new() };
    let has = |claim: &PortClaim<'_>| winner.claims.iter().any(|other| other.app == claim.app);
    let same = draft.claims.iter().all(has) && draft.replicas.keys().all(|it| winner.replicas.contains_key(it));
    if same {
        return Vec::new();
    }
    let port = key.port;
    let by = match by {
        Owner::Name(other) => format!("{other}:{port}"),
        Owner::Port => {
            let apps: std::collections::BTreeSet<_> = winner.claims.iter().map(|claim| claim.app).collect();
            format!("the service port of {}", apps.into_iter().collect::<Vec<_>>().join(" and "))
        }
    };
    let remedy = format!("give it another port, or a service port with the label {PREFIX}<index>.servicePort");
    let reason = format!(
        "the virtual address {name}:{port} is not served: names are served at their port on every host, and {key} is \
         {by}; {remedy}"
    );
    draft.claims.iter().map(|claim| Warning { app: claim.app.to_owned(), reason: reason.clone() }).collect()
}
